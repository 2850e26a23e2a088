"""Replays of crews: CrewAI's ways to use a tool, coworkers, and what it counts and caches around tools."""

from typing import Any

import pytest
from crewai import BaseLLM, Crew
from crewai.agents.parser import parse
from crewai.tools import BaseTool
from crewai.tools.tool_failure import ToolFailure
from crewai.utilities.tool_utils import aexecute_tool_and_check_finality
from kits.crewai_kit import CrewAIKit, ask, member
from pydantic import BaseModel
from recorded_agents import asks, record, say, wrapped

import raybolt
from raybolt.adapters.patching import active_patches
from raybolt.env.chat import ChatMessage, Completion, ToolCall
from raybolt.env.replay import replay
from raybolt.store import LocalStore, names

KIT = CrewAIKit()
weighings: list[str] = []


@pytest.fixture(autouse=True)
def counted_anew():
    weighings.clear()
    yield
    assert active_patches() == []


class Weight(BaseModel):
    grams: int


class Scale(BaseTool):
    name: str = "scale"
    description: str = "Weighs a thing."

    def _run(self, query: str) -> Any:
        weighings.append(query)
        if query == "air":
            raise ValueError(f"air weighs nothing ({len(weighings)})")
        if query == "nothing":
            return ToolFailure(message=f"nothing there ({len(weighings)})")
        kinds = {"lead": f"heavy ({len(weighings)})", "list": ["a", len(weighings)], "set": {len(weighings)}}
        return kinds.get(query, Weight(grams=len(weighings)))


class TypedScale(Scale):
    result_schema: type[BaseModel] | None = Weight


class TextProtocolLLM(BaseLLM):
    """A model without tool calls: CrewAI then describes the tools in its prompt."""

    def call(self, *args: Any, **kwargs: Any) -> str:
        raise AssertionError("the policy answers")


def in_words(query):
    """Asks for the scale in CrewAI's text protocol."""

    def policy(request):
        if any("Observation" in (message.content or "") for message in request.messages[1:]):
            return say("Thought: I know\nFinal Answer: done")
        return say(f'Thought: weigh\nAction: scale\nAction Input: {{"query": "{query}"}}')

    return policy


def awaited():
    """An executor of its own that uses a tool by CrewAI's asynchronous way."""
    llm, tool = TextProtocolLLM(model="old"), Scale().to_structured_tool()

    async def go(question: str) -> str:
        messages = [{"role": "user", "content": question}]
        text = await llm.acall(messages)
        action = parse(text)
        used = await aexecute_tool_and_check_finality(action, [tool])
        messages += [{"role": "assistant", "content": text}]
        return await llm.acall([*messages, {"role": "user", "content": f"Observation: {used.result}"}])

    return go


def replayed_alike(then, at):
    assert at.run.end.error is None
    now = at.run.trajectory
    assert [call.messages for call in now.calls] == [call.messages for call in then.calls]
    assert [(span.status, span.status_message) for span in now.tool_spans] == [
        (span.status, span.status_message) for span in then.tool_spans
    ]


@pytest.mark.parametrize(("query", "num_runs"), [("lead", 1), ("list", 1), ("air", 6)])
@pytest.mark.parametrize("way", ["sync", "async"])
async def test_tools_that_a_model_names_in_a_text_answer_from_the_store(query, num_runs, way):
    brought = awaited if way == "async" else member("writer", TextProtocolLLM(model="old"), tools=[Scale()])
    agent = raybolt.wrap(brought, framework="crewai", reward=lambda *_: 1.0)
    async with LocalStore(None) as store:
        rollout_id, then = await record(store, agent, in_words(query))
        assert weighings == [query] * num_runs  # CrewAI tries one that raises three times, twice each
        (span,) = then.tool_spans
        assert f"({num_runs})" in span.attributes[names.TOOL_RESULT] or query == "list"
        async with await replay(agent, store, rollout_id) as at:
            replayed_alike(then, at)
    assert weighings == [query] * num_runs


@pytest.mark.parametrize(
    ("tool", "query", "runs_again"),
    [(Scale, "list", False), (Scale, "set", False), (Scale, "nothing", True), (TypedScale, "gold", True)],
)
async def test_what_is_no_text_comes_back_as_the_agent_was_told_it(tool, query, runs_again):
    """A tool whose words CrewAI makes from an object runs again; here it gives something else than then."""
    agent = wrapped(KIT, lambda llm: member("writer", llm, tools=[tool()]))
    async with LocalStore(None) as store:
        rollout_id, then = await record(store, agent, asks(("scale", query)))
        async with await replay(agent, store, rollout_id, until=0) as at:
            assert weighings == [query]
        if not runs_again:
            async with await replay(agent, store, rollout_id) as at:
                replayed_alike(then, at)
            assert weighings == [query]
            return
        assert "holds, a value of type" in then.tool_spans[0].attributes[names.RESULT_MISSING]
        weighings.clear()  # so that it answers as it did
        async with await replay(agent, store, rollout_id) as at:
            replayed_alike(then, at)
        assert weighings == [query]


async def test_work_given_to_a_coworker_is_done_again_with_answers_from_the_store():
    def build(llm):
        writer = member("writer", llm, allow_delegation=True)
        critic = member("critic", llm, tools=[Scale()])
        return Crew(agents=[writer, critic], tasks=[ask(writer)])

    def policy(request):
        if request.role == "critic":
            return asks(("scale", "lead"))(request)
        told = [message.content for message in request.messages if message.role == "tool"]
        return say(told[0]) if told else KIT.hand_off_reply(request)

    agent = wrapped(KIT, build)
    async with LocalStore(None) as store:
        rollout_id, then = await record(store, agent, policy)
        assert [call.role for call in then.calls] == ["writer", "critic", "critic", "writer"]
        assert then.calls[-1].reply.content == "heavy (1)"
        async with await replay(agent, store, rollout_id) as at:
            replayed_alike(then, at)
            assert any(span.name == "handoff writer -> critic" for span in at.run.recorder.spans)
        assert weighings == ["lead"]
        async with await replay(agent, store, rollout_id, until=2) as at:
            assert (at.call.role, at.call.request.messages[-1].content) == ("critic", "heavy (1)")


async def test_a_tool_used_up_in_a_replay_stays_so_behind_it():
    def build(llm):
        writer = member("writer", llm, tools=[Scale(max_usage_count=1)])
        return Crew(agents=[writer], tasks=[ask(writer)])

    agent = wrapped(KIT, build)
    again = Completion(
        ChatMessage("assistant", None, (ToolCall("again", "scale", '{"query": "gold"}'),)), "tool_calls"
    )
    async with LocalStore(None) as store:
        rollout_id, _ = await record(store, agent, asks(("scale", "lead")))
        async with await replay(agent, store, rollout_id, until=1) as at:
            at.run.answer(at.call.call_id, again)
            (call,) = await at.run.next()
            assert "has reached its usage limit of 1 times" in call.request.messages[-1].content
    assert weighings == ["lead"]


async def test_a_tool_answered_by_crewais_cache_then_is_in_the_replay():
    def policy(request):
        told = [message for message in request.messages if message.role == "tool"]
        if len(told) < 2:
            call = ToolCall(f"call_{len(told)}", "scale", '{"query": "list"}')
            return Completion(ChatMessage("assistant", None, (call,)), "tool_calls")
        return say("done")

    def build(llm):
        writer = member("writer", llm, tools=[Scale()])
        return Crew(agents=[writer], tasks=[ask(writer)], cache=True)

    agent = wrapped(KIT, build)
    async with LocalStore(None) as store:
        rollout_id, then = await record(store, agent, policy)
        assert weighings == ["list"]
        assert [span.attributes[names.TOOL_RETURNED] for span in then.tool_spans] == [["a", 1]] * 2
        async with await replay(agent, store, rollout_id) as at:
            replayed_alike(then, at)
    assert weighings == ["list"]

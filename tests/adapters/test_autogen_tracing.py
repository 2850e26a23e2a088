"""Spans of AutoGen's agents and tools, without any change to them."""

import asyncio

import pytest
from autogen_agentchat.agents import AssistantAgent, BaseChatAgent
from autogen_agentchat.messages import TextMessage
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core.tools import FunctionTool
from autogen_ext.models.replay import ReplayChatCompletionClient

import raybolt
from raybolt.adapters.patching import active_patches
from raybolt.env.chat import ChatMessage, Completion, ToolCall


def look(query: str) -> str:
    """Looks something up."""
    raybolt.emit("looked", query=query)
    return "rain"


async def slow_look(query: str) -> str:
    """Looks something up, slowly."""
    await asyncio.sleep(0)
    raybolt.emit("looked", query=query)
    return "rain"


def fail(query: str) -> str:
    """Fails."""
    raise LookupError("nothing")


def looker(llm):
    return AssistantAgent("writer", llm, tools=[look, slow_look, fail], reflect_on_tool_use=True)


@pytest.mark.parametrize("tool", ["look", "slow_look"])
async def test_a_tools_span_tells_what_went_in_and_out_and_holds_what_it_emits(agent_run, script, tool):
    ran = await agent_run(looker, "go", script.tool_then("done", (tool, {"query": "sky"})))
    span = ran.span(f"execute_tool {tool}")
    assert span.attributes["gen_ai.tool.name"] == tool
    assert span.attributes["gen_ai.tool.call.arguments"] == {"query": "sky"}
    assert span.attributes["gen_ai.tool.call.result"] == "rain"
    assert span.attributes["gen_ai.tool.call.id"] == "call_0"
    assert span.attributes["gen_ai.agent.name"] == "writer"
    assert span.status == "ok"
    assert ran.parent_name(ran.span("looked")) == f"execute_tool {tool}"
    assert ran.parent_name(span) == "agent writer"


async def test_a_tool_that_raises_is_recorded_with_its_exception(agent_run, script):
    ran = await agent_run(looker, "go", script.tool_then("oh", ("fail", {"query": "sky"})))
    span = ran.span("execute_tool fail")
    assert (span.status, span.status_message) == ("error", "LookupError: nothing")
    assert span.attributes["raybolt.error.type"] == "LookupError"
    assert span.attributes["gen_ai.tool.call.result"] == "nothing"
    assert span.events[0].attributes["exception.type"] == "LookupError"


@pytest.mark.parametrize(
    ("name", "arguments", "recorded", "error"),
    [
        ("look", '{"question": "sky"}', {"question": "sky"}, "ValidationError: 1 validation error"),
        ("look", '{"query": ', '{"query": ', "Error: Expecting value"),
        ("unknown", "{}", {}, "Error: tool 'unknown' not found"),
    ],
)
async def test_calls_that_reach_no_tool_are_recorded_as_failed(
    agent_run, script, name, arguments, recorded, error
):
    def policy(request):
        if any(message.role == "tool" for message in request.messages):
            return script.say("oh")
        return Completion(ChatMessage("assistant", None, (ToolCall("c", name, arguments),)), "tool_calls")

    ran = await agent_run(looker, "go", policy)
    span = ran.span(f"execute_tool {name}")
    assert span.status == "error"
    assert span.status_message.startswith(error)
    assert span.attributes["gen_ai.tool.call.arguments"] == recorded


async def test_parallel_calls_of_one_tool_have_a_span_each(agent_run, script):
    policy = script.tool_then("done", ("look", {"query": "a"}), ("slow_look", {"query": "b"}))
    ran = await agent_run(looker, "go", policy)
    homes = {span.attributes["query"]: ran.parent_name(span) for span in ran.spans if span.name == "looked"}
    assert homes == {"a": "execute_tool look", "b": "execute_tool slow_look"}


class Manual(BaseChatAgent):
    """Calls its tool without asking any model."""

    def __init__(self, llm):
        super().__init__("manual", "Calls a tool.")
        self._tool = FunctionTool(look, description="Looks.")
        self._writer = AssistantAgent("writer", llm)

    @property
    def produced_message_types(self):
        return (TextMessage,)

    async def on_messages(self, messages, cancellation_token):
        await self._tool.run_json({"query": "sky"}, cancellation_token, call_id="own")
        return await self._writer.on_messages(messages, cancellation_token)

    async def on_reset(self, cancellation_token): ...


async def test_a_tool_that_an_agent_calls_by_itself_is_recorded(agent_run, script):
    ran = await agent_run(lambda llm: Manual(llm), "go", lambda request: script.say("x"), framework="autogen")
    span = ran.span("execute_tool look")
    assert span.attributes["gen_ai.tool.call.result"] == "rain"
    assert span.attributes["gen_ai.tool.call.id"] == "own"
    assert ran.parent_name(span) == "agent manual"
    assert ran.parent_name(ran.span("agent writer")) == "agent manual"


async def test_the_agent_that_was_wrapped_needs_no_span_beside_the_runs(agent_run, script):
    writer = AssistantAgent("writer", ReplayChatCompletionClient(["unused"]))
    ran = await agent_run(writer, "go", lambda request: script.say("x"))
    assert [span.name for span in ran.spans] == ["invoke_agent writer", "chat writer"]


async def test_an_agent_that_fails_ends_its_span_as_failed(agent_run, script):
    class Broken(Manual):
        async def on_messages(self, messages, cancellation_token):
            await super().on_messages(messages, cancellation_token)
            raise RuntimeError("broken")

    def build(llm):
        return Broken(llm)

    ran = await agent_run(build, "go", lambda request: script.say("x"), framework="autogen")
    assert ran.end.error == "RuntimeError: broken"
    assert ran.span("agent manual").status_message == "RuntimeError: broken"


async def test_leaving_an_agents_stream_early_ends_its_span(agent_run, script):
    def build(llm):
        async def first_event(question):
            stream = AssistantAgent("writer", llm, tools=[look]).run_stream(task=question)
            async for event in stream:
                if event.source == "writer":
                    break
            await stream.aclose()
            raybolt.emit("after")
            return event.source

        return first_event

    ran = await agent_run(build, "go", script.tool_then("done", ("look", {"query": "a"})))
    assert ran.result == "writer"
    assert ran.span("agent writer").status == "ok"
    assert ran.parent_name(ran.span("after")) == "invoke_agent agent"


async def test_between_two_items_of_a_stream_the_consumer_stands_outside_the_agent(agent_run, script):
    def build(llm):
        async def consume(question):
            team = RoundRobinGroupChat([AssistantAgent("writer", llm)], max_turns=1)
            async for event in team.run_stream(task=question):
                raybolt.emit("seen", kind=type(event).__name__)

        return consume

    ran = await agent_run(build, "go", lambda request: script.say("x"))
    seen = [span for span in ran.spans if span.name == "seen"]
    assert [span.attributes["kind"] for span in seen] == ["TextMessage", "TextMessage", "TaskResult"]
    assert {ran.parent_name(span) for span in seen} == {"invoke_agent agent"}
    assert ran.parent_name(ran.span("agent writer")) == "team RoundRobinGroupChat"


async def test_outside_a_run_nothing_is_patched_and_agents_work_as_ever(agent_run, script):
    await agent_run(looker, "go", lambda request: script.say("x"))
    assert active_patches() == []
    agent = AssistantAgent("writer", ReplayChatCompletionClient(["hello"]))
    assert (await agent.run(task="hi")).messages[-1].content == "hello"


async def test_an_agent_nobody_wrapped_is_traced_on_its_own_client(tmp_path):
    client = ReplayChatCompletionClient(["Rain.", "Fine."])
    async with raybolt.trace(tmp_path, name="crew") as run:
        team = RoundRobinGroupChat(
            [AssistantAgent("writer", client), AssistantAgent("critic", client)], max_turns=2
        )
        result = await team.run(task="rhyme")
    assert [message.content for message in result.messages] == ["rhyme", "Rain.", "Fine."]
    assert sorted(span.name for span in run.recorder.spans) == [
        "agent critic",
        "agent writer",
        "chat critic",
        "chat writer",
        "invoke_agent crew",
        "team RoundRobinGroupChat",
    ]
    assert active_patches() == []

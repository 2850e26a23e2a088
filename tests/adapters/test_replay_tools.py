"""Runs of frameworks' agents re-driven from a store: their tools answer from it, and do not run."""

import pytest
from kits.every import KITS, kit_of
from recorded_agents import asks, breaks, executions, look, record, say, slow_look, wrapped

import raybolt
from raybolt.adapters.patching import active_patches
from raybolt.env.errors import ReplayDiverged
from raybolt.env.replay import replay
from raybolt.store import LocalStore, names

WAYS = [(framework, way) for framework in KITS for way in ("factory", "built")]
WAYS.remove(("python", "factory"))


def using(framework, *tools, way=None, **options):
    """An agent with these tools, which plain Python has to decorate."""
    kit = kit_of(framework)
    given = [raybolt.operation(tool) for tool in tools] if framework == "python" else tools
    return wrapped(kit, kit.with_tools(way or kit.ways[0], given), **options)


def told(call):
    """What tools have answered in a call's conversation."""
    return [message.content for message in call.messages if message.role == "tool"]


@pytest.mark.parametrize(("framework", "way"), WAYS)
async def test_tools_answer_from_the_store_and_do_not_run(framework, way):
    agent = using(framework, look, slow_look, way=way)
    policy = asks(("look", "here"), ("slow_look", "there"))
    async with LocalStore(None) as store:
        rollout_id, then = await record(store, agent, policy)
        assert sorted(executions) == ["here", "there"]
        assert then.calls[-1].reply.content.count("#") == 2
        async with await replay(agent, store, rollout_id) as at:
            assert at.run.end.error is None
            now = at.run.trajectory
        assert len(executions) == 2
        assert [call.reply for call in now.calls] == [call.reply for call in then.calls]
        assert now.total_reward == then.total_reward == 1.5
        assert sorted(span.name for span in now.tool_spans) == sorted(span.name for span in then.tool_spans)
        async with await replay(agent, store, rollout_id, until=0) as at:
            at.run.answer(at.call.call_id, policy(at.call.request))
            (call,) = await at.run.next()
            assert len(executions) == 4
            assert {content[-1] for content in told(call.request)} == {"3", "4"}
        with pytest.raises(ReplayDiverged, match=r"'here #[12]'; now tool: 'here #5'"):
            await replay(agent, store, rollout_id, live_tools=["look"])
    assert active_patches() == []


@pytest.mark.parametrize("framework", KITS)
async def test_a_tool_that_raised_does_so_again_without_running(framework):
    agent = using(framework, breaks)
    async with LocalStore(None) as store:
        rollout_id, then = await record(store, agent, asks(("breaks", "shop")))
        assert executions == ["shop"]
        if then.failed:  # LangChain lets the error through
            with pytest.raises(ReplayDiverged, match=r"call 1 .* ended before it .*shop is closed \(1\)"):
                await replay(agent, store, rollout_id, until=1)
            async with await replay(agent, store, rollout_id) as at:
                assert at.run.end.error == then.error == "ValueError: shop is closed (1)"
                now = at.run.trajectory
        else:
            async with await replay(agent, store, rollout_id) as at:
                assert at.run.end.error is None
                now = at.run.trajectory
            assert told(now.calls[-1]) == told(then.calls[-1])
            assert "shop is closed (1)" in told(now.calls[-1])[0]
        assert [(span.status, span.status_message) for span in now.tool_spans] == [
            (span.status, span.status_message) for span in then.tool_spans
        ]
    assert executions == ["shop"]


@pytest.mark.parametrize("framework", [framework for framework in KITS if framework != "python"])
async def test_the_same_tool_asked_twice_at_once_answers_each_call_as_then(framework):
    agent = using(framework, look)
    async with LocalStore(None) as store:
        rollout_id, then = await record(store, agent, asks(("look", "here"), ("look", "here")))
        spans = await store.query_spans(rollout_id, "latest")
        tools = [span for span in spans if span.attributes.get(names.OPERATION) == names.EXECUTE_TOOL]
        assert {span.attributes[names.TOOL_CALL_ID] for span in tools} == {"call_0", "call_1"}
        async with await replay(agent, store, rollout_id) as at:
            assert told(at.run.trajectory.calls[-1]) == told(then.calls[-1])
    assert len(executions) == len(set(told(then.calls[-1])))


def late_langchain(llm):
    from langchain.agents import create_agent
    from langchain_core.tools import BaseTool

    class Look(BaseTool):
        name: str = "look"
        description: str = "Looks something up."

        def _run(self, query: str) -> str:
            return look(query)

    def go(question: str):
        return create_agent(llm, [Look()], name="writer").invoke({"messages": [("user", question)]})

    return go


def late_autogen(llm):
    from autogen_agentchat.agents import AssistantAgent
    from autogen_core.tools import BaseTool
    from pydantic import BaseModel

    class Query(BaseModel):
        query: str

    class Look(BaseTool[Query, str]):
        def __init__(self):
            super().__init__(Query, str, "look", "Looks something up.")

        async def run(self, args, cancellation_token):
            return look(args.query)

    return AssistantAgent("writer", llm, tools=[Look()], max_tool_iterations=3)


def late_crewai(llm):
    from crewai.tools import BaseTool
    from kits.crewai_kit import member

    class Look(BaseTool):
        name: str = "look"
        description: str = "Looks something up."

        def run(self, **given):  # as some do, though CrewAI asks for `_run` alone
            return super().run(**given)

        def _run(self, query: str) -> str:
            return look(query)

    return member("writer", llm, tools=[Look()])


@pytest.mark.parametrize(
    ("framework", "build"),
    [("langchain", late_langchain), ("autogen", late_autogen), ("crewai", late_crewai)],
)
async def test_tools_of_a_class_made_during_the_run_answer_too(framework, build):
    kit_of(framework)  # skips where it is not installed
    agent = raybolt.wrap(build, framework=framework, reward=lambda *_: 1.0)
    async with LocalStore(None) as store:
        rollout_id, _ = await record(store, agent, asks(("look", "here")))
        async with await replay(agent, store, rollout_id) as at:
            assert at.run.end.error is None
    assert executions == ["here"]
    assert active_patches() == []


def told_by_langchain(llm):
    """LangChain puts the exception into words, which are not the exception's own."""
    from langchain.agents import create_agent
    from langchain_core.tools import StructuredTool, ToolException

    def breaks_as_told(query: str) -> str:
        """Looks something up, and cannot."""
        try:
            return breaks(query)
        except ValueError as error:
            raise ToolException(str(error)) from error

    tool = StructuredTool.from_function(
        breaks_as_told, name="breaks", handle_tool_error=lambda error: f"sorry, {error}"
    )
    return create_agent(llm, [tool], name="writer")


def raised_by_openai_agents(llm):
    from agents import Agent, Runner, UserError, function_tool

    tool = function_tool(breaks, failure_error_function=None)

    async def go(question):
        try:
            await Runner.run(Agent("writer", model=llm, tools=[tool]), question)
        except UserError as error:
            return await Runner.run(Agent("writer", model=llm), f"{error} <- {error.__cause__!r}")

    return go


def raised_by_autogen(llm):
    from autogen_agentchat.agents import AssistantAgent
    from autogen_core import CancellationToken
    from autogen_core.tools import FunctionTool

    tool = FunctionTool(breaks, "Breaks.")

    async def go(question):
        try:
            await tool.run_json({"query": "shop"}, CancellationToken())
        except ValueError as error:
            return await AssistantAgent("writer", llm).run(task=repr(error))

    return go


@pytest.mark.parametrize(
    ("framework", "build"),
    [
        ("langchain", told_by_langchain),
        ("openai-agents", raised_by_openai_agents),
        ("autogen", raised_by_autogen),
    ],
)
async def test_what_a_framework_made_of_an_error_is_made_of_it_again(framework, build):
    kit_of(framework)  # skips where it is not installed
    agent = raybolt.wrap(build, framework=framework, reward=lambda *_: 1.0)
    async with LocalStore(None) as store:
        rollout_id, then = await record(
            store, agent, lambda call: asks(("breaks", "shop"))(call) if call.tools else say("done")
        )
        assert "shop is closed (1)" in then.calls[-1].messages[-1].content
        async with await replay(agent, store, rollout_id) as at:
            assert at.run.end.error is None
            now = at.run.trajectory
        assert [call.messages for call in now.calls] == [call.messages for call in then.calls]
        assert [(span.status, span.status_message) for span in now.tool_spans] == [
            (span.status, span.status_message) for span in then.tool_spans
        ]
    assert executions == ["shop"]

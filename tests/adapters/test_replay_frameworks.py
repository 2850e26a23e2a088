"""Runs of every kind of agent re-driven from a store: streams, schemas, hand-offs, agents as tools."""

import importlib.util

import pytest
from kits.every import KITS, kit_of
from pydantic import BaseModel
from recorded_agents import asks, call_tool, executions, look, record, say, wrapped

import raybolt
from raybolt.adapters.patching import active_patches
from raybolt.env.errors import ReplayDiverged
from raybolt.env.replay import replay
from raybolt.store import LocalStore


class Verdict(BaseModel):
    score: int


def in_turn(kit):
    """Tells whose reply it is, and the how manieth; hands over and fills in where the agent asks for it."""
    numbers = iter(range(100))

    def policy(request):
        told = any(message.role == "tool" for message in request.messages)
        for tool in request.usable_tools:
            if "score" in str(tool.parameters) and not told:
                return call_tool(tool.name, {"score": 7})
            if tool.name.startswith(("transfer", "delegate")) and request.role == "writer" and not told:
                return kit.hand_off_reply(request)
        if request.response_format is not None:
            return say('{"score": 7}')
        return say(f"{request.role} says {next(numbers)}")

    return policy


AGENTS = {
    "two roles": lambda kit, way: kit.two_roles(way),
    "hand-off": lambda kit, way: kit.hand_off(way),
    "structured output": lambda kit, way: kit.structured(way, Verdict),
    "consumer of a stream": lambda kit, way: kit.streaming(way),
    "three calls at once": lambda kit, way: kit.parallel(way),
}


NO_HAND_OFFS = ("agentscope", "python")
CASES = [
    (framework, way, kind)
    for framework in KITS
    for way in (("built",) if framework == "python" else ("factory", "built"))
    for kind in AGENTS
    if kind != "hand-off" or framework not in NO_HAND_OFFS
]


@pytest.mark.parametrize(("framework", "way", "kind"), CASES)
async def test_a_run_is_replayed_call_by_call(framework, way, kind):
    kit = kit_of(framework)
    agent = wrapped(kit, AGENTS[kind](kit, way))
    async with LocalStore(None) as store:
        rollout_id, then = await record(store, agent, in_turn(kit))
        assert not then.failed, then.error
        async with await replay(agent, store, rollout_id) as at:
            assert at.run.end.error is None
            now, result = at.run.trajectory, at.run.end.result
        assert [(call.role, call.reply) for call in now.calls] == [
            (call.role, call.reply) for call in then.calls
        ]
        if kind == "structured output":
            assert Verdict.model_validate(result) == Verdict(score=7)
        elif kind == "three calls at once":
            assert all(f"writer says {number}" in kit.text(result) for number in range(3))
        else:
            assert kit.text(result) == then.calls[-1].reply.content
        last = len(then.calls) - 1
        async with await replay(agent, store, rollout_id, until=last) as at:
            assert (at.call.role, at.call.request.messages) == (
                then.calls[last].role,
                then.calls[last].messages,
            )
    assert active_patches() == []


@pytest.mark.parametrize("framework", KITS)
async def test_an_agent_whose_code_has_changed_is_told_at_the_call_where_it_shows(framework):
    kit = kit_of(framework)
    agent = wrapped(kit, kit.two_roles(kit.ways[0]))
    async with LocalStore(None) as store:
        rollout_id, _ = await record(store, agent, in_turn(kit))
        with pytest.raises(ReplayDiverged) as diverged:
            await replay(wrapped(kit, kit.solo(kit.ways[0])), store, rollout_id)
        assert f"of rollout {rollout_id!r}: " in str(diverged.value)
        assert str(diverged.value).startswith(("call 0 (role 'writer')", "call 1 of"))
        async with await replay(agent, store, rollout_id) as at:  # the agent of then goes on as it did
            assert at.run.end.error is None


async def test_a_workbench_of_autogen_answers_from_the_store():
    """So do MCP servers, whose tools are none of AutoGen's own classes."""
    pytest.importorskip("autogen_agentchat")
    from autogen_agentchat.agents import AssistantAgent
    from autogen_core.tools import TextResultContent, ToolResult, Workbench

    class Desk(Workbench):
        async def list_tools(self):
            parameters = {"type": "object", "properties": {"query": {"type": "string"}}}
            return [{"name": "look", "description": "Looks.", "parameters": parameters}]

        async def call_tool(self, name, arguments=None, cancellation_token=None, call_id=None):
            text = TextResultContent(content=look(**arguments))
            return ToolResult(name=name, result=[text], is_error=arguments["query"] == "closed")

        async def start(self):
            pass

        stop = reset = load_state = save_state = start

    agent = raybolt.wrap(
        lambda llm: AssistantAgent("writer", llm, workbench=Desk(), max_tool_iterations=3),
        framework="autogen",
        reward=lambda *_: 1.0,
    )
    async with LocalStore(None) as store:
        rollout_id, then = await record(store, agent, asks(("look", "here"), ("look", "closed")))
        async with await replay(agent, store, rollout_id) as at:
            now = at.run.trajectory
        assert [call.reply for call in now.calls] == [call.reply for call in then.calls]
        assert [span.status for span in now.tool_spans] == ["ok", "error"]
    assert executions == ["here", "closed"]


def nested_langchain(llm):
    from langchain.agents import create_agent
    from langchain_core.tools import tool

    critic = create_agent(llm, [look], name="critic")

    @tool
    def ask_critic(question: str) -> str:
        """Asks the critic."""
        return critic.invoke({"messages": [("user", question)]})["messages"][-1].text

    return create_agent(llm, [ask_critic], name="writer")


def nested_autogen(llm):
    from autogen_agentchat.agents import AssistantAgent
    from autogen_agentchat.tools import AgentTool

    critic = AssistantAgent("critic", llm, tools=[look], max_tool_iterations=3)
    return AssistantAgent("writer", llm, tools=[AgentTool(critic)], max_tool_iterations=3)


def nested_openai_agents(llm):
    from agents import Agent, function_tool

    critic = Agent("critic", model=llm, tools=[function_tool(look)])
    return Agent("writer", model=llm, tools=[critic.as_tool("ask_critic", "Asks the critic.")])


def nested_agentscope(llm):
    from agentscope.message import UserMsg
    from kits.agentscope_kit import agent

    async def ask_critic(question: str) -> str:
        """Asks the critic."""
        reply = await agent("critic", llm, [look]).reply(UserMsg(name="user", content=question))
        return reply.get_text_content()

    return agent("writer", llm, [ask_critic])


async def test_a_tool_that_changes_its_agents_state_runs_again():
    pytest.importorskip("agentscope")
    from agentscope.tool import FunctionTool, ToolGroup, Toolkit
    from kits.agentscope_kit import agent as agent_of

    def build(llm):
        writer = agent_of("writer", llm)
        extra = ToolGroup(name="extra", description="More.", instructions="Look.", tools=[FunctionTool(look)])
        writer.toolkit = Toolkit(tool_groups=[extra])
        return writer

    def policy(request):
        names = [tool.name for tool in request.tools]
        told = [message for message in request.messages if message.role == "tool"]
        if not told:
            (reset,) = names
            return call_tool(reset, {"extra": True})
        if len(told) == 1:
            assert "look" in names
            return call_tool("look", {"query": "here"})
        return say("done")

    agent = raybolt.wrap(build, framework="agentscope", reward=lambda *_: 1.0)
    async with LocalStore(None) as store:
        rollout_id, _ = await record(store, agent, policy)
        assert executions == ["here"]
        async with await replay(agent, store, rollout_id, until=1) as at:
            assert "look" in [tool.name for tool in at.call.request.tools]
        async with await replay(agent, store, rollout_id) as at:
            assert at.run.end.error is None
    assert executions == ["here"]


NESTED = {
    "langchain": nested_langchain,
    "autogen": nested_autogen,
    "openai-agents": nested_openai_agents,
    "agentscope": nested_agentscope,
}


@pytest.mark.parametrize("framework", NESTED)
async def test_an_agent_used_as_a_tool_works_again_with_answers_from_the_store(framework):
    if importlib.util.find_spec(KITS[framework][0]) is None:
        pytest.skip(f"{framework} is not installed")
    agent = raybolt.wrap(NESTED[framework], framework=framework, reward=lambda *_: 1.0)

    def policy(request):
        if request.role == "critic":
            return asks(("look", "here"))(request)
        told = [message.content for message in request.messages if message.role == "tool"]
        (tool,) = request.tools
        (parameter,) = tool.parameters["properties"]
        return say(f"told: {told[0]}") if told else call_tool(tool.name, {parameter: "well?"})

    async with LocalStore(None) as store:
        rollout_id, then = await record(store, agent, policy)
        assert [call.role for call in then.calls] == ["writer", "critic", "critic", "writer"]
        assert "here #1" in then.calls[-1].reply.content
        async with await replay(agent, store, rollout_id) as at:
            assert at.run.end.error is None
            assert [call.reply for call in at.run.trajectory.calls] == [call.reply for call in then.calls]
        assert executions == ["here"]
        async with await replay(agent, store, rollout_id, until=2) as at:
            assert (at.call.role, at.call.request.messages[-1].content) == ("critic", "here #1")

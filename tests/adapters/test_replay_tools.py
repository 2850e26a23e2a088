"""Runs of frameworks' agents re-driven from a store: their tools answer from it, and do not run."""

import json

import pytest

import raybolt
from raybolt.adapters.patching import active_patches
from raybolt.env.chat import ChatMessage, Completion, ToolCall
from raybolt.env.errors import ReplayDiverged
from raybolt.env.policy import RunEnd
from raybolt.env.recorded import summary_of, task_metadata
from raybolt.env.recorder import SpanRecorder
from raybolt.env.replay import replay
from raybolt.env.run import AgentRun
from raybolt.env.task import Task
from raybolt.store import LocalStore

TASK = Task("t1", "go")
executions = []


def look(query: str) -> str:
    """Looks something up."""
    executions.append(query)
    raybolt.emit_reward(0.25)
    return f"{query} #{len(executions)}"


async def slow_look(query: str) -> str:
    """Looks something up, slowly."""
    return look(query)


def langchain():
    from langchain.agents import create_agent
    from langchain_core.tools import tool

    tools = [tool(look), tool(slow_look)]
    return lambda llm: create_agent(llm, tools, name="scout")


def autogen():
    from autogen_agentchat.agents import AssistantAgent

    return lambda llm: AssistantAgent("scout", llm, tools=[look, slow_look], reflect_on_tool_use=True)


def openai_agents():
    from agents import Agent, function_tool

    tools = [function_tool(look), function_tool(slow_look)]
    return lambda llm: Agent(name="scout", instructions="x", model=llm, tools=tools)


def agentscope():
    from agentscope.agent import Agent, InjectionConfig
    from agentscope.permission import PermissionContext, PermissionMode
    from agentscope.state import AgentState
    from agentscope.tool import FunctionTool, Toolkit

    return lambda llm: Agent(
        name="scout",
        system_prompt="You see.",
        model=llm,
        toolkit=Toolkit(tools=[FunctionTool(look), FunctionTool(slow_look)]),
        state=AgentState(permission_context=PermissionContext(mode=PermissionMode.BYPASS)),
        injection_config=InjectionConfig(inject_runtime_state=False),
    )


BUILD = {
    "langchain": ("langchain", langchain),
    "autogen": ("autogen_agentchat", autogen),
    "openai-agents": ("agents", openai_agents),
    "agentscope": ("agentscope", agentscope),
}


def scripted(request):
    """Asks for both tools, then says what they answered."""
    answers = [message.content for message in request.messages if message.role == "tool"]
    if answers:
        return Completion(ChatMessage("assistant", " and ".join(answers)))
    calls = [
        ToolCall(f"call_{i}", name, json.dumps({"query": name}))
        for i, name in enumerate(["look", "slow_look"])
    ]
    return Completion(ChatMessage("assistant", None, tuple(calls)), "tool_calls")


async def record(store, agent):
    started = await store.start_rollout(TASK.input, task_id="t1", metadata=task_metadata(TASK))
    recorder = SpanRecorder(started.rollout_id, started.attempt.attempt_id)
    run = AgentRun(agent.program(), TASK, recorder=recorder, limits=agent.limits, reward=agent.reward)
    while not isinstance(pending := await run.next(), RunEnd):
        for call in pending:
            run.answer(call.call_id, scripted(call.request))
    await store.add_many_spans(recorder.drain())
    await store.update_attempt(
        started.rollout_id, "latest", status="succeeded", metadata=summary_of(run.trajectory)
    )
    return started.rollout_id, run.trajectory


@pytest.mark.parametrize("framework", BUILD)
async def test_tools_answer_from_the_store_and_do_not_run(framework):
    library, make = BUILD[framework]
    pytest.importorskip(library)
    agent = raybolt.wrap(make(), framework=framework, reward=lambda *_: 1.0)
    executions.clear()
    async with LocalStore(None) as store:
        rollout_id, then = await record(store, agent)
        assert sorted(executions) == ["look", "slow_look"]
        assert then.calls[-1].reply.content.count("#") == 2
        async with await replay(agent, store, rollout_id) as at:
            assert at.run.end.error is None
            now = at.run.trajectory
        assert len(executions) == 2
        assert [call.reply for call in now.calls] == [call.reply for call in then.calls]
        assert now.total_reward == then.total_reward == 1.5
        assert {span.name for span in now.tool_spans} == {span.name for span in then.tool_spans}
        async with await replay(agent, store, rollout_id, until=0) as at:
            at.run.answer(at.call.call_id, scripted(at.call.request))
            (call,) = await at.run.next()
            assert len(executions) == 4
            assert next(m.content for m in call.request.messages if m.role == "tool")[-1] in "34"
        with pytest.raises(ReplayDiverged, match=r"'look #[12]'; now tool: 'look #5'"):
            await replay(agent, store, rollout_id, live_tools=["look"])
    assert active_patches() == []

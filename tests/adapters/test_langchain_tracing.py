"""Spans of tools and agents, with the right parents, from code that knows nothing of raybolt's tracing."""

import asyncio
import time
from typing import Annotated, Literal

import pytest
from langchain.agents import create_agent
from langchain_core.messages import ToolMessage
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command

import raybolt


@tool
def look(thing: str) -> str:
    """Looks at a thing."""
    raybolt.emit("noticed", thing=thing)
    time.sleep(0.02)
    return f"{thing} is red"


@tool
async def listen(thing: str) -> str:
    """Listens to a thing."""
    await asyncio.sleep(0.01)
    raybolt.emit("noticed", thing=thing)
    return f"{thing} is loud"


def build(llm):
    return create_agent(llm, [look, listen], name="scout")


async def test_a_tool_span_has_name_arguments_result_call_id_and_duration(agent_run, script):
    ran = await agent_run(build, "go", script.tool_then("done", ("look", {"thing": "sun"})))
    span = ran.span("execute_tool look")
    assert span.status == "ok"
    assert span.attributes["gen_ai.operation.name"] == "execute_tool"
    assert span.attributes["gen_ai.tool.name"] == "look"
    assert span.attributes["gen_ai.tool.call.id"] == "call_0"
    assert span.attributes["gen_ai.tool.call.arguments"] == {"thing": "sun"}
    assert span.attributes["gen_ai.tool.call.result"] == "sun is red"
    assert span.attributes["gen_ai.agent.name"] == "scout"
    assert span.end_time - span.start_time >= 0.02


@pytest.mark.parametrize("tool_name", ["look", "listen"])
async def test_what_parallel_tools_emit_lands_below_the_right_tool(agent_run, script, tool_name):
    things = ("sun", "moon", "star")
    calls = [(tool_name, {"thing": thing}) for thing in things]
    ran = await agent_run(build, "go", script.tool_then("done", *calls))
    spans = {span.span_id: span for span in ran.spans}
    noticed = [span for span in ran.spans if span.name == "noticed"]
    assert {span.attributes["thing"] for span in noticed} == set(things)
    for span in noticed:
        parent = spans[span.parent_id]
        assert parent.attributes["gen_ai.tool.call.arguments"] == {"thing": span.attributes["thing"]}


async def test_calls_and_tools_of_the_wrapped_agent_are_children_of_the_run(agent_run, script):
    ran = await agent_run(build, "go", script.tool_then("done", ("look", {"thing": "sun"})), name="scout")
    assert [(span.name, ran.parent_name(span)) for span in ran.spans] == [
        ("invoke_agent scout", None),
        ("chat scout", "invoke_agent scout"),
        ("execute_tool look", "invoke_agent scout"),
        ("noticed", "execute_tool look"),
        ("chat scout", "invoke_agent scout"),
    ]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_hand_written_nodes_are_spans_around_their_calls(agent_run, script, asynchronous):
    def build_graph(llm):
        async def waiting(state: MessagesState):
            return {"messages": [await llm.ainvoke(state["messages"])]}

        def blocking(state: MessagesState):
            return {"messages": [llm.invoke(state["messages"])]}

        graph = StateGraph(MessagesState)
        for name in ("left", "right"):
            graph.add_node(name, waiting if asynchronous else blocking)
            graph.add_edge(START, name)
        return graph.compile()

    ran = await agent_run(build_graph, "go", lambda request: script.say("x"))
    for role in ("left", "right"):
        assert ran.parent_name(ran.span(f"chat {role}")) == f"node {role}"
        assert ran.parent_name(ran.span(f"node {role}")) == "invoke_agent agent"


async def test_a_tool_that_raises_is_a_failed_span_with_the_exception(agent_run, script):
    @tool
    def break_it(thing: str) -> str:
        """Breaks."""
        raise RuntimeError(f"{thing} broke")

    ran = await agent_run(
        lambda llm: create_agent(llm, [break_it]), "go", script.tool_then("x", ("break_it", {"thing": "cup"}))
    )
    span = ran.span("execute_tool break_it")
    assert (span.status, span.status_message) == ("error", "RuntimeError: cup broke")
    assert span.attributes["raybolt.error.type"] == "RuntimeError"
    assert ran.end.origin == "agent"


async def test_outside_a_run_nothing_is_traced_and_emitters_are_silent():
    assert await look.ainvoke({"thing": "sun"}) == "sun is red"


def hand_offs(ran):
    return [
        (span.attributes["raybolt.handoff.source"], span.attributes["raybolt.handoff.target"])
        for span in ran.spans
        if span.attributes.get("raybolt.kind") == "handoff"
    ]


async def test_a_tools_command_to_another_agent_is_a_hand_off_and_no_error(agent_run, script):
    @tool
    def to_critic(tool_call_id: Annotated[str, InjectedToolCallId]) -> Command:
        """Hand over to the critic."""
        told = ToolMessage("over to you", tool_call_id=tool_call_id)
        return Command(goto="critic", graph=Command.PARENT, update={"messages": [told]})

    def build_team(llm):
        graph = StateGraph(MessagesState)
        graph.add_node("writer", create_agent(llm, [to_critic], name="writer"))
        graph.add_node("critic", create_agent(llm, name="critic"))
        graph.add_edge(START, "writer")
        return graph.compile()

    ran = await agent_run(
        build_team,
        "go",
        lambda request: script.call(("to_critic", {})) if request.tools else script.say("well"),
    )
    assert [request.role for request in ran.requests] == ["writer", "critic"]
    assert hand_offs(ran) == [("writer", "critic")]
    assert ran.parent_name(ran.span("handoff writer -> critic")) == "execute_tool to_critic"
    assert {span.status for span in ran.spans} == {"ok"}


async def test_a_nodes_command_to_another_node_is_a_hand_off(agent_run, script):
    def build_team(llm):
        def writer(state: MessagesState) -> Command[Literal["critic"]]:
            return Command(goto="critic", update={"messages": [llm.invoke(state["messages"])]})

        def critic(state: MessagesState) -> Command[Literal["__end__"]]:
            return Command(goto=END, update={"messages": [llm.invoke(state["messages"])]})

        graph = StateGraph(MessagesState)
        graph.add_node(writer)
        graph.add_node(critic)
        graph.add_edge(START, "writer")
        return graph.compile()

    ran = await agent_run(build_team, "go", lambda request: script.say(request.role))
    assert hand_offs(ran) == [("writer", "critic")]
    assert ran.parent_name(ran.span("handoff writer -> critic")) == "node writer"
    assert ran.parent_name(ran.span("node critic")) == "invoke_agent agent"


async def test_a_command_of_a_tool_node_is_told_once(agent_run, script):
    @tool
    def to_critic(tool_call_id: Annotated[str, InjectedToolCallId]) -> Command:
        """Hand over to the critic."""
        told = ToolMessage("over to you", tool_call_id=tool_call_id)
        return Command(goto="critic", update={"messages": [told]})

    def build_team(llm):
        def writer(state: MessagesState):
            return {"messages": [llm.bind_tools([to_critic]).invoke(state["messages"])]}

        def critic(state: MessagesState):
            return {"messages": [llm.invoke(state["messages"])]}

        graph = StateGraph(MessagesState)
        graph.add_node(writer)
        graph.add_node("desk", ToolNode([to_critic]))
        graph.add_node(critic)
        graph.add_edge(START, "writer")
        graph.add_edge("writer", "desk")
        return graph.compile()

    ran = await agent_run(
        build_team,
        "go",
        lambda request: script.call(("to_critic", {})) if request.tools else script.say("well"),
    )
    assert hand_offs(ran) == [("desk", "critic")]


async def test_an_agent_inside_a_tool_is_handed_over_to(agent_run, script):
    def build_team(llm):
        researcher = create_agent(llm, name="researcher")

        @tool
        async def research(topic: str) -> str:
            """Asks the researcher."""
            reply = await researcher.ainvoke({"messages": [("user", topic)]})
            return reply["messages"][-1].text

        return create_agent(llm, [research], name="boss")

    def policy(request):
        asked = script.tool_then("done", ("research", {"topic": "rain"}))
        return script.say("wet") if request.role == "researcher" else asked(request)

    ran = await agent_run(build_team, "go", policy)
    assert hand_offs(ran) == [("boss", "researcher")]
    assert ran.parent_name(ran.span("handoff boss -> researcher")) == "execute_tool research"

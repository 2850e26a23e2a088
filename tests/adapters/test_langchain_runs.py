"""Agents of LangChain and LangGraph, as people write them, stepped by a scripted policy."""

import asyncio
import json
import threading
from typing import TypedDict

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import ToolException, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from pydantic import BaseModel

import raybolt
from raybolt.env.chat import ChatMessage, Completion
from raybolt.env.limits import RunLimits


@tool
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@tool
async def slow_add(a: int, b: int) -> int:
    """Adds two numbers in a while."""
    await asyncio.sleep(0.01)
    return a + b


@tool
def fail(a: int) -> int:
    """Fails."""
    raise ValueError(f"no {a}")


class Answer(BaseModel):
    """The answer."""

    number: int


def adder(llm: BaseChatModel):
    return create_agent(llm, [add, slow_add, fail], system_prompt="Add.")


def contents(result):
    return [message.content for message in result["messages"]]


async def test_a_create_agent_factory_runs_tools_and_hands_back_its_state(agent_run, script):
    ran = await agent_run(adder, "1 + 2?", script.tool_then("three", ("add", {"a": 1, "b": 2})))
    assert contents(ran.result) == ["1 + 2?", "", "3", "three"]
    first, second = ran.requests
    assert first.messages == (ChatMessage("system", "Add."), ChatMessage("user", "1 + 2?"))
    assert [spec.name for spec in first.tools] == ["add", "slow_add", "fail"]
    assert [message.role for message in second.messages] == ["system", "user", "assistant", "tool"]


@pytest.mark.parametrize(
    "calls", [[("add", 1)], [("slow_add", 1)], [("add", 1), ("slow_add", 2), ("add", 3)]]
)
async def test_sync_async_and_parallel_tools_all_answer(agent_run, script, calls):
    asked = [(name, {"a": a, "b": 10}) for name, a in calls]
    ran = await agent_run(adder, "go", script.tool_then("done", *asked))
    results = [message.content for message in ran.result["messages"] if message.type == "tool"]
    assert results == [str(a + 10) for _, a in calls]


async def test_an_error_that_leaves_a_tool_fails_the_run_as_the_agents(agent_run, script):
    ran = await agent_run(adder, "go", script.tool_then("done", ("fail", {"a": 7})))
    assert (ran.end.error, ran.end.origin) == ("ValueError: no 7", "agent")
    assert ran.span("execute_tool fail").status == "error"


async def test_an_error_that_a_tool_handles_is_shown_to_the_policy(agent_run, script):
    @tool
    def query(sql: str) -> str:
        """Runs SQL."""
        raise ToolException(f"bad SQL: {sql}")

    query.handle_tool_error = True
    ran = await agent_run(
        lambda llm: create_agent(llm, [query]),
        "go",
        script.tool_then("sorry", ("query", {"sql": "SELEC"})),
        framework="langchain",
    )
    assert ran.requests[1].messages[-1].content == "bad SQL: SELEC"
    assert ran.span("execute_tool query").status == "error"


async def test_arguments_that_do_not_fit_a_tool_are_answered_by_the_framework(agent_run, script):
    ran = await agent_run(adder, "go", script.tool_then("oh", ("add", {"a": "x"})))
    assert "b: Field required" in ran.requests[1].messages[-1].content


async def test_a_malformed_tool_call_ends_the_agent_by_its_own_rules(agent_run):
    def policy(request):
        return Completion(ChatMessage("assistant", "<tool_call>{oops"), parse_error="no JSON object")

    ran = await agent_run(adder, "go", policy)
    last = ran.result["messages"][-1]
    assert last.content == "<tool_call>{oops"
    assert last.invalid_tool_calls[0]["error"] == "no JSON object"


async def test_a_chain_gets_the_tasks_input_and_returns_what_its_parser_makes(agent_run, script):
    def build(llm):
        return ChatPromptTemplate.from_messages([("user", "{a} or {b}?")]) | llm | StrOutputParser()

    ran = await agent_run(build, {"a": "tea", "b": "coffee"}, lambda request: script.say("tea"))
    assert ran.result == "tea"
    assert ran.requests[0].messages == (ChatMessage("user", "tea or coffee?"),)


class Story(TypedDict):
    topic: str
    draft: str
    verdict: str


def two_roles(llm: BaseChatModel):
    async def writer(state: Story):
        return {"draft": (await llm.ainvoke(f"write about {state['topic']}")).text}

    def critic(state: Story):  # a blocking node
        return {"verdict": llm.invoke(f"judge {state['draft']}").text}

    graph = StateGraph(Story)
    graph.add_node(writer)
    graph.add_node(critic)
    graph.add_edge(START, "writer")
    graph.add_edge("writer", "critic")
    graph.add_edge("critic", END)
    return graph.compile()


async def test_hand_written_nodes_give_their_names_as_roles(agent_run, script):
    ran = await agent_run(two_roles, {"topic": "rain"}, lambda request: script.say(request.role.upper()))
    assert ran.result == {"topic": "rain", "draft": "WRITER", "verdict": "CRITIC"}
    assert [request.role for request in ran.requests] == ["writer", "critic"]


async def test_a_sub_agent_inside_a_tool_has_its_own_role(agent_run, script):
    def build(llm):
        researcher = create_agent(llm, name="researcher")

        @tool
        def research(topic: str) -> str:
            """Asks the researcher."""
            return researcher.invoke({"messages": [("user", topic)]})["messages"][-1].text

        return create_agent(llm, [research], name="boss")

    def policy(request):
        if request.role == "researcher":
            return script.say("rain is wet")
        return script.tool_then("done", ("research", {"topic": "rain"}))(request)

    ran = await agent_run(build, "go", policy, name="boss")
    assert [request.role for request in ran.requests] == ["boss", "researcher", "boss"]
    asked = [span for span in ran.spans if span.name == "chat researcher"]
    assert ran.parent_name(asked[0]) == "agent researcher"
    assert ran.parent_name(ran.span("agent researcher")) == "execute_tool research"


async def test_structured_output_is_parsed_from_a_tool_call(agent_run, script):
    ran = await agent_run(
        lambda llm: llm.with_structured_output(Answer),
        "2 + 2?",
        lambda request: script.call(("Answer", {"number": 4})),
        framework="langchain",
    )
    assert ran.result == Answer(number=4)
    assert ran.requests[0].tool_choice == "required"


async def test_create_agents_response_format_works(agent_run, script):
    ran = await agent_run(
        lambda llm: create_agent(llm, response_format=Answer),
        "2 + 2?",
        lambda request: script.call(("Answer", {"number": 4})),
        framework="langchain",
    )
    assert ran.result["structured_response"] == Answer(number=4)


async def test_consumers_of_streams_get_the_reply_in_one_piece(agent_run, script):
    def build(llm):
        async def ask(question: str) -> list[str]:
            return [chunk.text async for chunk in llm.astream(question)]

        return ask

    ran = await agent_run(build, "hi", lambda request: script.say("hello there"))
    assert "".join(ran.result) == "hello there"


async def test_events_of_version_3_reach_the_policy(agent_run, script):
    def build(llm):
        def ask(question: str) -> str:
            return llm.stream_events(question, version="v3").output.text

        return ask

    ran = await agent_run(build, "hi", lambda request: script.say("hello"))
    assert ran.result == "hello"


async def test_a_batch_asks_all_its_questions_at_once(agent_run, script):
    def build(llm):
        def ask(question: str) -> list[str]:
            return [reply.text for reply in llm.batch([question] * 3)]

        return ask

    ran = await agent_run(build, "hi", lambda request: script.say("x"), delay_s=0.05)
    assert ran.result == ["x", "x", "x"]


async def test_a_graph_with_memory_remembers_nothing_of_other_runs(agent_run, script):
    graph_memory = InMemorySaver()

    def build(llm):
        return create_agent(llm, checkpointer=graph_memory)

    for question in ("first", "second"):
        ran = await agent_run(build, question, lambda request: script.say("ok"))
        assert [message.content for message in ran.requests[0].messages] == [question]


async def test_the_policys_abort_passes_fallbacks_and_parallel_nodes(agent_run, script):
    def build(llm):
        stubborn = llm.with_fallbacks([llm]).with_retry(stop_after_attempt=3)

        def node(state: MessagesState):
            return {"messages": [stubborn.invoke("again"), stubborn.invoke("again")]}

        graph = StateGraph(MessagesState)
        graph.add_node("left", node)
        graph.add_node("right", node)
        graph.add_edge(START, "left")
        graph.add_edge(START, "right")
        return graph.compile()

    limits = RunLimits(max_calls=3, max_seconds=10)
    ran = await agent_run(build, "go", lambda request: script.say("no"), limits=limits)
    assert ran.end.origin == "limit"
    assert len(ran.requests) <= 3


async def test_thirty_two_runs_at_once_never_see_one_another(agent_run, script):
    def policy(request):
        question = next(message.content for message in request.messages if message.role == "user")
        return script.tool_then(f"answer {question}", ("add", {"a": int(question), "b": 0}))(request)

    agent = raybolt.wrap(adder)
    runs = await asyncio.gather(*(agent_run(agent, str(k), policy, delay_s=0.005) for k in range(32)))
    for k, ran in enumerate(runs):
        assert contents(ran.result) == [str(k), "", str(k), f"answer {k}"]
        assert json.loads(str(ran.span("execute_tool add").attributes["gen_ai.tool.call.result"])) == k
        assert len(ran.spans) == 4


async def test_blocking_tools_that_call_sub_agents_in_many_runs_do_not_starve_one_another(agent_run, script):
    num_runs = 24
    arrived = threading.Barrier(num_runs, timeout=20)

    def build(llm):
        @tool
        def ask(question: str) -> str:
            """Asks again, when every run has got here."""
            arrived.wait()
            return llm.invoke(question).text

        return create_agent(llm, [ask])

    agent = raybolt.wrap(build)
    policy = script.tool_then("done", ("ask", {"question": "why?"}))

    def answer(request):
        return script.say("because") if not request.tools else policy(request)

    runs = await asyncio.gather(*(agent_run(agent, "go", answer) for _ in range(num_runs)))
    assert {ran.result["messages"][-1].content for ran in runs} == {"done"}


async def test_a_graph_whose_state_lacks_the_tasks_fields_says_so(agent_run, script):
    ran = await agent_run(adder, {"question": "1 + 2?"}, lambda request: script.say("3"))
    assert ran.end.error == (
        "InvalidValue: task 'task': the graph takes messages, but the task's input is ['question']; pass "
        "wrap(…, inputs=function_of_the_task) to make one from the other"
    )


async def test_inputs_makes_the_graphs_state_from_the_task(agent_run, script):
    ran = await agent_run(
        adder,
        {"question": "1 + 2?"},
        lambda request: script.say("3"),
        inputs=lambda task: {"messages": [("user", task.input["question"])]},
    )
    assert contents(ran.result) == ["1 + 2?", "3"]


async def test_the_users_own_llm_beside_the_factorys_stays_his(agent_run, script):
    from langchain_core.language_models import FakeListChatModel

    judge = FakeListChatModel(responses=["good"])

    def build(llm):
        async def answer(question: str) -> str:
            return (await llm.ainvoke(question)).text + " " + (await judge.ainvoke("?")).text

        return answer

    ran = await agent_run(build, "hi", lambda request: script.say("hello"))
    assert ran.result == "hello good"
    assert len(ran.requests) == 1


async def test_without_training_the_agent_runs_on_the_users_llm():
    from langchain_core.language_models import FakeListChatModel

    def build(llm):
        return ChatPromptTemplate.from_messages([("user", "{q}")]) | llm | StrOutputParser()

    agent = raybolt.wrap(build)
    task = raybolt.Task("t", {"q": "hi"})
    assert await agent.arun(task, FakeListChatModel(responses=["hello"])) == "hello"


@pytest.mark.parametrize("built", [False, True])
async def test_no_except_exception_of_async_code_sees_the_policys_abort(agent_run, script, built):
    """LangChain's `agenerate` would make an AttributeError of it."""
    seen: list[str] = []

    def build(llm):
        async def ask(question: str) -> str:
            try:
                await llm.ainvoke(question)
                await llm.with_fallbacks([llm]).ainvoke("again")
            except Exception as error:
                seen.append(repr(error))
            return "went on"

        return ask

    from langchain_core.language_models import FakeListChatModel

    agent = build(FakeListChatModel(responses=["own"])) if built else build
    ran = await agent_run(agent, "go", lambda request: script.say("x"), limits=RunLimits(max_calls=1))
    assert ran.end.origin == "limit"
    assert seen == []

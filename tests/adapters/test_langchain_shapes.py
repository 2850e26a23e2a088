"""The shapes in which people write LangChain and LangGraph code, each built on a model of its own."""

import operator
import threading
from contextvars import copy_context
from typing import Annotated, TypedDict

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessageChunk
from langchain_core.output_parsers import JsonOutputParser, StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Send

pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")

PROMPT = ChatPromptTemplate.from_messages([("user", "{q}")])


def own_model(**options) -> ChatOpenAI:
    """A model that nobody answers."""
    return ChatOpenAI(
        model="gpt-5-mini", api_key="unused", base_url="http://127.0.0.1:9/v1", max_retries=0, **options
    )


def echo(script):
    return lambda request: script.say(f"re: {request.messages[-1].content}")


def graph_of(state, *nodes, edges=()):
    graph = StateGraph(state)
    for node in nodes:
        graph.add_node(node)
    for start, end in edges:
        graph.add_edge(start, end)
    return graph


async def test_branches_of_a_parallel_chain_ask_at_the_same_time(agent_run, script):
    llm = own_model()
    chain = RunnableParallel(
        short=ChatPromptTemplate.from_template("short {q}") | llm | StrOutputParser(),
        long=ChatPromptTemplate.from_template("long {q}") | llm | StrOutputParser(),
    )
    ran = await agent_run(chain, {"q": "rain"}, echo(script), delay_s=0.05)
    assert ran.result == {"short": "re: short rain", "long": "re: long rain"}


async def test_a_parser_that_fails_falls_back_to_the_other_model(agent_run, script):
    chain = (PROMPT | own_model() | JsonOutputParser()).with_fallbacks([PROMPT | own_model()])
    ran = await agent_run(chain, {"q": "hi"}, echo(script))
    assert ran.result.text == "re: hi"
    assert len(ran.requests) == 2


async def test_a_parser_that_fails_is_tried_again(agent_run, script):
    answers = iter(["no json", "still none", '{"a": 1}'])
    chain = (PROMPT | own_model() | JsonOutputParser()).with_retry(
        stop_after_attempt=3, wait_exponential_jitter=False
    )
    ran = await agent_run(chain, {"q": "hi"}, lambda request: script.say(next(answers)))
    assert ran.result == {"a": 1}


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_batch_of_a_chain_is_answered_in_order(agent_run, script, asynchronous):
    chain = PROMPT | own_model() | StrOutputParser()
    questions = [{"q": str(number)} for number in range(5)]

    async def ask_async(_: str) -> list[str]:
        return await chain.abatch(questions)

    def ask(_: str) -> list[str]:
        return chain.batch(questions)

    ran = await agent_run(ask_async if asynchronous else ask, "go", echo(script))
    assert ran.result == [f"re: {number}" for number in range(5)]


class Plan(TypedDict):
    topics: list[str]
    texts: Annotated[list[str], operator.add]


async def test_nodes_sent_to_in_parallel_have_one_role_and_their_own_input(agent_run, script):
    llm = own_model()

    async def writer(state: dict) -> dict:
        return {"texts": [(await llm.ainvoke(state["topic"])).text]}

    graph = graph_of(Plan, writer)
    graph.add_conditional_edges(
        START, lambda state: [Send("writer", {"topic": topic}) for topic in state["topics"]]
    )
    ran = await agent_run(graph.compile(), {"topics": ["rain", "sun", "snow"]}, echo(script), delay_s=0.02)
    assert ran.result["texts"] == ["re: rain", "re: sun", "re: snow"]
    assert [request.role for request in ran.requests[:3]] == ["writer"] * 3
    parents = {ran.parent_name(span) for span in ran.spans if span.name == "chat writer"}
    assert parents == {"node writer"}


async def test_a_sub_graphs_nodes_keep_their_own_roles(agent_run, script):
    llm = own_model()

    def drafter(state: MessagesState):
        return {"messages": [llm.invoke(state["messages"])]}

    def critic(state: MessagesState):
        return {"messages": [llm.invoke(state["messages"])]}

    inner = graph_of(MessagesState, drafter, edges=[(START, "drafter")]).compile()
    outer = graph_of(MessagesState, critic)
    outer.add_node("studio", inner)
    outer.add_edge(START, "studio")
    outer.add_edge("studio", "critic")
    ran = await agent_run(outer.compile(), "hi", lambda request: script.say(request.role))
    assert [message.text for message in ran.result["messages"]] == ["hi", "drafter", "critic"]
    assert ran.parent_name(ran.span("chat drafter")) == "node drafter"
    assert ran.parent_name(ran.span("node drafter")) == "node studio"
    assert ran.parent_name(ran.span("node critic")) == "invoke_agent agent"


@pytest.mark.parametrize("way", ["stream", "astream", "messages", "events", "events_v3"])
async def test_agent_code_may_stream_the_agent_it_runs(agent_run, script, way):
    agent = create_agent(own_model(), name="writer")

    def stream(question: str) -> str:
        updates = agent.stream({"messages": [("user", question)]}, stream_mode="updates")
        return "".join(update["model"]["messages"][0].text for update in updates)

    async def astream(question: str) -> str:
        states = [s async for s in agent.astream({"messages": [("user", question)]}, stream_mode="values")]
        return states[-1]["messages"][-1].text

    async def messages(question: str) -> str:
        tokens = agent.astream({"messages": [("user", question)]}, stream_mode="messages")
        return "".join([token.text async for token, _ in tokens if isinstance(token, AIMessageChunk)])

    async def events(question: str) -> str:
        stream = agent.astream_events({"messages": [("user", question)]}, version="v2")
        chunks = [event async for event in stream if event["event"] == "on_chat_model_stream"]
        return "".join(chunk["data"]["chunk"].text for chunk in chunks)

    async def events_v3(question: str) -> str:
        run = await agent.astream_events({"messages": [("user", question)]}, version="v3")
        return "".join([str(text) async for message in run.messages async for text in message.text])

    function = {f.__name__: f for f in (stream, astream, messages, events, events_v3)}[way]
    ran = await agent_run(function, "hi", lambda request: script.say("hello there"))
    assert ran.result == "hello there"
    assert [request.role for request in ran.requests] == ["writer"]


async def test_messages_as_content_blocks_stay_content_blocks(agent_run, script):
    agent = create_agent(own_model(output_version="v1"), [look], name="writer")
    ran = await agent_run(agent, "hi", script.tool_then("done", ("look", {"thing": "sun"})))
    asked, answered = ran.result["messages"][1], ran.result["messages"][-1]
    assert [block["type"] for block in asked.content] == ["tool_call"]
    assert answered.content == [{"type": "text", "text": "done"}]
    assert ran.requests[1].messages[1].tool_calls[0].name == "look"


@tool
def look(thing: str) -> str:
    """Looks at a thing."""
    return f"{thing} is red"


async def test_a_call_after_an_agents_run_is_no_longer_that_agents(agent_run, script):
    agent, llm = create_agent(own_model(), [look], name="writer"), own_model()

    async def both(question: str) -> str:
        await agent.ainvoke({"messages": [("user", question)]})
        await look.ainvoke({"thing": "moon"})
        return (await llm.ainvoke("and now?")).text

    ran = await agent_run(both, "hi", script.tool_then("done", ("look", {"thing": "sun"})))
    assert [request.role for request in ran.requests] == ["writer", "writer", "both"]
    last = [span for span in ran.spans if span.name == "chat both"]
    assert ran.parent_name(last[0]) == "invoke_agent both"


async def test_a_thread_with_a_copied_context_belongs_to_the_run(agent_run, script):
    llm = own_model()

    def ask(question: str) -> str:
        said: list[str] = []
        context = copy_context()
        thread = threading.Thread(target=lambda: said.append(context.run(llm.invoke, question).text))
        thread.start()
        thread.join()
        return said[0]

    ran = await agent_run(ask, "hi", echo(script))
    assert ran.result == "re: hi"


def in_a_bare_thread(llm):
    def ask(question: str) -> str:
        said: list[str] = []
        thread = threading.Thread(target=lambda: said.append(llm.invoke(question).text))
        thread.start()
        thread.join()
        return said[0]

    return ask


async def test_a_bare_thread_reaches_the_policy_through_a_factorys_model(agent_run, script):
    ran = await agent_run(in_a_bare_thread, "hi", echo(script), framework="langchain")
    assert ran.result == "re: hi"


async def test_a_bare_thread_is_nobodys_so_a_built_model_answers_it_itself(agent_run, script):
    """Which of the runs going on had started the thread cannot be told, and it is not guessed."""
    own = FakeListChatModel(responses=["its own answer"])
    ask = in_a_bare_thread(own)

    async def agent(question: str) -> str:
        (inside,) = await RunnableLambda(own.invoke).abatch(["inside"])
        return f"{inside.text}, {ask(question)}"

    ran = await agent_run(agent, "hi", echo(script))
    assert ran.result == "re: inside, its own answer"
    assert len(ran.requests) == 1

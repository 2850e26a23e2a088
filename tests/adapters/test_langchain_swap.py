"""Built agents: the models they hold answer by the policy, during their runs and only there."""

import asyncio
import threading

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel, FakeListChatModel
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import BaseModel

import raybolt
from raybolt.adapters.langchain.model import PolicyChatModel
from raybolt.adapters.langchain.walk import held_models

GLOBAL_MODEL = FakeListChatModel(responses=["global"])


class Answer(BaseModel):
    """The answer."""

    number: int


@tool
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


def openai_model() -> ChatOpenAI:
    return ChatOpenAI(model="gpt-5-mini", api_key="unused", base_url="http://127.0.0.1:9/v1", max_retries=0)


def graph_of(*nodes):
    graph = StateGraph(MessagesState)
    for index, node in enumerate(nodes):
        graph.add_node(f"node_{index}", node)
        graph.add_edge(START, f"node_{index}")
    return graph.compile()


def uses_global(state: MessagesState):
    return {"messages": [GLOBAL_MODEL.invoke(state["messages"])]}


class Holder:
    def __init__(self) -> None:
        self.llm = FakeListChatModel(responses=["held"])

    def node(self, state: MessagesState):
        return {"messages": [self.llm.invoke(state["messages"])]}


async def test_a_built_agent_answers_by_the_policy(agent_run, script):
    agent = create_agent(openai_model(), [add], name="adder")
    ran = await agent_run(agent, "1 + 2?", script.tool_then("three", ("add", {"a": 1, "b": 2})))
    assert [message.content for message in ran.result["messages"]] == ["1 + 2?", "", "3", "three"]
    assert {request.role for request in ran.requests} == {"adder"}
    assert [spec.name for spec in ran.requests[0].tools] == ["add"]


async def test_a_model_whose_class_cannot_bind_tools_can_be_swapped(agent_run, script):
    agent = create_agent(FakeListChatModel(responses=["fake"]), [add])
    ran = await agent_run(agent, "go", script.tool_then("done", ("add", {"a": 1, "b": 2})))
    assert ran.result["messages"][-1].content == "done"


async def test_after_the_run_nothing_of_it_is_left(agent_run, script):
    model = openai_model()
    agent = create_agent(model)
    before = {name: BaseChatModel.__dict__[name] for name in ("_generate_with_cache", "_should_stream")}
    await agent_run(agent, "go", lambda request: script.say("ok"))
    assert not [name for name in vars(model) if callable(vars(model)[name]) and "generate" in name]
    assert {name: BaseChatModel.__dict__[name] for name in before} == before


async def test_other_threads_and_tasks_go_on_calling_the_original(agent_run):
    model = FakeListChatModel(responses=["original"])
    chain = ChatPromptTemplate.from_messages([("user", "{q}")]) | model | StrOutputParser()
    outside: dict[str, str] = {}

    def policy(request):
        thread = threading.Thread(target=lambda: outside.update(thread=chain.invoke({"q": "?"})))
        thread.start()
        thread.join()
        outside["driver"] = chain.invoke({"q": "?"})
        outside["late"] = FakeListChatModel(responses=["late original"]).invoke("?").text
        from raybolt.env.chat import ChatMessage, Completion

        return Completion(ChatMessage("assistant", "policy"))

    ran = await agent_run(chain, {"q": "hi"}, policy)
    assert ran.result == "policy"
    assert outside == {"thread": "original", "driver": "original", "late": "late original"}


async def test_many_runs_share_one_built_agent_without_mixing(agent_run, script):
    agent = raybolt.wrap(create_agent(openai_model(), [add]))

    def policy(request):
        question = next(message.content for message in request.messages if message.role == "user")
        return script.tool_then(f"answer {question}", ("add", {"a": int(question), "b": 0}))(request)

    runs = await asyncio.gather(*(agent_run(agent, str(k), policy, delay_s=0.005) for k in range(32)))
    assert [ran.result["messages"][-1].content for ran in runs] == [f"answer {k}" for k in range(32)]


async def test_a_model_that_a_node_makes_itself_answers_by_the_policy(agent_run, script):
    async def node(state: MessagesState):
        late = FakeListChatModel(responses=["late original"])
        return {"messages": [await late.ainvoke(state["messages"])]}

    ran = await agent_run(graph_of(node), "hi", lambda request: script.say("policy"))
    assert ran.result["messages"][-1].content == "policy"
    assert ran.requests[0].role == "node_0"


async def test_structured_output_of_chat_openai_is_parsed_from_json(agent_run, script):
    chain = openai_model().with_structured_output(Answer)
    ran = await agent_run(chain, "2 + 2?", lambda request: script.say('{"number": 4}'))
    assert ran.result == Answer(number=4)
    assert ran.requests[0].response_format["json_schema"]["name"] == "Answer"


async def test_structured_output_that_does_not_fit_is_the_agents_error(agent_run, script):
    chain = openai_model().with_structured_output(Answer)
    ran = await agent_run(chain, "2 + 2?", lambda request: script.say("four"))
    assert ran.end.origin == "agent"
    assert "does not have a 'parsed' field" in ran.end.error


async def test_streaming_a_swapped_model_streams_the_policys_reply(agent_run, script):
    model = FakeListChatModel(responses=["original"])

    def answer(question: str) -> str:
        return "".join(chunk.text for chunk in model.stream(question))

    ran = await agent_run(answer, "hi", lambda request: script.say("policy"))
    assert ran.result == "policy"


def test_models_are_found_wherever_an_agent_holds_them():
    model = FakeListChatModel(responses=["x"])
    prompt = ChatPromptTemplate.from_messages([("user", "{q}")])

    @tool
    def ask(question: str) -> str:
        """Asks."""
        return model.invoke(question).text

    outer = PolicyChatModel()
    assert held_models(create_agent(model)) == [model]
    assert held_models(prompt | model | StrOutputParser()) == [model]
    assert held_models({"a": [model.bind(stop=["x"])]}) == [model]
    assert held_models(graph_of(create_agent(model))) == [model]
    assert held_models(create_agent(outer, [ask])) == [outer, model]
    holder = Holder()
    assert held_models(graph_of(holder.node)) == [holder.llm]
    assert held_models(graph_of(uses_global)) == [GLOBAL_MODEL]


def test_a_model_that_is_made_while_running_is_not_found():
    def node(state: MessagesState):
        return {"messages": [FakeListChatModel(responses=["x"]).invoke("?")]}

    assert held_models(graph_of(node)) == []


def test_outside_a_run_the_policy_model_says_what_to_do():
    import pytest

    with pytest.raises(raybolt.RayboltError, match=r"outside an agent run; start one with agent\.env"):
        PolicyChatModel().invoke([AIMessage("hi")])

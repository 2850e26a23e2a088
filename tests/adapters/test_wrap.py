"""What `wrap` takes, what it refuses, and what it returns."""

import pickle

import cloudpickle
import pytest
from langchain.agents import create_agent
from langchain_core.language_models import FakeListChatModel
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph

import raybolt
from raybolt.adapters.evidence import library_roots
from raybolt.adapters.langchain.adapter import LangChainAdapter
from raybolt.adapters.openai_python.adapter import PythonAdapter


def build_agent(llm):
    return create_agent(llm, name="adder")


def build_lazily(llm):
    from langchain.agents import create_agent as create

    return create(llm)


def build_from_annotation(brain: "BaseChatModel"):  # noqa: F821  # imported only for type checkers
    return brain


def made_inside():
    from langchain.agents import create_agent as create

    def build_from_closure(llm):
        return create(llm)

    return build_from_closure


def build_without_llm():
    return create_agent(FakeListChatModel(responses=["x"]))


class Agency:
    def __init__(self, llm):
        self.graph = create_agent(llm)

    def __call__(self, question):
        return self.graph.invoke({"messages": [("user", question)]})["messages"][-1].text


def answer(question):
    from openai import OpenAI

    return OpenAI().chat.completions.create(model="m", messages=[{"role": "user", "content": question}])


async def answer_async(task):
    return answer(task.input)


class Answerer:
    def __call__(self, question):
        return answer(question)


@pytest.mark.parametrize(
    "agent", [build_agent, build_lazily, build_from_annotation, build_without_llm, Agency]
)
def test_factories_of_langchain_are_recognised(agent):
    assert isinstance(raybolt.wrap(agent).adapter, LangChainAdapter)


def test_a_factory_made_inside_a_function_names_the_libraries_it_has_from_there():
    assert "langchain" in library_roots(made_inside())


def test_built_agents_of_langchain_are_recognised_and_named():
    model = FakeListChatModel(responses=["x"])
    assert raybolt.wrap(build_agent(model)).name == "adder"
    assert raybolt.wrap(create_agent(model)).name == "agent"
    assert isinstance(raybolt.wrap(model | str).adapter, LangChainAdapter)


@pytest.mark.parametrize("agent", [answer, answer_async, Answerer(), lambda question: question])
def test_functions_of_an_input_are_plain_python(agent):
    assert isinstance(raybolt.wrap(agent).adapter, PythonAdapter)


def test_a_plain_function_gives_its_name_and_wrap_may_give_another():
    assert raybolt.wrap(answer).name == "answer"
    assert raybolt.wrap(answer, name="clerk").name == "clerk"


async def test_a_class_that_takes_the_llm_is_built_anew_for_every_run(agent_run, script):
    ran = await agent_run(Agency, "hi", lambda request: script.say("hello"))
    assert ran.result == "hello"


async def test_a_factory_without_parameters_is_built_and_its_models_are_swapped(agent_run, script):
    ran = await agent_run(build_without_llm, "hi", lambda request: script.say("policy"))
    assert ran.result["messages"][-1].content == "policy"


async def test_a_factory_may_be_async(agent_run, script):
    async def build(llm):
        return create_agent(llm)

    ran = await agent_run(build, "hi", lambda request: script.say("hello"))
    assert ran.result["messages"][-1].content == "hello"


@pytest.mark.parametrize("agent", [None, 3, "pkg:agent", object(), {"llm": 1}, int])
def test_what_is_no_agent_is_refused_with_the_list_of_what_is(agent):
    with pytest.raises(raybolt.UnsupportedAgent) as refused:
        raybolt.wrap(agent)
    text = str(refused.value)
    assert text.startswith("cannot wrap ")
    assert type(agent).__name__ in text
    assert "langchain: a function build(llm)" in text
    assert "python: a function agent(input)" in text
    assert isinstance(refused.value, TypeError)


def test_a_factory_of_no_known_framework_must_be_told_its_framework():
    namespace: dict = {}
    exec("def build(llm):\n    return lambda question: llm.invoke(question)", namespace)
    with pytest.raises(raybolt.UnsupportedAgent, match=r"looks like a factory.*framework='langchain'"):
        raybolt.wrap(namespace["build"])
    assert isinstance(raybolt.wrap(namespace["build"], framework="langchain").adapter, LangChainAdapter)


def test_an_unknown_framework_is_refused_with_the_known_ones():
    known = "'langchain', 'autogen', 'crewai'"
    with pytest.raises(raybolt.UnsupportedAgent, match=f"'haystack' is not supported.*{known}"):
        raybolt.wrap(answer, framework="haystack")


def test_a_graph_that_was_not_compiled_is_refused_with_the_remedy():
    graph = StateGraph(MessagesState)
    graph.add_edge(START, "x")
    with pytest.raises(raybolt.UnsupportedAgent, match=r"call \.compile\(\) on it first"):
        raybolt.wrap(graph)


def test_functions_that_cannot_be_run_on_a_task_are_refused():
    def nothing():
        return 1

    def generator(question):
        yield question

    with pytest.raises(raybolt.UnsupportedAgent, match="takes no argument"):
        raybolt.wrap(nothing, framework="python")
    with pytest.raises(raybolt.UnsupportedAgent, match="is a generator"):
        raybolt.wrap(generator)


def test_a_reward_that_is_no_function_is_refused():
    with pytest.raises(raybolt.InvalidValue, match=r"wrap\(reward=…\) is float \(1\.0\); expected"):
        raybolt.wrap(answer, reward=1.0)


async def test_a_factory_that_returns_something_else_fails_the_run_as_the_agents(agent_run, script):
    ran = await agent_run(lambda llm: 7, "hi", lambda request: script.say("x"), framework="langchain")
    assert ran.end.origin == "agent"
    assert "the factory returned int (7)" in ran.end.error


async def test_an_agent_that_calls_no_llm_fails_with_that_message(agent_run, script):
    ran = await agent_run(lambda question: question, "hi", lambda request: script.say("x"))
    assert "made no LLM call" in ran.end.error


async def test_a_function_of_several_inputs_gets_the_tasks_fields(agent_run, script):
    def agent(question, city):
        return f"{question} in {city}"

    ran = await agent_run(agent, {"question": "rain", "town": "Bonn"}, lambda request: script.say("x"))
    assert "the agent takes question, city, but the task's input is ['question', 'town']" in ran.end.error


async def test_without_training_a_function_runs_on_its_own():
    agent = raybolt.wrap(lambda question, city: f"{question} in {city}")
    assert await agent.arun(raybolt.Task("t", {"question": "rain", "city": "Bonn"})) == "rain in Bonn"


def test_a_factory_goes_to_another_process_with_its_reward_and_limits():
    agent = raybolt.wrap(
        lambda llm: create_agent(llm, name="x"),
        reward=lambda task, result, trajectory: 1.0,
        limits=raybolt.RunLimits(max_calls=3),
    )
    copy = pickle.loads(cloudpickle.dumps(agent))
    assert copy.limits.max_calls == 3
    assert copy.reward(None, None, None) == 1.0
    assert isinstance(copy.adapter, LangChainAdapter)


def test_a_built_agent_that_cannot_travel_says_to_pass_a_factory():
    agent = raybolt.wrap(create_agent(ChatOpenAI(api_key="unused")))
    with pytest.raises(raybolt.UnsupportedAgent, match=r"cannot be sent to another process.*pass a factory"):
        cloudpickle.dumps(agent)

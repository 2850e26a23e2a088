"""Calls that the policy does not take: the agent's own LangChain models answer them, and are recorded."""

import asyncio

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph

import raybolt
from raybolt.env.policy import RunEnd
from raybolt.env.recorder import SpanRecorder
from raybolt.env.run import AgentRun

# LangChain says that version 3 of its events may still change.
pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")

PICTURE = [{"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}]


def own(text: str) -> GenericFakeChatModel:
    """A model that streams word by word."""
    return GenericFakeChatModel(messages=iter(lambda: AIMessage(text), None))


def two_nodes(llm, *, asynchronous=True):
    async def waiting(state: MessagesState):
        return {"messages": [await llm.ainvoke(state["messages"])]}

    def blocking(state: MessagesState):
        return {"messages": [llm.invoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    for role in ("writer", "critic"):
        graph.add_node(role, waiting if asynchronous else blocking)
    graph.add_edge(START, "writer")
    graph.add_edge("writer", "critic")
    return graph.compile()


async def run(agent, policy, **options):
    """Runs with the options of `wrap`, trainable included; returns the end, the requests and the spans."""
    wrapped = raybolt.wrap(agent, **options)
    recorder = SpanRecorder("rollout", "attempt")
    stepped = AgentRun(
        wrapped.program(),
        raybolt.Task("task", "hi"),
        recorder=recorder,
        limits=wrapped.limits,
        require_reward=False,
        trainable=wrapped.trainable,
    )
    requests = []
    while not isinstance(pending := await stepped.next(), RunEnd):
        for each in pending:
            requests.append(each.request)
            stepped.answer(each.call_id, policy(each.request))
    return pending, requests, {span.name: span for span in recorder.spans}


def texts(end):
    assert not end.failed, end
    return [message.text for message in end.result["messages"]]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_built_graphs_model_answers_the_roles_that_are_not_trainable(script, asynchronous):
    agent = two_nodes(own("mine, my own"), asynchronous=asynchronous)
    end, requests, spans = await run(agent, lambda request: script.say("policy"), trainable=["writer"])
    assert texts(end) == ["hi", "policy", "mine, my own"]
    assert [request.role for request in requests] == ["writer"]
    chat = spans["chat critic"]
    assert chat.attributes["raybolt.trainable"] is False
    assert chat.attributes["gen_ai.output.messages"] == [{"role": "assistant", "content": "mine, my own"}]
    assert chat.status == "ok"


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_the_frozen_model_answers_what_a_factorys_policy_does_not_take(script, asynchronous):
    end, _, spans = await run(
        lambda llm: two_nodes(llm, asynchronous=asynchronous),
        lambda request: script.say("policy"),
        framework="langchain",
        trainable=["writer"],
        frozen=own("frozen reply"),
    )
    assert texts(end) == ["hi", "policy", "frozen reply"]
    assert spans["chat critic"].attributes["raybolt.trainable"] is False
    assert spans["chat critic"].attributes["gen_ai.output.messages"][0]["content"] == "frozen reply"


async def test_a_frozen_model_is_given_the_tools_in_its_own_providers_form(script):
    class Bound(FakeListChatModel):
        def bind_tools(self, tools, *, tool_choice=None, **kwargs):
            return Bound(responses=[f"{tools[0]['function']['name']} {tool_choice}"])

    @tool
    def look(thing: str) -> str:
        """Looks."""
        return "red"

    end, requests, _ = await run(
        lambda llm: create_agent(llm, [look], name="writer"),
        lambda request: script.say("policy"),
        framework="langchain",
        trainable=["nobody"],
        frozen=Bound(responses=["unbound"]),
    )
    assert end.result is None or texts(end)[-1] == "look None"
    assert requests == []


def streaming(llm):
    def stream(question: str) -> list[str]:
        return [chunk.text for chunk in llm.stream(question) if chunk.text]

    async def astream(question: str) -> list[str]:
        return [chunk.text async for chunk in llm.astream(question) if chunk.text]

    async def events(question: str) -> list[str]:
        chunks = [event async for event in llm.astream_events(question) if "stream" in event["event"]]
        return [chunk["data"]["chunk"].text for chunk in chunks if chunk["data"]["chunk"].text]

    def events_v3(question: str) -> list[str]:
        return [str(text) for text in llm.stream_events(question, version="v3").text]

    async def aevents_v3(question: str) -> list[str]:
        return [str(text) async for text in (await llm.astream_events(question, version="v3")).text]

    return {f.__name__: f for f in (stream, astream, events, events_v3, aevents_v3)}


STREAMS = ["stream", "astream", "events", "events_v3", "aevents_v3"]


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_of_the_agents_own_model_is_passed_on_chunk_by_chunk(script, name):
    agent = streaming(own("my own words"))[name]
    end, requests, spans = await run(
        lambda question: agent(question), lambda request: script.say("x"), trainable=["nobody"], name="me"
    )
    assert not end.failed, end
    assert end.result == ["my", " ", "own", " ", "words"]
    assert requests == []
    assert spans["chat me"].attributes["gen_ai.output.messages"][0]["content"] == "my own words"


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_that_the_policy_takes_is_its_reply(script, name):
    agent = streaming(own("my own words"))[name]
    end, requests, _ = await run(lambda question: agent(question), lambda request: script.say("policy says"))
    assert not end.failed, end
    assert "".join(end.result) == "policy says"
    assert len(requests) == 1


@pytest.mark.parametrize("name", STREAMS)
async def test_a_factorys_stream_is_the_frozen_models_where_the_policy_does_not_take_it(script, name):
    end, requests, spans = await run(
        lambda llm: streaming(llm)[name],
        lambda request: script.say("x"),
        framework="langchain",
        trainable=["nobody"],
        frozen=own("frozen words"),
    )
    assert not end.failed, end
    assert "".join(end.result) == "frozen words"
    if name in ("stream", "astream"):
        assert end.result == ["frozen", " ", "words"]
    assert requests == []
    assert spans["chat agent"].attributes["gen_ai.output.messages"][0]["content"] == "frozen words"


async def test_what_is_streamed_does_not_switch_off_the_capture_of_its_consumer(script):
    mine, other = own("one two"), own("original")

    async def agent(question: str) -> list[str]:
        stream = mine.astream([HumanMessage(question)])
        return [(await other.ainvoke("inside the loop, for the policy")).text async for _ in stream]

    end, requests, _ = await run(
        agent,
        lambda request: script.say("policy"),
        trainable=lambda request: "policy" in str(request.messages),
    )
    assert not end.failed, end
    assert set(end.result) == {"policy"}
    assert len(requests) >= 3


async def test_an_image_is_an_error_only_where_the_policy_would_have_to_see_it(script):
    model = own("a cat")

    async def agent(question: str) -> str:
        return (await model.ainvoke([HumanMessage(PICTURE)])).text

    end, _, spans = await run(agent, lambda request: script.say("x"), trainable=["nobody"])
    assert end.result == "a cat"
    assert spans["chat agent"].attributes["gen_ai.input.messages"][0]["content"] == "[image_url]"
    end, _, _ = await run(agent, lambda request: script.say("x"))
    assert "a block of type 'image_url'; a raybolt policy reads text only" in end.error


async def test_an_error_of_the_own_model_passes_and_fails_its_span(script):
    class Broken(FakeListChatModel):
        def _call(self, *args, **kwargs):
            raise ValueError("no quota")

    model = Broken(responses=[])

    async def agent(question: str) -> str:
        return (await model.ainvoke(question)).text

    end, _, spans = await run(agent, lambda request: script.say("x"), trainable=["nobody"])
    assert (end.error, end.origin) == ("ValueError: no quota", "agent")
    assert spans["chat agent"].status_message == "ValueError: no quota"


async def test_the_own_models_calls_count_towards_the_limit(script):
    model = own("again")

    async def agent(question: str) -> None:
        while True:
            await model.ainvoke(question)

    end, _, _ = await asyncio.wait_for(
        run(
            agent,
            lambda request: script.say("x"),
            trainable=["nobody"],
            limits=raybolt.RunLimits(max_calls=3),
        ),
        20,
    )
    assert end.error == "the agent made more than 3 LLM calls"

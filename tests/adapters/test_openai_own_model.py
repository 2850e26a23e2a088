"""Calls that the policy does not take: the client's own server answers, and the run records what it said."""

import gzip
import json
from collections.abc import Callable

import httpx
import pytest
from openai import APIStatusError, AsyncOpenAI, OpenAI

import raybolt
from raybolt.adapters.openai_python.responses import completion_to_response, completion_to_response_events
from raybolt.adapters.openai_python.wire import completion_to_body, completion_to_events, error_body
from raybolt.env.chat import ChatMessage, Completion, ToolCall
from raybolt.store import names

CALL = ToolCall("c1", "add", '{"a": 1}')
REPLY = Completion(ChatMessage("assistant", "own reply", (CALL,)), "tool_calls")
SAID = {
    "role": "assistant",
    "content": "own reply",
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}],
}


def serve(request: httpx.Request) -> httpx.Response:
    """A model server: both APIs, whole and streamed, compressed as real ones do."""
    body = json.loads(request.content)
    if body["model"] == "broken":
        return httpx.Response(418, json=error_body("out of tea"))
    if request.url.path.endswith("/responses"):
        names = {"model": "own-1", "response_id": "resp_own"}
        whole, events = completion_to_response(REPLY, **names), completion_to_response_events(REPLY, **names)
    else:
        names = {"model": "own-1", "completion_id": "c"}
        whole = completion_to_body(REPLY, **names)
        events = completion_to_events(REPLY, **names, include_usage=True)
    content = b"".join(events) if body.get("stream") else json.dumps(whole).encode()
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    return httpx.Response(200, headers=headers, stream=Pieces(gzip.compress(content)))


class Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The content, a few bytes at a time."""

    def __init__(self, content: bytes) -> None:
        self.pieces = [content[start : start + 50] for start in range(0, len(content), 50)]

    def __iter__(self):
        yield from self.pieces

    async def __aiter__(self):
        for piece in self.pieces:
            yield piece


def client() -> OpenAI:
    http = httpx.Client(transport=httpx.MockTransport(serve))
    return OpenAI(api_key="unused", base_url="http://own/v1", http_client=http, max_retries=0)


def async_client() -> AsyncOpenAI:
    http = httpx.AsyncClient(transport=httpx.MockTransport(serve))
    return AsyncOpenAI(api_key="unused", base_url="http://own/v1", http_client=http, max_retries=0)


MESSAGES = [{"role": "user", "content": "review"}]


def chat(openai, **options):
    return openai.chat.completions.create(model="m", messages=MESSAGES, **options)


def response(openai, **options):
    return openai.responses.create(model="m", input="review", **options)


def chat_content(reply):
    return reply.choices[0].message.content


def response_content(reply):
    return reply.output_text


def chat_delta(chunk):
    return (chunk.choices[0].delta.content or "") if chunk.choices else ""


def response_delta(event):
    return event.delta if event.type == "response.output_text.delta" else ""


APIS = [(chat, chat_content, chat_delta), (response, response_content, response_delta)]


def blocking(ask, content, delta):
    def agent(question):
        with raybolt.operation("review", role="critic"), client() as openai:
            return content(ask(openai))

    return agent


def blocking_stream(ask, content, delta):
    def agent(question):
        with raybolt.operation("review", role="critic"), client() as openai:
            return "".join(delta(event) for event in ask(openai, stream=True))

    return agent


def waiting(ask, content, delta):
    async def agent(question):
        with raybolt.operation("review", role="critic"):
            async with async_client() as openai:
                return content(await ask(openai))

    return agent


def waiting_stream(ask, content, delta):
    async def agent(question):
        with raybolt.operation("review", role="critic"):
            async with async_client() as openai:
                return "".join([delta(event) async for event in await ask(openai, stream=True)])

    return agent


@pytest.mark.parametrize("api", APIS, ids=["chat", "responses"])
@pytest.mark.parametrize("make", [blocking, blocking_stream, waiting, waiting_stream])
async def test_the_own_models_answer_reaches_the_agent_and_the_record(
    agent_run, script, make: Callable[..., Callable[[str], str]], api
):
    ran = await agent_run(make(*api), "hi", lambda request: script.say("policy"), trainable=["writer"])
    assert ran.result == "own reply"
    assert ran.requests == []
    span = ran.span("chat critic")
    assert span.status == "ok"
    assert span.attributes[names.OUTPUT_MESSAGES] == [SAID]
    assert span.attributes[names.INPUT_MESSAGES] == MESSAGES
    assert span.attributes[names.FINISH_REASONS] == ["tool_calls"]
    assert span.attributes[names.REQUEST_MODEL] == "own-1"
    assert span.attributes[names.TRAINABLE] is False
    assert ran.parent_name(span) == "review"


class Watched(httpx.SyncByteStream):
    """Events that are made one by one, each noting what the agent had heard by then."""

    def __init__(self, heard: list[str]) -> None:
        self.heard = heard
        self.heard_before: list[int] = []

    def __iter__(self):
        names = {"model": "own-1", "completion_id": "c"}
        for event in completion_to_events(REPLY, **names, include_usage=False):
            self.heard_before.append(len(self.heard))
            yield event


async def test_a_stream_reaches_the_agent_as_it_comes(agent_run, script):
    heard: list[str] = []
    events = Watched(heard)

    def agent(question):
        transport = httpx.MockTransport(lambda request: httpx.Response(200, stream=events))
        with httpx.Client(transport=transport) as http:
            openai = OpenAI(api_key="unused", base_url="http://own/v1", http_client=http)
            for chunk in chat(openai, stream=True):
                text = chat_delta(chunk)
                heard.append(text)

    await agent_run(agent, "hi", lambda request: script.say("policy"), trainable=["writer"])
    assert heard == ["own reply", ""]
    assert events.heard_before == [0, 1, 2]


async def test_a_stream_that_breaks_fails_its_span(agent_run, script):
    class Breaking(httpx.SyncByteStream):
        def __iter__(self):
            names = {"model": "own-1", "completion_id": "c"}
            yield next(completion_to_events(REPLY, **names, include_usage=False))
            raise httpx.ReadError("cut")

    def agent(question):
        transport = httpx.MockTransport(lambda request: httpx.Response(200, stream=Breaking()))
        with httpx.Client(transport=transport) as http:
            openai = OpenAI(api_key="unused", base_url="http://own/v1", http_client=http)
            stream = chat(openai, stream=True)
            with pytest.raises(httpx.ReadError, match="cut"):
                list(stream)

    ran = await agent_run(agent, "hi", lambda request: script.say("policy"), trainable=["writer"])
    assert ran.span("chat agent").status_message == "ReadError: cut"


async def test_a_stream_that_the_agent_leaves_early_is_recorded_as_far_as_it_went(agent_run, script):
    def agent(question):
        with client() as openai, chat(openai, stream=True) as stream:
            return chat_delta(next(iter(stream)))

    ran = await agent_run(agent, "hi", lambda request: script.say("policy"), trainable=["writer"])
    assert ran.result == "own reply"
    (said,) = ran.span("chat agent").attributes[names.OUTPUT_MESSAGES]
    assert said["content"] == "own reply"


async def test_an_error_of_the_own_server_fails_the_span_and_is_the_agents_to_handle(agent_run, script):
    def agent(question):
        with client() as openai, pytest.raises(APIStatusError, match="out of tea") as raised:
            openai.chat.completions.create(model="broken", messages=MESSAGES)
        return raised.value.status_code

    ran = await agent_run(agent, "hi", lambda request: script.say("policy"), trainable=["writer"])
    assert ran.result == 418
    span = ran.span("chat agent")
    assert (span.status, "HTTP 418" in span.status_message) == ("error", True)


async def test_what_only_the_own_model_can_read_is_left_to_it(agent_run, script):
    image = {"type": "image_url", "image_url": {"url": "x"}}
    drawing = {"type": "image_generation_call", "id": "i", "status": "completed", "result": "x"}

    def agent(question):
        with client() as openai:
            looked = openai.chat.completions.create(
                model="m", n=2, messages=[{"role": "user", "content": [image]}]
            )
            found = openai.responses.create(
                model="m",
                input=[{"role": "user", "content": "draw"}, drawing],
                tools=[{"type": "web_search"}],
                tool_choice={"type": "web_search"},
                previous_response_id="resp_elsewhere",
            )
            return chat_content(looked), found.output_text

    ran = await agent_run(agent, "hi", lambda request: script.say("policy"), trainable=["writer"])
    assert ran.result == ("own reply", "own reply")
    first, second = (span for span in ran.spans if span.name == "chat agent")
    assert first.attributes[names.INPUT_MESSAGES][0]["content"] == "[image_url]"
    contents = [message["content"] for message in second.attributes[names.INPUT_MESSAGES]]
    assert contents == ["draw", "[image_generation_call]"]


async def test_the_policy_goes_on_from_what_the_own_model_said(agent_run, script):
    def agent(question):
        with client() as openai:
            with raybolt.operation("review", role="critic"):
                review = response(openai)
            with raybolt.operation("write", role="writer"):
                return openai.responses.create(
                    model="m", input="thanks", previous_response_id=review.id
                ).output_text

    ran = await agent_run(agent, "hi", lambda request: script.say("policy"), trainable=["writer"])
    assert ran.result == "policy"
    (request,) = ran.requests
    assert [message.content for message in request.messages] == ["review", "own reply", "thanks"]


async def test_the_agents_own_calls_count_towards_its_limit(agent_run, script):
    def agent(question):
        with client() as openai:
            for _ in range(5):
                chat(openai)

    limits = raybolt.RunLimits(max_calls=2, max_seconds=10)
    ran = await agent_run(agent, "hi", lambda request: script.say("x"), trainable=["writer"], limits=limits)
    assert ran.end.origin == "limit"
    assert sum(span.name == "chat agent" for span in ran.spans) == 2

"""The endpoint: who is let in, what is refused and how, and that runs are kept apart."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import openai
import pytest
from http_support import Told, drive, new_run, serve
from openai import AsyncOpenAI, OpenAI

from raybolt.adapters.check.scripted import say
from raybolt.adapters.check.server import INPUT_TOKENS, ModelServer
from raybolt.adapters.endpoint.llm import ROLE_HEADER
from raybolt.adapters.endpoint.upstream import Upstream
from raybolt.env.chat import ChatMessage, Completion
from raybolt.env.limits import RunLimits
from raybolt.env.policy import RunEnd
from raybolt.store import names
from raybolt.store.errors import InvalidValue

MESSAGES: Any = [{"role": "user", "content": "hi"}]
CHAT = {"model": "m", "messages": MESSAGES}


def hello(request: Any) -> Completion:
    return say("hello")


def post(told: Told, path: str = "/chat/completions", *, header: str | None = None, **options: Any) -> Any:
    """One request, without any client's retries; a call of its own first, since a run must make one."""
    with OpenAI(base_url=told["base_url"], api_key=told["api_key"]) as client:
        client.chat.completions.create(model="m", messages=MESSAGES)
    headers = {"Authorization": f"Bearer {told['api_key']}" if header is None else header}
    return httpx.post(told["base_url"] + path, headers=headers, **options)


def error_of(response: Any) -> tuple[int, str, str]:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert response.headers["x-should-retry"] == "false"
    return response.status_code, error["type"], error["message"]


@pytest.mark.parametrize("header", ["Bearer rb-wrong", "Basic x", "rb-no-scheme", ""])
async def test_a_wrong_or_missing_key_is_refused(header):
    ran = await serve(lambda told: post(told, header=header, json=CHAT), hello)
    status, kind, message = error_of(ran.result)
    assert (status, kind) == (401, "authentication_error")
    assert message == "the key is not this run's; use the one in OPENAI_API_KEY"
    assert len(ran.requests) == 1


async def test_a_key_opens_only_its_own_run():
    every: list[Told] = []
    both = threading.Barrier(2, timeout=10)

    def agent(told: Told) -> Any:
        every.append(told)
        both.wait()
        (other,) = [each for each in every if each["api_key"] != told["api_key"]]
        answer = post(told, header=f"Bearer {other['api_key']}", json=CHAT)
        both.wait()
        return answer

    ran = await asyncio.gather(
        serve(agent, hello, ids=("ro-1", "at-1")), serve(agent, hello, ids=("ro-2", "at-1"))
    )
    assert [error_of(each.result)[0] for each in ran] == [401, 401]


async def test_a_run_that_has_ended_or_never_was_is_not_found():
    def agent(told: Told) -> Any:
        other = {**told, "base_url": told["base_url"].replace("ro-1", "ro-9")}
        post(told, json=CHAT)
        return httpx.post(
            other["base_url"] + "/chat/completions",
            json=CHAT,
            headers={"Authorization": f"Bearer {told['api_key']}"},
        )

    status, kind, message = error_of((await serve(agent, hello)).result)
    assert (status, kind) == (404, "not_found_error")
    assert message == "no run ro-9/at-1 is on; it has ended, or never was"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the body is not JSON: "),
        (b"[1]", "the body is a JSON list; expected an object"),
        (b'{"model": "m"}', "the body has no 'model' or no 'messages', so it is no request for chat"),
        (
            b'{"model": "m", "messages": [], "stop": 4}',
            "the body is no request for chat/completions: TypeError",
        ),
        (b'{"model": "m", "messages": [], "n": 2}', "n=2: a policy gives one choice per call"),
        (b'{"model": "m", "messages": [{"role": "x"}]}', "message role is 'x'; expected one of system,"),
    ],
)
async def test_a_body_that_is_no_request_is_refused(body, message):
    ran = await serve(lambda told: post(told, content=body), hello)
    status, kind, told = error_of(ran.result)
    assert (status, kind) == (400, "invalid_request_error")
    assert told.startswith(message)


async def test_a_body_beyond_bounds_is_refused():
    ran = await serve(lambda told: post(told, content=b" " * (65 * 2**20)), hello)
    status, _, message = error_of(ran.result)
    assert status == 413
    assert message.startswith("the request is too large")


async def test_operations_that_are_no_policys_are_refused(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    ran = await serve(lambda told: post(told, "/embeddings", json={"model": "m", "input": "x"}), hello)
    status, _, message = error_of(ran.result)
    assert status == 404
    assert message.startswith("embeddings is nothing that a policy answers; it does /chat/completions,")


async def test_addresses_of_nothing_are_refused_in_the_same_form():
    ran = await serve(lambda told: post({**told}, "/../../../../nowhere", json=CHAT), hello)
    status, _, message = error_of(ran.result)
    assert status == 404
    assert "a run is served at /rollout/{id}/attempt/{id}/agent/{name}/v1" in message


async def test_the_path_or_a_header_says_whose_call_it_is():
    async def agent(told):
        async def ask(name: str, **options: Any) -> None:
            async with AsyncOpenAI(api_key=told["api_key"], **options) as client:
                await client.chat.completions.create(model="m", messages=[{"role": "user", "content": name}])

        by_path = told["base_url"].replace("/agent/agent/", "/agent/the%20critic/")
        await asyncio.gather(
            ask("agent", base_url=told["base_url"]),
            ask("the critic", base_url=by_path),
            ask("editor", base_url=told["base_url"], default_headers={ROLE_HEADER: "editor"}),
        )

    ran = await serve(agent, hello)
    assert {(each.role, each.messages[0].content) for each in ran.requests} == {
        ("agent", "agent"), ("the critic", "the critic"), ("editor", "editor"),
    }  # fmt: skip


async def test_the_end_of_a_run_is_an_error_that_no_client_tries_again():
    seen: list[Exception] = []

    def agent(told):
        with OpenAI(base_url=told["base_url"], api_key=told["api_key"], max_retries=9) as client:
            for _ in range(2):
                try:
                    client.chat.completions.create(model="m", messages=MESSAGES)
                except openai.APIStatusError as error:
                    seen.append(error)

    ran = await serve(agent, hello, limits=RunLimits(max_calls=1))
    assert (ran.end.error, ran.end.origin) == ("the agent made more than 1 LLM calls", "limit")
    (error,) = seen
    assert isinstance(error, openai.PermissionDeniedError)
    assert error.code == "raybolt_limit"
    assert "the agent made more than 1 LLM calls" in error.message


async def test_a_failure_of_the_engine_is_told_once():
    seen: list[Exception] = []

    def agent(told):
        with OpenAI(base_url=told["base_url"], api_key=told["api_key"], max_retries=9) as client:
            try:
                client.chat.completions.create(model="m", messages=MESSAGES)
            except openai.APIStatusError as error:
                seen.append(error)

    run = new_run(agent)
    (call,) = await run.next()  # type: ignore[misc]
    run.fail(call.call_id, RuntimeError("out of memory"))
    end = await run.next()
    assert isinstance(end, RunEnd)
    assert (end.error, end.origin) == ("RuntimeError: out of memory", "engine")
    (error,) = seen
    assert isinstance(error, openai.InternalServerError)
    assert (error.status_code, error.code) == (503, "raybolt_engine")
    assert len([span for span in run.recorder.spans if span.name == "chat agent"]) == 1


async def test_a_run_is_not_served_beyond_its_end_even_if_others_are():
    first_told: list[Told] = []

    def outer(told):
        answer = post(told, json=CHAT)
        assert answer.status_code == 200
        inner = asyncio.run(serve(lambda told: first_told.append(told) or post(told, json=CHAT), hello,
                                  ids=("ro-2", "at-1")))  # fmt: skip
        assert inner.result.status_code == 200
        key = {"Authorization": f"Bearer {first_told[0]['api_key']}"}
        return httpx.post(first_told[0]["base_url"] + "/chat/completions", json=CHAT, headers=key)

    status, _, message = error_of((await serve(outer, hello)).result)
    assert (status, message) == (404, "no run ro-2/at-1 is on; it has ended, or never was")


async def test_an_agent_that_hangs_up_withdraws_its_call():
    async def agent(told):
        async with AsyncOpenAI(base_url=told["base_url"], api_key=told["api_key"], max_retries=0) as client:
            with pytest.raises(openai.APITimeoutError):
                await client.chat.completions.create(model="m", messages=MESSAGES, timeout=0.2)
            again: Any = [{"role": "user", "content": "again"}]
            reply = await client.chat.completions.create(model="m", messages=again, timeout=20)
        return reply.choices[0].message.content

    run = new_run(agent)
    while not isinstance(pending := await run.next(), RunEnd):
        if [each.request.messages[0].content for each in pending] == ["again"]:
            run.answer(pending[0].call_id, say("hello"))
        await asyncio.sleep(0.01)
    assert pending.result == "hello"
    first, second = [span for span in run.recorder.spans if span.name == "chat agent"]
    assert (first.status, first.status_message) == ("error", "the agent stopped waiting for the answer")
    assert second.status == "ok"


async def test_many_runs_at_once_are_never_mixed_up():
    async def one(number: int) -> Any:
        async def agent(told):
            async with AsyncOpenAI(base_url=told["base_url"], api_key=told["api_key"]) as client:
                said = []
                for turn in range(3):
                    text = f"run {number}, turn {turn}"
                    reply = await client.chat.completions.create(
                        model="m", messages=[{"role": "user", "content": text}]
                    )
                    said.append(reply.choices[0].message.content)
                return said

        return await serve(
            agent, lambda request: say(f"to {request.messages[0].content}"), ids=(f"ro-{number}", "at-1")
        )

    every = await asyncio.gather(*(one(number) for number in range(32)))
    for number, ran in enumerate(every):
        assert ran.result == [f"to run {number}, turn {turn}" for turn in range(3)]
        assert {span.rollout_id for span in ran.spans} == {f"ro-{number}"}


async def test_nothing_of_the_endpoint_outlives_its_runs():
    ports = []

    def agent(told):
        post(told, json=CHAT)
        ports.append(int(told["run_url"].split(":")[2].split("/")[0]))
        assert "raybolt-endpoint" in [thread.name for thread in threading.enumerate()]

    await serve(agent, hello)
    assert "raybolt-endpoint" not in [thread.name for thread in threading.enumerate()]
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{ports[0]}/task")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_calls_that_the_policy_does_not_take_go_to_the_users_server(api, stream):
    def agent(told):
        with OpenAI(base_url=told["base_url"], api_key=told["api_key"]) as client:
            client.chat.completions.create(
                model="m", messages=MESSAGES, extra_headers={ROLE_HEADER: "writer"}
            )
            if api == "chat" and stream:
                chunks = client.chat.completions.create(
                    model="m", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
                )
                return "".join(each.choices[0].delta.content or "" for each in chunks if each.choices)
            if api == "chat":
                reply = client.chat.completions.create(model="m", messages=MESSAGES)
                return reply.choices[0].message.content
            if stream:
                events = client.responses.create(model="m", input="hi", stream=True)
                return "".join(each.delta for each in events if each.type == "response.output_text.delta")
            return client.responses.create(model="m", input="hi").output_text

    with ModelServer().serving() as server:
        upstream = Upstream(server.url, "its-key", model="big")
        ran = await serve(agent, hello, upstream=upstream, trainable=["writer"])
    assert ran.result == "own reply 1"
    assert [body["model"] for body in server.bodies] == ["big"]
    assert [request.role for request in ran.requests] == ["writer"]
    span = ran.span("chat agent")
    assert span.attributes[names.OUTPUT_MESSAGES] == [{"role": "assistant", "content": "own reply 1"}]
    assert span.attributes[names.INPUT_TOKENS] == INPUT_TOKENS
    assert span.attributes[names.TRAINABLE] is False


async def test_a_streams_reply_is_recorded_before_the_agent_can_end_on_it():
    class Lingering(BaseHTTPRequestHandler):
        """Says that the stream is over some time before it closes the connection."""

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            chunk = {"id": "c", "created": 1, "model": "m", "object": "chat.completion.chunk"}
            delta = {"index": 0, "delta": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
            self.wfile.write(b"data: " + json.dumps({**chunk, "choices": [delta]}).encode() + b"\n\n")
            self.wfile.write(b"data: [DONE]\n\n")
            self.wfile.flush()
            time.sleep(0.5)

        def log_message(self, format, *args):
            """Nothing: tests read their own output."""

    def agent(told):
        with httpx.stream("POST", told["base_url"] + "/chat/completions", json={**CHAT, "stream": True},
                          headers={"authorization": f"Bearer {told['api_key']}"}) as response:  # fmt: skip
            return next(line for line in response.iter_lines() if line == "data: [DONE]")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Lingering)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        upstream = Upstream(f"http://127.0.0.1:{server.server_port}/v1", "its-key")
        ran = await serve(agent, hello, upstream=upstream, trainable=["writer"])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert ran.result == "data: [DONE]"
    (span,) = [span for span in ran.spans if span.name == "chat agent"]
    assert span.status == "ok"
    assert span.attributes[names.OUTPUT_MESSAGES] == [{"role": "assistant", "content": "hi"}]


async def test_without_such_a_server_the_policy_answers_them_and_does_not_learn_from_them():
    ran = await serve(lambda told: post(told, json=CHAT).json(), hello, trainable=["writer"])
    assert ran.result["choices"][0]["message"]["content"] == "hello"
    assert {span.attributes[names.TRAINABLE] for span in ran.spans if span.name == "chat agent"} == {False}


async def test_an_error_of_the_users_server_reaches_the_agent_and_fails_the_span():
    def agent(told):
        writer = {ROLE_HEADER: "writer"}
        with OpenAI(base_url=told["base_url"], api_key=told["api_key"], default_headers=writer) as client:
            client.chat.completions.create(model="m", messages=MESSAGES)
        with (
            OpenAI(base_url=told["base_url"], api_key=told["api_key"], max_retries=0) as client,
            pytest.raises(openai.InternalServerError) as caught,
        ):
            client.chat.completions.create(model="m", messages=MESSAGES)
        return caught.value.status_code

    upstream = Upstream("http://127.0.0.1:9/v1", "none")
    ran = await serve(agent, hello, upstream=upstream, trainable=["writer"])
    assert ran.result == 502
    span = ran.span("chat agent")
    assert span.status == "error"
    assert "ClientConnectorError" in (span.status_message or "")


async def test_other_operations_pass_to_the_users_server_unchanged():
    def agent(told):
        return post(told, "/anything?deep=1", json=CHAT).json()

    with ModelServer().serving() as server:
        ran = await serve(agent, hello, upstream=Upstream(server.url, "its-key"))
    assert ran.result["choices"][0]["message"]["content"] == "own reply 1"
    assert server.bodies == [CHAT]
    assert len(ran.requests) == 1


async def test_an_answer_that_breaks_the_endpoint_is_an_error_of_the_same_form(caplog):
    def broken(request):
        return Completion(ChatMessage("assistant", "x"), logprobs=3, response_ids="wrong")  # type: ignore

    run = new_run(lambda told: httpx.post(
        told["base_url"] + "/chat/completions", json={**CHAT, "logprobs": True},
        headers={"Authorization": f"Bearer {told['api_key']}"},
    ))  # fmt: skip
    ran = await drive(run, broken)
    status, kind, message = error_of(ran.result)
    assert (status, kind) == (500, "server_error")
    assert message.startswith("raybolt's endpoint broke: ")
    assert "raybolt's endpoint broke on POST" in caplog.text


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x/v1", ""])
def test_an_upstream_without_an_address_is_a_mistake(url):
    with pytest.raises(InvalidValue, match=r"expected one such as https://api\.openai\.com/v1"):
        Upstream(url)

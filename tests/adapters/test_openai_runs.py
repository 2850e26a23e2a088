"""Plain functions with the `openai` client: unchanged, answered by the policy while a run is on."""

import asyncio
import http.server
import json
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

import raybolt
from raybolt.env.limits import RunLimits

NOWHERE = "http://127.0.0.1:9/v1"  # the discard port: a request that leaves fails at once
MODULE_CLIENT = OpenAI(api_key="unused", base_url=NOWHERE, max_retries=0)
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
        },
    }
]


class Answer(BaseModel):
    number: int


def client() -> OpenAI:
    return OpenAI(api_key="unused", base_url=NOWHERE, max_retries=0)


def async_client() -> AsyncOpenAI:
    return AsyncOpenAI(api_key="unused", base_url=NOWHERE, max_retries=0)


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.fixture
def server() -> Iterator[str]:
    """A web server that answers every POST with the body it got."""

    class Echo(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Be quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as echo:
        threading.Thread(target=echo.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{echo.server_address[1]}"
        echo.shutdown()


async def test_a_blocking_client_made_inside_the_function_answers_by_the_policy(agent_run, script):
    def agent(question):
        return (
            client()
            .chat.completions.create(model="gpt-5", messages=user(question))
            .choices[0]
            .message.content
        )

    ran = await agent_run(agent, "hi", lambda request: script.say("hello"))
    assert ran.result == "hello"
    assert ran.requests[0].messages[0].content == "hi"
    assert ran.requests[0].role == "agent"


async def test_a_client_at_module_level_answers_by_the_policy(agent_run, script):
    def clerk(question):
        reply = MODULE_CLIENT.chat.completions.create(model="gpt-5", messages=user(question))
        return reply.choices[0].message.content

    ran = await agent_run(clerk, "hi", lambda request: script.say("hello"))
    assert ran.result == "hello"
    assert ran.requests[0].role == "clerk"


async def test_an_async_client_answers_by_the_policy(agent_run, script):
    async def agent(question):
        async with async_client() as openai:
            reply = await openai.chat.completions.create(model="gpt-5", messages=user(question))
        return reply.choices[0].message.content

    ran = await agent_run(agent, "hi", lambda request: script.say("hello"))
    assert ran.result == "hello"


async def test_tools_go_round(agent_run, script):
    def agent(question):
        messages = user(question)
        openai = client()
        while True:
            reply = openai.chat.completions.create(
                model="gpt-5",
                messages=messages,
                tools=TOOLS,
                tool_choice="auto",
                temperature=0.5,
                max_tokens=9,
            )
            message = reply.choices[0].message
            messages.append(message)
            if reply.choices[0].finish_reason != "tool_calls":
                return message.content
            for call in message.tool_calls:
                result = json.loads(call.function.arguments)["a"] + 1
                messages.append({"role": "tool", "tool_call_id": call.id, "content": str(result)})

    ran = await agent_run(agent, "go", script.tool_then("done", ("add", {"a": 1})))
    assert ran.result == "done"
    first, second = ran.requests
    assert (first.tools[0].name, first.temperature, first.max_tokens) == ("add", 0.5, 9)
    assert second.messages[1] == script.call(("add", {"a": 1})).message
    assert second.messages[2].content == "2"


async def test_a_stream_yields_text_tool_calls_and_usage(agent_run, script):
    def agent(question):
        return list(
            client().chat.completions.create(
                model="gpt-5", messages=user(question), stream=True, stream_options={"include_usage": True}
            )
        )

    reply = script.call(("add", {"a": 1}), content="let me see")
    chunks = (await agent_run(agent, "go", lambda request: reply)).result
    delta = chunks[0].choices[0].delta
    assert delta.content == "let me see"
    assert delta.tool_calls[0].index == 0
    assert delta.tool_calls[0].function.arguments == '{"a": 1}'
    assert chunks[1].choices[0].finish_reason == "tool_calls"
    assert chunks[2].usage.total_tokens == 0


async def test_an_async_stream_helper_puts_the_reply_together(agent_run, script):
    async def agent(question):
        async with (
            async_client() as openai,
            openai.chat.completions.stream(model="gpt-5", messages=user(question)) as stream,
        ):
            return (await stream.get_final_completion()).choices[0].message.content

    ran = await agent_run(agent, "go", lambda request: script.say("hello"))
    assert ran.result == "hello"


async def test_a_parsed_reply_is_an_object_of_the_asked_type(agent_run, script):
    def agent(question):
        reply = client().chat.completions.parse(
            model="gpt-5", messages=user(question), response_format=Answer
        )
        return reply.choices[0].message.parsed

    ran = await agent_run(agent, "2 + 2?", lambda request: script.say('{"number": 4}'))
    assert ran.result == Answer(number=4)
    assert ran.requests[0].response_format["json_schema"]["name"] == "Answer"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"n": 2, "messages": [{"role": "user", "content": "x"}]}, "one choice per call"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "text",
        ),
    ],
)
async def test_what_no_policy_can_answer_is_a_bad_request(agent_run, script, options, complaint):
    def agent(question):
        return client().chat.completions.create(model="gpt-5", **options)

    ran = await agent_run(agent, "hi", lambda request: script.say("x"))
    assert ran.end.error.startswith("BadRequestError")
    assert complaint in ran.end.error


async def test_a_blocking_call_in_an_async_agent_is_an_error_that_says_so(agent_run, script):
    async def agent(question):
        return client().chat.completions.create(model="gpt-5", messages=user(question))

    ran = await agent_run(agent, "hi", lambda request: script.say("x"))
    assert "blocking LLM call on the event loop's thread" in ran.end.error


async def test_other_http_calls_of_the_agent_go_out_untouched(agent_run, script, server):
    def agent(question):
        with httpx.Client() as http:
            form = http.post(f"{server}/forms/7/responses", json={"name": "ann"}).json()
            other = http.post(f"{server}/v1/embeddings", json={"model": "e", "input": "x"}).json()
        reply = client().chat.completions.create(model="gpt-5", messages=user(question))
        return form, other, reply.choices[0].message.content

    ran = await agent_run(agent, "hi", lambda request: script.say("hello"))
    assert ran.result == ({"name": "ann"}, {"model": "e", "input": "x"}, "hello")


async def test_code_outside_the_run_reaches_the_real_server_meanwhile(agent_run, script, server):
    def agent(question):
        return (
            MODULE_CLIENT.chat.completions.create(model="gpt-5", messages=user(question))
            .choices[0]
            .message.content
        )

    seen = []

    def policy(request):
        with httpx.Client() as http:
            body = {"model": "m", "messages": user("outside")}
            seen.append(http.post(f"{server}/v1/chat/completions", json=body).json())
        return script.say("policy")

    ran = await agent_run(agent, "hi", policy)
    assert ran.result == "policy"
    assert seen == [{"model": "m", "messages": user("outside")}]


async def test_after_the_run_the_http_clients_are_as_before(agent_run, script):
    before = httpx.Client.send, httpx.AsyncClient.send

    def agent(question):
        return MODULE_CLIENT.chat.completions.create(model="m", messages=user(question)).id

    await agent_run(agent, "hi", lambda request: script.say("x"))
    assert (httpx.Client.send, httpx.AsyncClient.send) == before


async def test_the_policys_abort_is_not_retried_by_the_client(agent_run, script):
    def agent(question):
        openai = OpenAI(api_key="unused", base_url=NOWHERE, max_retries=5)
        for _ in range(10):
            openai.chat.completions.create(model="m", messages=user(question))

    limits = RunLimits(max_calls=2, max_seconds=10)
    ran = await agent_run(agent, "hi", lambda request: script.say("x"), limits=limits)
    assert ran.end.origin == "limit"
    assert len(ran.requests) == 2


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_forty_runs_at_once_never_see_one_another(agent_run, script, asynchronous):
    def blocking(question):
        for _ in range(3):
            reply = MODULE_CLIENT.chat.completions.create(model="m", messages=user(question))
        return reply.choices[0].message.content

    async def waiting(question):
        async with async_client() as openai:
            for _ in range(3):
                reply = await openai.chat.completions.create(model="m", messages=user(question))
        return reply.choices[0].message.content

    agent = raybolt.wrap(waiting if asynchronous else blocking)

    def policy(request):
        return script.say(f"answer {request.messages[0].content}")

    runs = await asyncio.gather(*(agent_run(agent, str(k), policy, delay_s=0.005) for k in range(40)))
    assert [ran.result for ran in runs] == [f"answer {k}" for k in range(40)]
    assert {len(ran.requests) for ran in runs} == {3}


async def test_langchain_used_inside_a_function_keeps_its_roles_and_tool_spans(agent_run, script):
    from langchain.agents import create_agent
    from langchain_openai import ChatOpenAI

    def add(a: int) -> int:
        """Adds one."""
        return a + 1

    def agent(question):
        model = ChatOpenAI(model="gpt-5", api_key="unused", base_url=NOWHERE)
        graph = create_agent(model, [add], name="adder")
        return graph.invoke({"messages": [("user", question)]})["messages"][-1].text

    ran = await agent_run(agent, "go", script.tool_then("done", ("add", {"a": 1})))
    assert ran.result == "done"
    assert {request.role for request in ran.requests} == {"adder"}
    assert ran.parent_name(ran.span("execute_tool add")) == "agent adder"


async def test_an_agent_that_is_stopped_by_its_time_limit_leaves_no_patch_behind(agent_run, script):
    before = httpx.Client.send

    def agent(question):
        MODULE_CLIENT.chat.completions.create(model="m", messages=user(question))
        while True:
            time.sleep(0.01)

    limits = RunLimits(max_calls=5, max_seconds=0.3)
    start = time.monotonic()
    ran = await agent_run(agent, "hi", lambda request: script.say("x"), limits=limits)
    assert ran.end.origin == "limit"
    assert time.monotonic() - start < 3
    assert httpx.Client.send is before

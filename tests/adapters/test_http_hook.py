"""Scripts that make their own clients, aimed elsewhere by their own code: in their process, unchanged."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from http_support import drive
from ran import Ran

import raybolt
from raybolt.adapters.check.scripted import say, tools_then
from raybolt.adapters.check.server import ModelServer
from raybolt.env.recorder import SpanRecorder
from raybolt.env.run import AgentRun

BLOCKING = """
import httpx
from openai import OpenAI
with OpenAI(api_key="own", base_url="https://llm.invalid/v1", http_client=httpx.Client()) as client:
    reply = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
print(reply.choices[0].message.content)
"""
ASYNC = """
import asyncio
from openai import AsyncOpenAI
async def main():
    async with AsyncOpenAI(api_key="own", base_url="https://llm.invalid/v1") as client:
        parts = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "hi"}], stream=True)
        return "".join([part.choices[0].delta.content or "" async for part in parts if part.choices])
print(asyncio.run(main()))
"""
RESPONSES = """
from openai import OpenAI
with OpenAI(api_key="own", base_url="https://llm.invalid/v1") as client:
    print(client.responses.create(model="m", input="hi").output_text)
"""
RUN_SYNC = """
import agents
from openai import AsyncOpenAI

@agents.function_tool
def add(a: int) -> int:
    return a + 1

client = AsyncOpenAI(api_key="own", base_url="https://llm.invalid/v1")
model = agents.OpenAIChatCompletionsModel("m", openai_client=client)
writer = agents.Agent("writer", model=model, tools=[add])
print(agents.Runner.run_sync(writer, "hi").final_output)
"""
ENVIRONMENT = """
from openai import OpenAI
with OpenAI() as client:
    reply = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
print(reply.choices[0].message.content)
"""


async def run(code: str, policy: Any = None, **options: Any) -> Ran:
    command = {name: options.pop(name) for name in ("env", "cwd") if name in options}
    agent = raybolt.wrap(raybolt.command([sys.executable, "-c", code], **command), **options)
    run_of = AgentRun(
        agent.program(), raybolt.Task("t-1", "hi"), recorder=SpanRecorder("ro-1", "at-1"),
        trainable=agent.trainable, require_reward=False,
    )  # fmt: skip
    return await drive(run_of, policy or (lambda request: say("hello")))


@pytest.mark.parametrize("code", [BLOCKING, ASYNC, RESPONSES, ENVIRONMENT])
async def test_every_client_reaches_the_policy_wherever_it_is_aimed(code):
    ran = await run(code)
    assert ran.result == "hello"
    assert [request.messages[0].content for request in ran.requests] == ["hi"]


async def test_a_script_that_runs_its_agent_in_a_loop_of_its_own():
    ran = await run(RUN_SYNC, tools_then("2 it is", ("add", {"a": 1})))
    assert ran.result == "2 it is"
    assert ran.requests[1].messages[-1].content == "2"


async def test_calls_that_the_policy_does_not_take_go_where_the_script_aimed_them():
    with ModelServer().serving() as server:
        code = BLOCKING.replace("https://llm.invalid/v1", server.url) + ENVIRONMENT.replace(
            "OpenAI()", "OpenAI(default_headers={'X-Raybolt-Role': 'writer'})"
        )
        ran = await run(code, trainable=["writer"])
    assert ran.result == "own reply 1\nhello"
    assert [request.role for request in ran.requests] == ["writer"]
    assert len(server.bodies) == 1


async def test_other_requests_go_out_untouched():
    code = """
import httpx
def ask(path, **body):
    return httpx.post("URL" + path, json=body).json()["choices"][0]["message"]["content"]
print(ask("/v1/other", model="m", messages=[]), ask("/v1/responses", model="m", question="how old?"))
"""
    with ModelServer().serving() as server:
        ran = await run(
            ENVIRONMENT + code.replace("URL", server.url).replace("/v1/responses", "/v1/chat/completions")
        )
    assert ran.result == "hello\nown reply 1 own reply 2"


async def test_a_sitecustomize_of_the_user_is_run_as_well(tmp_path: Path):
    (tmp_path / "sitecustomize.py").write_text("import builtins; builtins.theirs = 'theirs'\n")
    ran = await run(BLOCKING + "print(theirs)", env={"PYTHONPATH": str(tmp_path)})
    assert ran.result == "hello\ntheirs"


async def test_python_without_raybolt_and_without_site_packages_still_starts():
    code = "import json, os, urllib.request as u\n" + (
        "h = {'Authorization': 'Bearer ' + os.environ['OPENAI_API_KEY']}\n"
        "b = json.dumps({'model': 'm', 'messages': [{'role': 'user', 'content': 'hi'}]}).encode()\n"
        "r = u.urlopen(u.Request(os.environ['OPENAI_BASE_URL'] + '/chat/completions', b, h))\n"
        "print(json.load(r)['choices'][0]['message']['content'])\n"
    )
    agent = raybolt.wrap(raybolt.command([sys._base_executable, "-c", code]))  # type: ignore[attr-defined]
    run_of = AgentRun(
        agent.program(),
        raybolt.Task("t-1", "hi"),
        recorder=SpanRecorder("ro-1", "at-1"),
        require_reward=False,
    )
    assert (await drive(run_of, lambda request: say("hello"))).result == "hello"

"""What an agent in another process says of itself: raybolt's emitters there, and plain HTTP."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import httpx
import pytest
from http_support import Told, drive, new_run, serve
from ran import Ran

import raybolt
from raybolt.adapters.check.scripted import say
from raybolt.env.outside import OutsideRun
from raybolt.env.recorder import SpanRecorder
from raybolt.env.run import AgentRun
from raybolt.store import names

AGENT = """
import os
import raybolt
from openai import OpenAI

# base_url is set in the code, against what the environment says.
client = OpenAI(api_key="its-own", base_url="http://127.0.0.1:9/v1", max_retries=0)
def ask(text):
    messages = [{"role": "user", "content": text}]
    return client.chat.completions.create(model="m", messages=messages).choices[0].message.content

@raybolt.operation
def look_up(word):
    raybolt.emit("page", number=7)
    return ask(word)

ask("first")
raybolt.emit_reward(0.5)
print(look_up("second"))
raybolt.emit_reward(1.0, why="found")
raybolt.emit_message("done")
raybolt.emit_object({"a": [1, 2]})
raybolt.emit_exception(KeyError("page"))
try:
    with raybolt.operation("breaks", depth=2):
        raise ValueError("too deep")
except ValueError:
    pass
"""


async def run(code: str) -> tuple[AgentRun, Ran]:
    agent = raybolt.wrap(raybolt.command([sys.executable, "-c", code]))
    run_of = AgentRun(
        agent.program(),
        raybolt.Task("t-1", "hi"),
        recorder=SpanRecorder("ro-1", "at-1"),
        require_reward=False,
    )
    return run_of, await drive(run_of, lambda request: say(f"to {request.messages[0].content}"))


async def test_emitters_work_in_the_command_and_take_their_place_among_its_calls():
    run_of, ran = await run(AGENT)
    assert ran.result == "to second"
    look_up, breaks = ran.span("look_up"), ran.span("breaks")
    assert look_up.attributes["arguments"] == {"word": "second"}
    assert look_up.attributes["result"] == "to second"
    assert ran.parent_name(look_up) == "invoke_agent agent"
    assert ran.parent_name(ran.span("page")) == "look_up"
    assert ran.span("page").attributes["number"] == 7
    assert ran.span("message").attributes["message"] == "done"
    assert ran.span("object").attributes["object"] == {"a": [1, 2]}
    assert ran.span("exception").status_message == "KeyError: 'page'"
    assert (breaks.status, breaks.status_message) == ("error", "ValueError: too deep")
    assert breaks.events[0].attributes["exception.type"] == "ValueError"
    first, second = [span for span in ran.spans if span.name == "chat agent"]
    assert ran.parent_name(first) == "invoke_agent agent"
    assert ran.parent_name(second) == "look_up"
    assert [call.reward for call in run_of.trajectory.calls] == [0.5, 1.0]
    order = [span.name for span in ran.spans]
    assert order[:5] == ["invoke_agent agent", "chat agent", "reward", "look_up", "page"]


async def test_a_reward_that_is_none_makes_the_run_fail():
    _, ran = await run(AGENT.replace("emit_reward(0.5)", "emit_reward('high')"))
    assert (ran.end.origin, ran.end.error_type) == ("reward", "InvalidValue")
    assert "emit_reward: the reward is 'high' of type str; expected a number" in str(ran.end.error)


async def test_an_operation_that_the_end_of_the_run_finds_open_is_cut_off():
    _, ran = await run(AGENT + "raybolt.operation('endless').__enter__(); os._exit(0)")
    assert ran.span("endless").status_message == "the run ended before this did"


def test_outside_of_any_run_emitters_do_nothing():
    code = "import raybolt; print(raybolt.emit('a'), raybolt.emit_reward(1.0))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "None None\n"


def test_a_run_that_cannot_be_reached_is_logged_and_disturbs_nobody(caplog):
    outside = OutsideRun("http://127.0.0.1:9/rollout/x/attempt/y", "key")
    span = outside.recorder.record("a", attributes={"b": 1})
    assert span is not None
    assert "the run cannot be reached, and a span is lost: " in caplog.text


def post(told: Told, path: str, body: Any) -> httpx.Response:
    return httpx.post(
        told["run_url"] + path, json=body, headers={"Authorization": f"Bearer {told['api_key']}"}
    )


def talk(told: Told) -> None:
    chat = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    post(told, "/agent/agent/v1/chat/completions", chat).raise_for_status()


async def test_any_language_reports_with_plain_http():
    def agent(told: Told) -> Any:
        outer = post(told, "/spans", {"name": "search", "open": True, "attributes": {"q": "x"}}).json()
        post(told, "/spans", {"name": "hit", "parent_id": outer["span_id"]})
        talk(told)
        post(told, f"/spans/{outer['span_id']}/end", {"attributes": {"hits": 1}})
        post(told, "/spans", {"reward": 0.75})
        assert post(told, "/tools", {"name": "search", "arguments": {}}).json() == {"answer": None}
        return post(told, "/spans", {"name": "broke", "status": "error", "message": "no luck"}).text

    run_of = new_run(agent)
    ran = await drive(run_of, lambda request: say("x"))
    assert ran.result.startswith('{"span_id": "')
    assert ran.parent_name(ran.span("hit")) == "search"
    assert ran.span("search").attributes["q"] == "x"
    assert ran.span("search").attributes["hits"] == 1
    assert ran.span("reward").attributes[names.AGENT_NAME] == "agent"
    assert (ran.span("broke").status, ran.span("broke").status_message) == ("error", "no luck")
    assert run_of.trajectory.total_reward == 0.75


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/spans", {}, 400, "the span has no name"),
        ("/spans", {"nmae": "x"}, 400, "unknown field 'nmae'; a span has name, span_id,"),
        ("/spans", {"name": 3}, 400, "name is 3; expected str"),
        ("/spans/none/end", {}, 404, "no span 'none' was begun in this run"),
        ("/spans", {"name": "x", "events": [3]}, 400, "events is [3]; expected objects"),
        ("/result", {}, 400, 'expected {"result": …} or {"error": "…"}'),
        ("/tools", {"arguments": 3}, 400, 'expected {"name": "…", "arguments": …}'),
        ("/tools", {"name": "x", "call_id": 3}, 400, 'expected {"name": "…", "arguments": …}'),
    ],
)
async def test_a_report_that_says_nothing_is_refused(path, body, status, message):
    def agent(told: Told) -> Any:
        talk(told)
        return post(told, path, body)

    answer = (await serve(agent, lambda request: say("x"))).result
    assert answer.status_code == status
    assert answer.json()["error"]["message"].startswith(message)


async def test_a_reward_of_no_number_is_refused_and_makes_the_run_fail():
    def agent(told: Told) -> Any:
        talk(told)
        assert post(told, "/spans", {"reward": "high"}).status_code == 400

    ran = await serve(agent, lambda request: say("x"))
    assert (ran.end.origin, ran.end.error) == (
        "reward", "InvalidValue: emit_reward: the reward is 'high' of type str; expected a number"
    )  # fmt: skip

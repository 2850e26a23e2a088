"""Agents that a command runs: what they are told, what they give back, how they end."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import sys
import time
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from http_support import drive
from ran import Ran

import raybolt
from raybolt.adapters.check.scripted import say
from raybolt.adapters.check.server import ModelServer
from raybolt.adapters.command.agents import read_result
from raybolt.env.limits import RunLimits
from raybolt.env.policy import RunEnd
from raybolt.env.recorder import SpanRecorder
from raybolt.env.run import AgentRun
from raybolt.store import names
from raybolt.store.errors import InvalidValue

# What every script does first: one LLM call with nothing but the standard library.
CALL = """
import json, os, sys, time, urllib.request
def ask(text, role=None, url=None):
    headers = {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "Content-Type": "application/json"}
    if role: headers["X-Raybolt-Role"] = role
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode()
    url = (url or os.environ["OPENAI_BASE_URL"]) + "/chat/completions"
    with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
        return json.load(answer)["choices"][0]["message"]["content"]
"""


def script(code: str, **options: Any) -> raybolt.WrappedAgent:
    """A wrapped command: this Python with `code`, after `CALL`."""
    of_command = {name: options.pop(name) for name in ("result", "env", "cwd") if name in options}
    return raybolt.wrap(raybolt.command([sys.executable, "-c", CALL + code], **of_command), **options)


async def run(agent: raybolt.WrappedAgent, given: Any = "hi", **task: Any) -> Ran:
    return await drive(
        new_run(agent, given, **task), lambda request: say(f"to {request.messages[-1].content}")
    )


def new_run(
    agent: raybolt.WrappedAgent, given: Any = "hi", *, rollout_id: str = "ro-1", **task: Any
) -> AgentRun:
    return AgentRun(
        agent.program(), raybolt.Task("t-1", given, **task), recorder=SpanRecorder(rollout_id, "at-1"),
        limits=agent.limits, reward=agent.reward, trainable=agent.trainable, require_reward=False,
    )  # fmt: skip


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def gone(*pids: int) -> bool:
    """Whether the processes are gone, if need be in a moment: a kill is no function call."""
    for _ in range(50):
        if not any(map(alive, pids)):
            return True
        await asyncio.sleep(0.02)
    return False


async def test_a_command_gets_the_task_and_its_result_is_its_last_line():
    agent = script("""
given = json.load(sys.stdin)
print("thinking ...")
print(json.dumps({"said": ask(given["q"]), "task": json.loads(os.environ["RAYBOLT_TASK"])}))
""")
    ran = await run(agent, {"q": "hi"}, reference="secret", metadata={"level": 3})
    assert ran.result == {
        "said": "to hi", "task": {"task_id": "t-1", "input": {"q": "hi"}, "metadata": {"level": 3}},
    }  # fmt: skip
    assert ran.requests[0].role == "agent"


@pytest.mark.parametrize(
    ("output", "result"),
    [
        ("a\nb\n", "a\nb"),
        ('working\n{"a": 1}\n\n', {"a": 1}),
        ("0.5", 0.5),
        ("", ""),
        ('{"a": 1}\ndone', '{"a": 1}\ndone'),
    ],
)
def test_a_last_line_of_json_is_the_result_and_other_text_is_as_it_is(output, result):
    assert read_result(output) == result


async def test_the_users_own_reader_variables_folder_input_and_name_count(tmp_path):
    agent = script(
        "ask('x'); print(os.environ['MODE'], os.getcwd(), sys.stdin.read(), os.environ['OPENAI_BASE_URL'])",
        env={"MODE": "quick"},
        cwd=tmp_path,
        result=str.split,
        inputs=lambda task: [task.task_id],
        name="my writer",
    )
    mode, folder, given, url = (await run(agent)).result
    assert (mode, folder, given) == ("quick", str(tmp_path), '["t-1"]')
    assert url.endswith("/rollout/ro-1/attempt/at-1/agent/my%20writer/v1")


async def test_a_printed_number_is_the_reward():
    run_of = new_run(script("ask('x'); print(0.25)"))
    await drive(run_of, lambda request: say("y"))
    assert run_of.trajectory.total_reward == 0.25


async def test_telemetry_is_off_in_the_command_unless_the_user_turned_it_on(monkeypatch):
    code = (
        "ask('x'); print(os.environ['CREWAI_DISABLE_TELEMETRY'], os.environ['OPENAI_AGENTS_DISABLE_TRACING'])"
    )
    assert (await run(script(code))).result == "true 1"
    monkeypatch.setenv("OPENAI_AGENTS_DISABLE_TRACING", "0")
    assert (await run(script(code, env={"CREWAI_DISABLE_TELEMETRY": "false"}))).result == "false 0"


async def test_a_command_that_fails_is_a_failed_run_with_what_it_said():
    ran = await run(script("ask('x'); print('half'); sys.exit('no such page')"))
    assert ran.end.origin == "agent"
    assert ran.end.error_type == "CommandFailed"
    assert ran.end.error is not None
    assert "exited with status 1; its standard error ends:\nno such page" in ran.end.error


async def test_a_command_ended_by_a_signal_says_which():
    ran = await run(script("ask('x'); os.kill(os.getpid(), 9)"))
    assert "was ended by signal 9; it wrote nothing to standard error" in str(ran.end.error)


async def test_a_command_that_is_not_there_is_a_failed_run():
    ran = await run(raybolt.wrap(raybolt.command(["no-such-program-7"])))
    assert ran.end.origin == "agent"
    assert "no-such-program-7 cannot be started: [Errno 2]" in str(ran.end.error)


@pytest.mark.parametrize("ends", ["time", "abort", "calls"])
async def test_the_end_of_a_run_ends_the_whole_process_group(ends, tmp_path):
    pids = tmp_path / "pids"
    child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    agent = script(
        f"""
import signal, subprocess
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", {child!r}])
open({str(pids)!r}, "w").write(f"{{os.getpid()}} {{child.pid}}")
ask("one")
import contextlib
with contextlib.suppress(Exception): ask("two")  # an agent that goes on whatever it is told
time.sleep(60)
""",
        limits=RunLimits(max_calls=1 if ends == "calls" else 9, max_seconds=2 if ends == "time" else 60),
    )
    run_of = new_run(agent)
    answered = 0
    while not isinstance(pending := await run_of.next(), RunEnd):
        if ends == "abort" and answered == 1:
            begun = time.monotonic()
            pending = await run_of.abort("enough")
            break
        for each in pending:
            run_of.answer(each.call_id, say("x"))
            begun, answered = time.monotonic(), answered + 1
    assert pending.origin == {"time": "limit", "abort": "raybolt", "calls": "limit"}[ends]
    assert time.monotonic() - begun < (4 if ends == "time" else 2)
    assert await gone(*map(int, pids.read_text().split()))


async def test_a_child_that_outlives_its_command_is_ended_and_holds_nothing_up(tmp_path):
    agent = script("""
import subprocess
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
ask("x")
print(child.pid)
""")
    begun = time.monotonic()
    pid = (await run(agent)).result
    assert time.monotonic() - begun < 20
    assert await gone(pid)


async def test_roles_go_to_the_policy_or_to_the_users_own_server():
    agent = script(
        "print(ask('draft', 'writer') + ', ' + ask('judge', 'critic'))",
        trainable=["writer"],
        frozen=None,
    )
    with ModelServer().serving() as server:
        frozen = raybolt.Upstream(server.url, "its-key")
        agent = raybolt.wrap(agent.agent, trainable=["writer"], frozen=frozen)
        ran = await run(agent)
    assert ran.result == "to draft, own reply 1"
    assert [request.role for request in ran.requests] == ["writer"]
    assert ran.span("chat critic").attributes[names.TRAINABLE] is False


async def test_a_frozen_llm_that_is_no_server_is_a_mistake():
    ran = await run(raybolt.wrap(raybolt.command(["true"]), trainable=["writer"], frozen="gpt-5"))
    assert "frozen=raybolt.Upstream(base_url, api_key=…)" in str(ran.end.error)


async def test_two_runs_of_the_same_ids_are_refused_rather_than_mixed_up():
    agent = script("ask('x'); time.sleep(1)")
    ends = await asyncio.gather(run(agent), run(agent))
    errors = [str(ran.end.error) for ran in ends if ran.end.failed]
    assert len(errors) == 1
    assert "rollout 'ro-1', attempt 'at-1' is being served already" in errors[0]


async def test_many_commands_at_once_are_never_mixed_up():
    agent = script("q = json.load(sys.stdin); print(json.dumps([ask(f'{q} {turn}') for turn in range(2)]))")
    every = await asyncio.gather(*(run(agent, number, rollout_id=f"ro-{number}") for number in range(8)))
    assert [ran.result for ran in every] == [[f"to {n} 0", f"to {n} 1"] for n in range(8)]


def test_a_wrapped_command_travels_to_other_processes():
    agent = script("ask('x')", result=lambda output: output.upper(), env={"A": "b"})
    again = pickle.loads(cloudpickle.dumps(agent))
    assert again.agent.arguments == agent.agent.arguments
    assert again.agent.result("x") == "X"


def test_a_command_runs_without_a_run_on_its_own_llm(monkeypatch):
    with ModelServer().serving() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "mine")
        assert script("print(ask('x'))").run(raybolt.Task("t", "hi")) == "own reply 1"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: raybolt.command("node agent.js"), r'expected a list of texts, such as \["node", "agent'),
        (lambda: raybolt.command([]), r"command\(\[\]\): expected a list of texts"),
        (lambda: raybolt.command(["a"], result="json"), r"command\(result='json'\): expected a function"),
        (lambda: raybolt.command(["a"], host="0.0.0.0"), r"say by which name agents reach it"),
        (lambda: raybolt.external(ports=[]), r"external\(ports=\[\]\): expected port numbers"),
        (lambda: raybolt.external(token=""), r"expected a secret"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(make, message):
    with pytest.raises(InvalidValue, match=message):
        make()


def test_something_else_is_no_command():
    with pytest.raises(raybolt.UnsupportedAgent, match=r"is no command; pass raybolt\.command"):
        raybolt.wrap(len, framework="command")


def test_the_environment_is_this_processs(monkeypatch):
    assert "RAYBOLT_RUN_URL" not in os.environ
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("NO_PROXY", "internal")
    from raybolt.adapters.command.environment import HOOK, agent_environment

    told = {"base_url": "http://10.0.0.1:7/v1", "api_key": "k", "run_url": "http://10.0.0.1:7", "task": {}}
    env = agent_environment(told, "agent", {"EXTRA": "1"})
    assert env["PYTHONPATH"] == f"{HOOK}{os.pathsep}/somewhere"
    assert env["NO_PROXY"] == "10.0.0.1,internal"
    assert json.loads(env["RAYBOLT_TASK"]) == {}
    assert env["EXTRA"] == "1"

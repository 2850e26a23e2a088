"""`raybolt run`: an unchanged script, traced with its own LLM or answered by a model."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from raybolt.adapters.check.server import ModelServer
from raybolt.runs import _agent
from raybolt.settings import load_settings
from raybolt.store import names
from raybolt.store.errors import InvalidValue
from raybolt.store.local import LocalStore
from raybolt.store.types import Rollout, Span

RAYBOLT = Path(sys.executable).with_name("raybolt")
SCRIPT = """
import sys
from openai import OpenAI
options = {"base_url": sys.argv[1], "api_key": "in-the-code"} if len(sys.argv) > 1 else {}
with OpenAI(**options) as client:
    reply = client.chat.completions.create(
        model="gpt-5", messages=[{"role": "user", "content": sys.stdin.read()}], max_tokens=8)
print("said:", reply.choices[0].message.content)
"""
RUN_SYNC = """
import agents
@agents.function_tool
def add(a: int) -> int:
    return a + 1
agents.set_default_openai_api("chat_completions")
print(agents.Runner.run_sync(agents.Agent("writer", tools=[add]), "hi").final_output)
"""


def run(folder: Path, *arguments: str, script: str = SCRIPT, given: str = "hi", **env: str) -> Any:
    """`raybolt run --store store OPTIONS -- python script.py ARGUMENTS`, split at "|"."""
    (folder / "script.py").write_text(script)
    at = arguments.index("|") if "|" in arguments else len(arguments)
    command = [RAYBOLT, "run", "--store", "store", *arguments[:at], "--", sys.executable, "script.py"]
    return subprocess.run(
        [*command, *arguments[at + 1 :]], cwd=folder, input=given, capture_output=True, text=True,
        timeout=120, check=False, env={**os.environ, **env},
    )  # fmt: skip


def stored(folder: Path) -> tuple[Rollout, list[Span]]:
    async def read() -> tuple[Rollout, list[Span]]:
        async with LocalStore(folder / "store") as store:
            (rollout,) = await store.query_rollouts()
            spans = await store.query_spans(rollout.rollout_id)
            return rollout, [span for span in spans if span.attributes.get(names.OPERATION) == names.CHAT]

    return asyncio.run(read())


@pytest.mark.parametrize("aimed", ["by its code", "by the environment"])
def test_a_script_with_its_own_llm_is_traced(tmp_path, aimed):
    with ModelServer().serving() as server:
        if aimed == "by its code":
            done = run(tmp_path, "|", server.url)
        else:
            done = run(tmp_path, OPENAI_BASE_URL=server.url, OPENAI_API_KEY="mine")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "said: own reply 1\n"
    assert server.bodies[0]["messages"] == [{"role": "user", "content": "hi"}]
    header, row, where = done.stderr.splitlines()
    assert header.split() == ["role", "model", "tokens", "in", "out", "seconds", "reply"]
    assert row.split()[:4] == ["agent", "gpt-5", "11", "5"]
    assert row.rstrip().endswith("own reply 1")
    rollout, (span,) = stored(tmp_path)
    assert where == f"rollout {rollout.rollout_id} in store"
    assert rollout.status == "succeeded"
    assert span.attributes[names.OUTPUT_MESSAGES] == [{"role": "assistant", "content": "own reply 1"}]


def test_a_script_that_runs_its_agent_in_a_loop_of_its_own_is_traced(tmp_path):
    with ModelServer().serving() as server:
        done = run(tmp_path, script=RUN_SYNC, OPENAI_BASE_URL=server.url, OPENAI_API_KEY="mine")
    assert done.stdout == "own reply 1\n", done.stderr
    _, (span,) = stored(tmp_path)
    assert span.attributes[names.INPUT_MESSAGES][-1] == {"role": "user", "content": "hi"}


def test_a_model_answers_and_its_tokens_are_kept(tmp_path):
    done = run(
        tmp_path, "--model", "tiny", "--task", '{"question": "how many?"}', "|", "https://llm.invalid/v1"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("said: ")
    rollout, (span,) = stored(tmp_path)
    assert (rollout.status, rollout.input) == ("succeeded", {"question": "how many?"})
    assert json.loads(span.attributes[names.INPUT_MESSAGES][0]["content"]) == {"question": "how many?"}
    assert 0 < len(span.attributes[names.RESPONSE_IDS]) <= 8
    assert len(span.attributes[names.LOGPROBS]) == len(span.attributes[names.RESPONSE_IDS])


def test_a_script_that_fails_is_a_failed_rollout_and_its_status_is_ours(tmp_path):
    done = run(tmp_path, script="import sys; print('half'); sys.exit(3)")
    assert done.returncode == 3
    assert done.stdout == "half\n"
    assert "no LLM call was seen" in done.stderr
    assert "script.py ended with status 3" in done.stderr
    assert stored(tmp_path)[0].status == "failed"


def test_a_command_that_is_not_there_says_so(tmp_path):
    command = [RAYBOLT, "run", "--store", "store", "no-such-program-7", "--its-own-option"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 127
    assert "no-such-program-7 --its-own-option cannot be started" in done.stderr


def test_an_interrupt_ends_the_command_and_keeps_what_was_recorded(tmp_path):
    script = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)"
    (tmp_path / "script.py").write_text(script)
    command = [RAYBOLT, "run", "--store", "store", "--", sys.executable, "script.py"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert stored(tmp_path)[0].status == "failed"


def test_the_agent_of_a_settings_file_may_be_a_command(tmp_path):
    config = tmp_path / "settings.yaml"
    config.write_text("agent: {command: [node, agent.js], env: {MODE: quick}}\ntasks: t.jsonl\n")
    agent = _agent(load_settings(config, {}, {}).agent)
    assert agent.arguments == ("node", "agent.js")
    assert agent.env == {"MODE": "quick"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"comand": ["node"]}, r"unknown key 'comand' in agent \(did you mean 'command'\?\)"),
        ({"env": {}}, r"agent is a table without command; write agent: \{command:"),
        ({"command": "node agent.js"}, r"expected a list of texts"),
    ],
)
def test_a_mistake_in_such_a_command_is_named(given, message):
    with pytest.raises(InvalidValue, match=message):
        _agent(given)


def test_help_names_the_options():
    done = subprocess.run(
        [RAYBOLT, "run", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    missing = [
        name for name in ("--store", "--model", "--task", "--seed", "command") if name not in done.stdout
    ]
    assert missing == []

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from raybolt.cli import app

RAYBOLT = Path(sys.executable).with_name("raybolt")
SAME = ["--agent", "--reward", "--tasks", "--val", "--model", "--out", "--resume", "--config", "--seed"]
RUN = ["--agent", "my_agent:agent", "--tasks", "train.jsonl"]


def run(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command, as a user runs it."""
    return subprocess.run([RAYBOLT, *arguments], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def user_folder(tmp_path):
    """A folder with an agent, its reward and a task file."""
    (tmp_path / "my_agent.py").write_text(
        "def agent(task):\n    return 1.0\n\ndef score(*args):\n    return 1.0\n"
    )
    (tmp_path / "train.jsonl").write_text(json.dumps({"task_id": "a", "input": "2+2"}) + "\n")
    return tmp_path


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ((), ["demo", "train", "eval", "bench", "tiny", "--debug", "--version"]),
        (("demo",), ["--seed", "--report", "--control", "--out", "--short"]),
        (("train",), [*SAME, "--algorithm", "--iterations", "--lr", "--teacher"]),
        (("eval",), [*SAME, "--report", "--temperature"]),
        (("bench",), ["--suite", "--data", "--model", "--algorithm", "--limit", "--seed", "--report"]),
        (("tiny",), ["make"]),
        (("tiny", "make"), ["--out", "--seed"]),
    ],
)  # fmt: skip
def test_help_names_every_option(command, options):
    result = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 0
    assert [option for option in options if option not in result.output] == []


def test_version_is_the_packages():
    assert CliRunner().invoke(app, ["--version"]).output == "0.1.0\n"


def test_a_mistake_is_one_line_and_status_2(user_folder):
    done = run(
        "train", "--agent", "my_agent:agnet", "--tasks", "train.jsonl", "--out", "run", folder=user_folder
    )
    assert done.returncode == 2
    assert (
        done.stderr
        == "error: agent is 'my_agent:agnet', but my_agent has no 'agnet' (did you mean 'agent'?).\n"
    )
    assert "Traceback" not in done.stdout


def test_debug_shows_where_a_mistake_came_from(user_folder):
    done = run(
        "--debug",
        "train",
        "--agent",
        "my_agent:agnet",
        "--tasks",
        "train.jsonl",
        "--out",
        "r",
        folder=user_folder,
    )
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "agent is missing: give --agent"),
        (["train", *RUN], "out is missing: give --out"),
        (["eval", "--agent", "my_agent:agent"], "tasks is missing: give --tasks"),
        (["eval", *RUN, "--resume"], "give --out as well"),
        (["train", "--agent", "my_agent:agent", "--tasks", "none.jsonl", "--out", "r"], "none.jsonl"),
        (["train", "--agent", "my_agent:agent", "--tasks", "broken.jsonl", "--out", "r"], "broken.jsonl:2"),
        (["train", *RUN, "--out", "r", "--rollouts-per-task", "1"], "rollouts_per_task is 1"),
        (["train", *RUN, "--out", "r", "--reward", "my_agent:scor"], "did you mean 'score'"),
        (["bench", "--data", "no_such_folder"], "no_such_folder"),
    ],
)  # fmt: skip
def test_a_bad_request_says_what_to_do(user_folder, arguments, message):
    (user_folder / "broken.jsonl").write_text('{"task_id": "a", "input": 1}\n{"task_id": "b", "inp\n')
    done = run(*arguments, folder=user_folder)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1

"""`raybolt doctor` on stores that real runs left."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
import view_agents as agents
from recorded_runs import record
from typer.testing import CliRunner

from raybolt.cli import app
from raybolt.env.codec import codec_for

WIDE = {"COLUMNS": "200", "TERM": "dumb"}


async def numbered(task, policy):
    await policy.complete(agents.asking("writer", task.input))
    return task.metadata["number"]


def doctor(*arguments: str):
    return CliRunner().invoke(app, ["doctor", *arguments], env=WIDE)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("healthy")
    asyncio.run(record(folder, numbered, codec_for("tiny")))
    return folder


@pytest.fixture(scope="module")
def failed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("failed")
    asyncio.run(record(folder, agents.fails_late, codec_for("tiny")))
    return folder


def test_a_healthy_store_gets_numbers_and_nothing_wrong(healthy):
    result = doctor(str(healthy))
    assert result.exit_code == 0
    assert "nothing wrong" in result.output
    assert "6 (6 succeeded)" in result.output
    assert "6, of which 6 trainable" in result.output
    assert "2 to compare, in 2 rewards differ" in result.output
    assert "mean 2.500, from 0.000 to 5.000" in result.output


def test_a_broken_one_gets_the_link_the_runs_the_span_and_what_to_do(failed):
    result = doctor(str(failed / "journal.db"))
    assert result.exit_code == 1
    lines = [line.strip() for line in result.output.splitlines()]
    assert "run 6 of 6 runs failed with the same error, because of the agent: RuntimeError: boom" in lines
    (runs,) = [line for line in lines if line.startswith("runs ")]
    assert runs.count("ro-") == 3
    assert runs.endswith("and 3 more")
    assert any(line.startswith("span  invoke_agent scripted (") for line in lines)
    assert any(line.startswith("do    The agent's own code raised") for line in lines)


def test_json_holds_all_of_it(healthy, failed):
    found = json.loads(doctor(str(healthy), "--json").output)
    assert found["findings"] == []
    assert found["numbers"]["groups_with_signal"] == 2
    result = doctor("--json", str(failed))
    assert result.exit_code == 1
    (finding,) = json.loads(result.output)["findings"]
    assert (finding["link"], finding["fatal"], len(finding["rollout_ids"])) == ("run", True, 6)
    assert finding["span"]["rollout_id"] == finding["rollout_ids"][0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no store at"),
        (lambda path: path.mkdir(), "expected a folder with journal.db, or that file"),
        (lambda path: path.write_text("not a database at all, " * 99), "is no journal"),
    ],
)
def test_what_is_no_store_is_one_line_and_status_2(tmp_path, make, message):
    path = tmp_path / "store"
    make(path)
    command = [Path(sys.executable).with_name("raybolt"), "doctor", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

RAYBOLT = Path(sys.executable).with_name("raybolt")
AGENT = '''
import asyncio

async def answer(question):
    """An agent that uses the openai client; it fails on one of its tasks."""
    from openai import AsyncOpenAI
    if question == "fail":
        raise KeyError("no such page")
    async with AsyncOpenAI(api_key="none") as client:
        messages = [{"role": "user", "content": question}]
        reply = await client.chat.completions.create(model="any", messages=messages)
    return reply.choices[0].message.content or ""

def score(task, result, trajectory):
    return float("name" in result)
'''
SETTINGS = """
agent: my_agent:answer
reward: my_agent:score
tasks: train.jsonl
val: val.jsonl
num_runners: 1
algorithm:
  iterations: 1
  tasks_per_iteration: 3
  rollouts_per_task: 4
  max_new_tokens: 16
"""


@pytest.fixture
def project(tmp_path):
    """A user's folder: agent, reward, tasks and settings."""
    (tmp_path / "my_agent.py").write_text(AGENT)
    (tmp_path / "settings.yaml").write_text(SETTINGS)
    write_tasks(tmp_path / "train.jsonl", ["Show the name.", "Show the city.", "Show the year."])
    write_tasks(tmp_path / "val.jsonl", ["Show the name.", "fail"])
    return tmp_path


def write_tasks(path: Path, questions: list[str]) -> None:
    lines = [json.dumps({"task_id": f"t{number}", "input": text}) for number, text in enumerate(questions)]
    path.write_text("\n".join(lines) + "\n")


def run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, in the user's folder, with its settings."""
    command = [RAYBOLT, *arguments, "--config", "settings.yaml", "--out", "run"]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_a_run_is_trained_protected_resumed_and_scored(project):
    first = run(project, "train")
    assert first.returncode == 0, first.stderr
    assert "LightningRL: iteration 1 of 1, reward" in first.stdout
    assert (
        "1 rollouts failed; they are left out of the score:\n  1 x agent: KeyError: 'no such page'"
        in first.stdout
    )

    again = run(project, "train")
    assert again.returncode == 2
    assert again.stderr.endswith("Continue it with resume=True (--resume), or give another folder.\n")

    resumed = run(project, "train", "--resume", "--iterations", "2")
    assert resumed.returncode == 0, resumed.stderr
    assert "LightningRL: iteration 2 of 2, reward" in resumed.stdout
    progress = (project / "run" / "log" / "progress.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in progress] == [1, 2]
    assert (project / "run" / "model" / "config.json").is_file()

    scored = run(project, "eval", "--resume", "--report", "score.json")
    assert scored.returncode == 0, scored.stderr
    assert "on 2 tasks of val.jsonl" in scored.stdout
    report = json.loads((project / "score.json").read_text())
    assert (report["num_tasks"], report["num_failed"]) == (2, 1)
    assert report["rewards"]["t1"] is None

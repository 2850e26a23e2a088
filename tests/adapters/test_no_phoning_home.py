"""Imports, wraps, runs and exits of every framework: no address beyond this machine is asked for."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from kits.every import KITS

HERE = Path(__file__).parent
KEYS = ("OPENAI_API_KEY", "LANGSMITH_API_KEY", "ANTHROPIC_API_KEY")


def addresses(framework: str, tmp_path: Path) -> list[str]:
    """What a process that uses the framework with keys at hand wanted to talk to."""
    asked_for = ("TRACING", "TELEMETRY", "OTEL", "LANGSMITH", "LANGCHAIN", "PROXY")
    kept = {
        name: value for name, value in os.environ.items() if not any(a in name.upper() for a in asked_for)
    }
    environment = kept | dict.fromkeys(KEYS, "sk-test") | {"HOME": str(tmp_path), "PYTHONPATH": str(HERE)}
    notes = tmp_path / "notes"
    done = subprocess.run(
        [sys.executable, HERE / "watched_process.py", framework, notes],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return notes.read_text().splitlines()


@pytest.mark.parametrize("framework", KITS)
def test_a_framework_talks_to_nobody_beyond_this_machine(framework, tmp_path):
    if find_spec(KITS[framework][0]) is None:
        pytest.skip(f"{framework} is not installed")
    assert addresses(framework, tmp_path) == []


def test_the_watch_sees_who_talks(tmp_path):
    assert addresses("nosy", tmp_path) == ["socket.getaddrinfo raybolt.example"]

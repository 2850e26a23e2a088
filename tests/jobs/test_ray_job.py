"""`ray job submit -- raybolt train …` against a cluster of its own, started and stopped here."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
AGENT = '''
def answer(question):
    """An agent that uses the openai client."""
    from openai import OpenAI
    with OpenAI(api_key="none") as client:
        messages = [{"role": "user", "content": question}]
        reply = client.chat.completions.create(model="any", messages=messages)
    return float(len(reply.choices[0].message.content or "") < 20)
'''


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """A Ray of its own, without authentication: it finds no other cluster or token, and none finds it.

    `ray start` leaves its address for every later `ray.init()` in RAY_TMPDIR. The folder's name is short
    because it becomes part of a socket's path.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with tempfile.TemporaryDirectory(prefix="rb", ignore_cleanup_errors=True) as folder:
        yield {**kept, "RAY_TMPDIR": folder, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture
def dashboard(environment, tmp_path_factory) -> Iterator[str]:
    """Where a one-node cluster takes jobs. It is stopped by signal, so no other Ray here is touched."""
    gcs, http, agent, client = free_ports(4)
    log = tmp_path_factory.mktemp("ray") / "start.log"
    command: list[str | Path] = [
        BIN / "ray", "start", "--head", "--block", "--num-cpus=4", f"--port={gcs}",
        "--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={http}",
        f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}",
        f"--object-store-memory={256 * 2**20}", "--disable-usage-stats",
    ]  # fmt: skip
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        address = f"http://127.0.0.1:{http}"
        wait_until_jobs_are_taken(address, process, log)
        yield address
    finally:
        process.terminate()  # with --block, its end takes the node's processes along
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def wait_until_jobs_are_taken(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the dashboard answers; fail with the cluster's log if it never does."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(f"{address}/api/jobs/", timeout=5):
            return
        time.sleep(0.5)
    pytest.fail(f"the cluster did not come up:\n{log.read_text()}")


@pytest.mark.slow
def test_a_submitted_job_trains_and_saves_a_model(dashboard, environment, tmp_path):
    project, out = tmp_path / "project", tmp_path / "run"
    project.mkdir()
    (project / "job_agent.py").write_text(AGENT)
    tasks = [{"task_id": str(number), "input": f"Show name {number}."} for number in range(4)]
    (project / "train.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))

    submit = [
        BIN / "ray", "job", "submit", "--address", dashboard, "--working-dir", project, "--",
        BIN / "raybolt", "train", "--agent", "job_agent:answer", "--tasks", "train.jsonl", "--model", "tiny",
        "--iterations", "1", "--tasks-per-iteration", "4", "--rollouts-per-task", "4",
        "--max-new-tokens", "16", "--num-runners", "1", "--out", out,
    ]  # fmt: skip
    done = subprocess.run(
        submit, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=420, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout
    assert (out / "model" / "config.json").is_file()
    progress = (out / "log" / "progress.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in progress] == [1]

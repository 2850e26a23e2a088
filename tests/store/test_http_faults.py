"""The server's process is killed while clients write, and started again over the same folder."""

import asyncio
import signal
import socket
import subprocess
import sys
from pathlib import Path

from store_samples import make_call_span

from raybolt.store import HttpStore, LocalStore

NUM_CLIENTS, NUM_KILLS = 4, 4


def start_server(folder: Path, port: int) -> subprocess.Popen[str]:
    """Runs `raybolt store serve`; returns when it says where."""
    process = subprocess.Popen(
        [sys.executable, "-m", "raybolt.cli", "store", "serve", str(folder), "--port", str(port)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("serving ")
    return process


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port: int = unused.getsockname()[1]
        return port


async def write(url: str, client: int, over: asyncio.Event) -> tuple[str, list[str]]:
    """Adds spans until it is over; returns the rollout's id and those of the spans that were acknowledged."""
    acknowledged: list[str] = []
    async with HttpStore(url) as store:
        started = await store.start_rollout("x", rollout_id=f"r{client}")
        number = 0
        while not over.is_set():
            spans = [make_call_span(started.attempt, number + i) for i in range(5)]
            number += 5
            await store.add_many_spans(spans)
            acknowledged += [span.span_id for span in spans]
    return started.rollout_id, acknowledged


async def test_spans_that_a_killed_server_acknowledged_are_there_once(tmp_path: Path) -> None:
    port = free_port()
    server = await asyncio.to_thread(start_server, tmp_path, port)
    over = asyncio.Event()
    writers = [
        asyncio.create_task(write(f"http://127.0.0.1:{port}", client, over)) for client in range(NUM_CLIENTS)
    ]
    try:
        for _ in range(NUM_KILLS):
            await asyncio.sleep(0.7)
            server.kill()
            server.communicate()
            server = await asyncio.to_thread(start_server, tmp_path, port)
        await asyncio.sleep(0.5)
        over.set()
        written = await asyncio.gather(*writers)
    finally:
        server.send_signal(signal.SIGTERM)
        remaining, _ = server.communicate(timeout=60)
    assert (server.returncode, remaining) == (0, "stopped\n")
    async with LocalStore(tmp_path, keep_in_flight=True) as store:
        for rollout_id, acknowledged in written:
            kept = [span.span_id for span in await store.query_spans(rollout_id)]
            assert len(acknowledged) > 5 * NUM_KILLS
            assert sorted(kept) == sorted(acknowledged)
        rollouts = await store.query_rollouts()
        # The clients lived on, so nothing of theirs was given up.
        assert [rollout.status for rollout in rollouts] == ["running"] * NUM_CLIENTS
        assert (await store.statistics())["spans"] == sum(len(ids) for _, ids in written)


async def test_a_second_server_of_the_same_folder_is_refused(tmp_path: Path) -> None:
    server = await asyncio.to_thread(start_server, tmp_path, free_port())
    try:
        second = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "raybolt.cli", "store", "serve", str(tmp_path), "--port", "0"],
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        server.kill()
        server.communicate()
    assert second.returncode == 2
    assert "in use by another store" in " ".join(second.stderr.split())


async def test_a_server_open_to_the_world_needs_a_token(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "raybolt.cli", "store", "serve", str(tmp_path), "--host", "0.0.0.0"]
    refused = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2
    assert "there are no tokens" in " ".join(refused.stderr.split())

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


async def write(url: str, rollout_id: str, acknowledged: list[str], over: asyncio.Event) -> None:
    """Adds spans until it is over; notes the ids of those that were acknowledged."""
    async with HttpStore(url) as store:
        started = await store.start_rollout("x", rollout_id=rollout_id)
        number = 0
        while not over.is_set():
            spans = [make_call_span(started.attempt, number + i) for i in range(5)]
            number += 5
            await store.add_many_spans(spans)
            acknowledged += [span.span_id for span in spans]


async def all_go_on(acknowledged: dict[str, list[str]], writers: list[asyncio.Task[None]]) -> None:
    """Returns when every client has had something acknowledged since now."""
    before = {rollout_id: len(ids) for rollout_id, ids in acknowledged.items()}
    while any(len(ids) == before[rollout_id] for rollout_id, ids in acknowledged.items()):
        assert not any(writer.done() for writer in writers)
        await asyncio.sleep(0.01)


async def test_spans_that_a_killed_server_acknowledged_are_there_once(tmp_path: Path) -> None:
    port = free_port()
    server = await asyncio.to_thread(start_server, tmp_path, port)
    over = asyncio.Event()
    written: dict[str, list[str]] = {f"r{client}": [] for client in range(NUM_CLIENTS)}
    writers = [
        asyncio.create_task(write(f"http://127.0.0.1:{port}", rollout_id, acknowledged, over))
        for rollout_id, acknowledged in written.items()
    ]
    try:
        for _ in range(NUM_KILLS):
            await all_go_on(written, writers)
            server.kill()
            server.communicate()
            server = await asyncio.to_thread(start_server, tmp_path, port)
        await all_go_on(written, writers)
        over.set()
        await asyncio.gather(*writers)
    finally:
        server.send_signal(signal.SIGTERM)
        remaining, _ = server.communicate(timeout=60)
    assert (server.returncode, remaining) == (0, "stopped\n")
    async with LocalStore(tmp_path, keep_in_flight=True) as store:
        for rollout_id, acknowledged in written.items():
            assert [span.span_id for span in await store.query_spans(rollout_id)] == acknowledged
            assert len(acknowledged) >= 5 * (NUM_KILLS + 1)
        rollouts = await store.query_rollouts()
        # The clients lived on, so nothing of theirs was given up.
        assert [rollout.status for rollout in rollouts] == ["running"] * NUM_CLIENTS
        assert (await store.statistics())["spans"] == sum(map(len, written.values()))


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

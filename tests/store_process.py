"""A store's server in a process of its own, and clients that write to it whatever happens."""

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from store_samples import make_call_span

from raybolt.store import HttpStore, LocalStore, RolloutConfig


def start_server(
    folder: Path, port: int, raybolt: Sequence[str] = ("-m", "raybolt.cli")
) -> subprocess.Popen[str]:
    """Runs `raybolt store serve`; returns when it says where. `raybolt` is how Python starts the program."""
    process = subprocess.Popen(
        [sys.executable, *raybolt, "store", "serve", str(folder), "--port", str(port)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("serving ")
    return process


def stop_server(process: subprocess.Popen[str]) -> None:
    """Ends the server as a service manager does."""
    process.send_signal(signal.SIGTERM)
    remaining, _ = process.communicate(timeout=60)
    assert (process.returncode, remaining) == (0, "stopped\n")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port: int = unused.getsockname()[1]
        return port


async def write(
    url: str,
    rollout_id: str,
    acknowledged: list[str],
    over: asyncio.Event,
    config: RolloutConfig | None = None,
) -> None:
    """Adds spans until it is over; notes the ids of those that were acknowledged."""
    async with HttpStore(url) as store:
        started = await store.start_rollout("x", rollout_id=rollout_id, config=config)
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


async def all_is_there(folder: Path, acknowledged: dict[str, list[str]], *, least: int) -> None:
    """Counts what the folder kept: of each client all that was acknowledged, once, in order, and no more.

    Each had at least so many spans acknowledged, and lived on, so that nothing of it was given up.
    """
    async with LocalStore(folder, keep_in_flight=True) as store:
        for rollout_id, ids in acknowledged.items():
            assert [span.span_id for span in await store.query_spans(rollout_id)] == ids
            assert len(ids) >= least
        running = await store.query_rollouts(status_in=["running"])
        assert sorted(rollout.rollout_id for rollout in running) == sorted(acknowledged)
        assert (await store.statistics())["spans"] == sum(map(len, acknowledged.values()))

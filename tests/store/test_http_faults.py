"""The server's process is killed or stopped while clients write, and started again over the same folder."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from store_process import all_go_on, all_is_there, free_port, start_server, stop_server, write

from raybolt.store import LocalStore

NUM_CLIENTS, NUM_ENDS = 4, 4


def kill(server: subprocess.Popen[str]) -> None:
    server.kill()
    server.communicate()


@pytest.mark.parametrize("end", [kill, stop_server])
async def test_spans_that_a_server_acknowledged_before_its_end_are_there_once(
    tmp_path: Path, end: Callable[[subprocess.Popen[str]], None]
) -> None:
    port = free_port()
    server = await asyncio.to_thread(start_server, tmp_path, port)
    over = asyncio.Event()
    written: dict[str, list[str]] = {f"r{client}": [] for client in range(NUM_CLIENTS)}
    writers = [
        asyncio.create_task(write(f"http://127.0.0.1:{port}", rollout_id, acknowledged, over))
        for rollout_id, acknowledged in written.items()
    ]
    try:
        for _ in range(NUM_ENDS):
            await all_go_on(written, writers)
            await asyncio.to_thread(end, server)
            server = await asyncio.to_thread(start_server, tmp_path, port)
        await all_go_on(written, writers)
        over.set()
        await asyncio.gather(*writers)
    finally:
        stop_server(server)
    await all_is_there(tmp_path, written, least=5 * (NUM_ENDS + 1))
    async with LocalStore(tmp_path, keep_in_flight=True) as store:
        assert len(await store.query_rollouts()) == NUM_CLIENTS


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

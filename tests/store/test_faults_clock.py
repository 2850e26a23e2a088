"""The clock of a server's machine jumps while clients write: nothing ends for it, and nothing is lost."""

import asyncio
import struct
import time
from pathlib import Path

from store_process import all_go_on, all_is_there, free_port, start_server, stop_server, write

from raybolt.store import HttpStore, RolloutConfig

DAY = 86_400.0
NUM_CLIENTS = 4
SILENT = RolloutConfig(unresponsive_seconds=1.0)
BUSY = RolloutConfig(unresponsive_seconds=20.0, timeout_seconds=3600.0)

# All that Python tells of the wall clock is ahead by what a file says, which may change at any time.
SHIFTED = """
import mmap, struct, sys, time
with open({path!r}, "rb") as file:
    shift = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
real = time.time
time.time = lambda: real() + struct.unpack("d", shift)[0]
time.time_ns = lambda: int(time.time() * 1e9)
from raybolt.cli import main
main()
"""


class WallClock:
    """The server's, which can be set."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.write_bytes(struct.pack("d", 0.0))
        self.raybolt = ("-c", SHIFTED.format(path=str(path)))

    def shift(self, seconds: float) -> None:
        with self._path.open("r+b") as file:  # in place, as the server has mapped it
            file.write(struct.pack("d", seconds))


async def ends_by_itself(store: HttpStore, rollout_id: str) -> float:
    """The seconds until a silent rollout was given up."""
    start = time.monotonic()
    (ended,) = await store.wait_for_rollouts([rollout_id], timeout=15.0)
    assert ended.status == "failed"
    return time.monotonic() - start


async def test_a_clock_that_jumps_ends_no_attempt_and_loses_no_span(tmp_path: Path) -> None:
    folder, port, wall = tmp_path / "store", free_port(), WallClock(tmp_path / "shift")
    server = await asyncio.to_thread(start_server, folder, port, wall.raybolt)
    url, over = f"http://127.0.0.1:{port}", asyncio.Event()
    written: dict[str, list[str]] = {f"r{client}": [] for client in range(NUM_CLIENTS)}
    writers = [
        asyncio.create_task(write(url, rollout_id, acknowledged, over, BUSY))
        for rollout_id, acknowledged in written.items()
    ]
    try:
        async with HttpStore(url) as store:
            for jump, shift in enumerate((DAY, -DAY, -400 * DAY, 4000 * DAY)):
                await all_go_on(written, writers)
                await store.start_rollout("x", rollout_id=f"silent-{jump}", config=SILENT)
                wall.shift(shift)
                await all_go_on(written, writers)
                assert 0.5 < await ends_by_itself(store, f"silent-{jump}") < 10.0
            # A server that starts again knows the time by the wall clock alone, set back by eleven years.
            await store.start_rollout("x", rollout_id="silent", config=SILENT)
            server.kill()
            server.communicate()
            wall.shift(-DAY)
            server = await asyncio.to_thread(start_server, folder, port, wall.raybolt)
            assert await ends_by_itself(store, "silent") < 10.0
            await all_go_on(written, writers)
        over.set()
        await asyncio.gather(*writers)
    finally:
        stop_server(server)
    await all_is_there(folder, written, least=5 * 10)

"""HttpStore on several event loops: each has connections of its own, which end with it, or by ``close``."""

import asyncio
import gc
import gzip
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from store_http import served
from store_samples import make_call_span

from raybolt.store import HttpStore, LocalStore, StoreError, StoreServer, blocking, http_line

CLOSED = "is closed; make a new HttpStore"
AWAY = "http://127.0.0.1:1"


@pytest.fixture
def server() -> Iterator[StoreServer]:
    with served() as server:
        yield server


class Silent:
    """A server that hears requests and never answers: it breaks off, or waits until the client goes away."""

    def __init__(self, *, breaks_off: bool = False, reads: bool = True) -> None:
        self.num_heard = self.num_open = 0
        self._breaks_off = breaks_off
        self._reads = reads

    async def __aenter__(self) -> "Silent":
        self._over = asyncio.Event()
        self._server = await asyncio.start_server(self._hear, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        self._server.close()

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_open += 1
        await reader.readline()
        self.num_heard += 1
        if not self._breaks_off:
            await (reader.read() if self._reads else self._over.wait())
        self.num_open -= 1
        writer.close()


@contextmanager
def another_loop() -> Iterator[Callable[[Coroutine[Any, Any, Any]], "Future[Any]"]]:
    """Starts coroutines on a loop in another thread, which ends as ``asyncio.run`` ends its loop."""
    loop = asyncio.new_event_loop()
    over = loop.create_future()

    def work() -> None:
        loop.run_until_complete(over)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield lambda call: asyncio.run_coroutine_threadsafe(call, loop)
    finally:
        loop.call_soon_threadsafe(over.set_result, None)
        thread.join()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_so():
            await asyncio.sleep(0.005)


def run_script(server: StoreServer, code: str, *options: str) -> "subprocess.CompletedProcess[str]":
    """Runs a program that has the server's address, and may count its own sockets."""
    start = (
        "import asyncio, gc, os, sys\n"
        "from raybolt.store import HttpStore, blocking\n"
        "def num_sockets():\n"
        "    paths = [f'/proc/self/fd/{each}' for each in os.listdir('/proc/self/fd')]\n"
        "    return sum(os.readlink(p).startswith('socket:') for p in paths if os.path.lexists(p))\n"
        f"store = HttpStore({server.url!r})\n"
    )
    return subprocess.run(
        [sys.executable, *options, "-c", start + code], capture_output=True, text=True, timeout=120
    )


async def test_callers_on_two_loops_share_a_store_and_no_thread(server: StoreServer) -> None:
    async with HttpStore(server.url) as store:
        await store.enqueue_rollout("x")
        with another_loop() as start:
            threads = threading.active_count()
            await asyncio.wrap_future(start(store.enqueue_rollout("y")))
            assert threading.active_count() == threads
        assert [each.input for each in await store.query_rollouts()] == ["x", "y"]


def test_loops_that_follow_one_another_leave_no_connection_and_no_warning(server: StoreServer) -> None:
    code = """
for _ in range(3):
    asyncio.run(store.enqueue_rollout("x"))
    print(num_sockets(), end=" ")
print(len(asyncio.run(store.query_rollouts())))
"""
    done = run_script(server, code, "-X", "dev")
    assert (done.stdout, done.stderr) == ("0 0 0 3\n", "")


UNCLOSED = {
    "blocking": "blocking(store.statistics())",
    "a loop that was closed only": """
loop = asyncio.new_event_loop()
loop.run_until_complete(store.statistics())
loop.close()
""",
    "a loop that stands": """
loop = asyncio.new_event_loop()
loop.run_until_complete(store.statistics())
""",
    "a loop that was closed only, and another": """
loop = asyncio.new_event_loop()
loop.run_until_complete(store.statistics())
loop.close()
asyncio.run(store.statistics())
gc.collect()
print(num_sockets())
""",
    "a store that is forgotten": """
async def forget():
    global store
    await store.statistics()
    gc.disable()
    del store
    while num_sockets() > 2:  # the loop's own
        await asyncio.sleep(0.01)
asyncio.run(forget())
""",
}


@pytest.mark.parametrize("code", UNCLOSED.values(), ids=UNCLOSED.keys())
def test_a_store_that_nobody_closed_ends_with_the_interpreter_and_says_nothing(
    server: StoreServer, code: str
) -> None:
    done = run_script(server, code)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout in ("", "0\n")


def test_a_fork_leaves_its_parents_connections_alone(server: StoreServer) -> None:
    code = """
from raybolt.store import http_line
http_line._ELSEWHERE_SECONDS = None  # what waits for a loop of the other process, waits for ever
async def main():
    global store
    await store.enqueue_rollout("parent")
    if os.fork() == 0:
        asyncio.run(store.enqueue_rollout("child"))
        blocking(store.close())
        del store
        gc.collect()
        print("child", flush=True)
        os._exit(0)
    os.wait()
    before = num_sockets()
    await store.enqueue_rollout("parent")
    print([each.input for each in await store.query_rollouts()], num_sockets() - before)
    await store.close()
asyncio.run(main())
"""
    done = run_script(server, code)
    assert (done.stdout, done.stderr) == ("child\n['parent', 'child', 'parent'] 0\n", "")


def test_a_fork_of_a_process_that_made_blocking_calls_can_make_some(server: StoreServer) -> None:
    code = """
import faulthandler
blocking(store.enqueue_rollout("parent"))
if os.fork() == 0:
    faulthandler.dump_traceback_later(30, exit=True)
    blocking(store.enqueue_rollout("child"))
    gc.collect()
    print("child", flush=True)
    os._exit(0)
os.wait()
blocking(store.enqueue_rollout("parent"))
print([each.input for each in blocking(store.query_rollouts())])
blocking(store.close())
"""
    done = run_script(server, code)
    assert (done.stdout, done.stderr) == ("child\n['parent', 'child', 'parent']\n", "")


async def test_closing_ends_waiting_calls_on_every_loop() -> None:
    async with Silent() as silent:
        store = HttpStore(silent.url)
        with another_loop() as start:
            waiting = [
                asyncio.create_task(store.statistics()),
                asyncio.wrap_future(start(store.statistics())),
            ]
            await until(lambda: silent.num_heard == 2)
            await store.close()
            for call in waiting:
                with pytest.raises(StoreError, match=CLOSED):
                    await call
            await until(lambda: silent.num_open == 0)
            with pytest.raises(StoreError, match=CLOSED):
                await asyncio.wrap_future(start(store.statistics()))
            await store.close()


async def test_closing_from_another_loop_ends_calls_at_once_and_connections(server: StoreServer) -> None:
    async with Silent() as silent:
        store = HttpStore(silent.url)
        waiting = asyncio.create_task(store.statistics())
        await until(lambda: silent.num_heard == 1)
        with another_loop() as start:
            await asyncio.wrap_future(start(store.close()))
            assert waiting.done()
        with pytest.raises(StoreError, match=CLOSED):
            await waiting
        await until(lambda: silent.num_open == 0)


async def test_closing_ends_calls_that_wait_for_their_server_and_spans_that_wait_for_those(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_line, "_FIRST_PAUSE_SECONDS", 3600.0)
    async with LocalStore() as local, Silent(breaks_off=True) as silent:
        attempt = (await local.start_rollout("x")).attempt
        store = HttpStore(silent.url, retry_seconds=10**6)
        adding = [asyncio.create_task(store.add_span(make_call_span(attempt, 0)))]
        asking = asyncio.create_task(store.enqueue_rollout("x"))
        await until(lambda: silent.num_heard == 1)
        adding += [asyncio.create_task(store.add_span(make_call_span(attempt, i))) for i in (1, 2)]
        await asyncio.sleep(0)
        await store.close()
        async with asyncio.timeout(60):
            for call in (*adding, asking):
                with pytest.raises(StoreError, match=CLOSED):
                    await call


async def test_closing_does_not_wait_for_a_server_that_does_not_read() -> None:
    async with LocalStore() as local, Silent(reads=False) as silent:
        large = make_call_span((await local.start_rollout("x")).attempt, 1)
        large.attributes["ids"] = np.zeros(2**24, np.int32)  # more than the system holds for a connection
        store = HttpStore(silent.url)
        adding = asyncio.create_task(store.add_span(large))
        await until(lambda: silent.num_heard == 1)
        await asyncio.sleep(0.5)  # in which the connection fills; while it does, closing is the easier
        async with asyncio.timeout(60):
            await store.close()
            with pytest.raises(StoreError, match=CLOSED):
                await adding


@pytest.mark.parametrize("compress", [False, True])
async def test_large_spans_arrive_and_the_loop_goes_on_meanwhile(
    server: StoreServer, compress: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack, packed_by = gzip.compress, set()

    def watched_pack(content: bytes, level: int) -> bytes:
        if len(content) > 2**20:
            packed_by.add(threading.current_thread())
        return pack(content, level)

    monkeypatch.setattr(gzip, "compress", watched_pack)
    async with HttpStore(server.url, compress=compress) as store:
        started = await store.start_rollout("x")
        large = make_call_span(started.attempt, 1)
        large.attributes["ids"] = np.arange(2**20, dtype=np.int32)
        adding = asyncio.create_task(store.add_span(large))
        assert await adding is not None
        assert threading.current_thread() not in packed_by
        assert bool(packed_by) is compress
        (found,) = await store.query_spans(started.rollout_id)
        assert np.array_equal(found.attributes["ids"], large.attributes["ids"])


async def test_closing_is_told_from_being_cancelled() -> None:
    async with Silent() as silent:
        store = HttpStore(silent.url)

        async def clean_up() -> None:
            try:
                await store.statistics()
            finally:  # by a task that was cancelled once already
                await store.compact()

        cleaning, cancelled = asyncio.create_task(clean_up()), asyncio.create_task(store.statistics())
        await until(lambda: silent.num_heard == 2)
        cleaning.cancel()
        await until(lambda: silent.num_heard == 3)
        closing = asyncio.create_task(store.close())
        await asyncio.sleep(0)
        cancelled.cancel()
        await closing
        with pytest.raises(StoreError, match=CLOSED):
            await cleaning
        with pytest.raises(asyncio.CancelledError):
            await cancelled


async def test_closing_does_not_wait_for_a_loop_that_is_busy(
    server: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_line, "_ELSEWHERE_SECONDS", 0.05)
    async with Silent() as silent:
        store = HttpStore(silent.url)
        free = threading.Event()
        with another_loop() as start:
            waiting = start(store.statistics())
            await until(lambda: silent.num_heard == 1)

            async def stand_still() -> None:
                free.wait()

            still = start(stand_still())
            await store.close()
            assert not waiting.done()
            free.set()
            await asyncio.wrap_future(still)
            with pytest.raises(StoreError, match=CLOSED):
                await asyncio.wrap_future(waiting)
            await until(lambda: silent.num_open == 0)


def test_a_loop_of_uvloop_is_one_like_others(server: StoreServer) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def use() -> None:
        async with HttpStore(server.url) as store:
            started = await store.start_rollout("x")
            large = make_call_span(started.attempt, 0)
            large.attributes["ids"] = np.arange(2**20, dtype=np.int32)
            await asyncio.gather(*(store.add_span(make_call_span(started.attempt, i)) for i in range(1, 50)))
            await store.add_span(large)
            assert len(await store.query_spans(started.rollout_id)) == 50
            waiting = asyncio.create_task(store.wait_for_rollouts(rollout_ids=[started.rollout_id]))
            await asyncio.sleep(0.05)
        with pytest.raises(StoreError, match=CLOSED):
            await waiting

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(use())


def test_closing_lets_go_of_a_loop_that_stands(server: StoreServer) -> None:
    loop = asyncio.new_event_loop()
    store = HttpStore(server.url)
    waiting = loop.create_task(store.get_changes(timeout=None))
    loop.run_until_complete(store.statistics())
    blocking(store.close())
    for call in (waiting, store.statistics()):
        with pytest.raises(StoreError, match=CLOSED):
            loop.run_until_complete(call)
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def test_spans_of_callers_that_end_with_their_loop_arrive() -> None:
    local = LocalStore()
    started = blocking(local.start_rollout("x"))
    with served(local) as server:
        store = HttpStore(server.url)

        async def add_and_leave() -> None:
            tasks = [
                asyncio.create_task(store.add_span(make_call_span(started.attempt, i))) for i in range(5)
            ]
            while tasks:  # each is cancelled when it is about to send, or waits for those before it
                await asyncio.sleep(0)
                tasks.pop().cancel()

        asyncio.run(add_and_leave())
        asyncio.run(store.close())
    assert len(blocking(local.query_spans(started.rollout_id))) == 5
    blocking(local.close())


def test_a_loop_does_not_wait_long_for_a_server_that_is_away_and_leaves_no_task(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(http_line, "_LAST_SECONDS", 0.2)
    store = HttpStore(AWAY, retry_seconds=3600)
    local = LocalStore()
    attempt = blocking(local.start_rollout("x")).attempt

    async def add_and_leave() -> None:
        asyncio.create_task(store.add_span(make_call_span(attempt, 1)))  # noqa: RUF006  # it is to be lost
        await asyncio.sleep(0.1)

    asyncio.run(add_and_leave())
    gc.collect()
    assert caplog.messages == []
    asyncio.run(store.close())
    blocking(local.close())


def test_capabilities_can_be_looked_at_on_the_loop_of_blocking_calls(server: StoreServer) -> None:
    async def look(store: HttpStore) -> bool:
        return store.capabilities["durable"]

    store = HttpStore(server.url)
    assert blocking(look(store)) is False
    blocking(store.close())

"""One store that several threads and processes come near to."""

import asyncio
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from store_samples import make_span

from raybolt.store import LocalStore, RolloutConfig, StoreError, UnknownGroup, peek
from raybolt.store.waiting import Waiters

SECOND = "from raybolt.store import LocalStore; import sys; LocalStore(sys.argv[1])"


async def test_a_folder_stays_its_stores_though_the_process_reads_its_files(tmp_path: Path) -> None:
    async with LocalStore(tmp_path / "store") as store:
        await store.enqueue_rollout(1)
        shutil.copytree(tmp_path / "store", tmp_path / "copy")  # closes descriptors of the lock file, too
        command = [sys.executable, "-c", SECOND, str(tmp_path / "store")]
        second = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
        assert second.returncode != 0
        assert "is in use by another store" in second.stderr


@pytest.mark.parametrize("folder", [True, False])
async def test_a_forked_process_is_told_whose_the_store_is(tmp_path: Path, folder: bool) -> None:
    async with LocalStore(tmp_path if folder else None) as store:
        await store.enqueue_rollout(1, rollout_id="parents")
        calls = [
            store.enqueue_rollout(2, rollout_id="childs"),
            store.wait_for_rollouts(["parents"], timeout=0),
        ]
        child = os.fork()
        if not child:
            os._exit(_num_refused(calls))
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 2
        for call in calls:
            call.close()
        assert [rollout.rollout_id for rollout in await store.query_rollouts()] == ["parents"]


def _num_refused(calls: list[Any]) -> int:
    """How many calls are refused at once as another process's; they wait for nothing before that."""
    num_refused = 0
    for call in calls:
        try:
            call.send(None)
        except StoreError as error:
            num_refused += "from which this one was forked" in str(error)
        except BaseException:  # the test process's own stack must not go on in this one
            return 99
    return num_refused


async def test_what_closing_could_not_write_is_acknowledged_to_nobody(tmp_path: Path) -> None:
    signal_before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits_before = resource.getrlimit(resource.RLIMIT_FSIZE)
    store = LocalStore(tmp_path)
    try:
        await store.enqueue_rollout(0, rollout_id="before")
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, limits_before[1]))  # as on a disk that is full
        answers = await asyncio.gather(
            store.enqueue_rollout("x" * 20_000, rollout_id="b"),
            store.enqueue_rollout("x" * 20_000, rollout_id="c"),
            store.close(),
            return_exceptions=True,
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits_before)
        signal.signal(signal.SIGXFSZ, signal_before)
    assert [type(answer) for answer in answers] == [StoreError] * 3
    async with LocalStore(tmp_path) as store:
        assert [rollout.rollout_id for rollout in await store.query_rollouts()] == ["before"]


async def test_nothing_can_end_between_looking_whether_it_has_and_waiting_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with LocalStore() as store:
        rollout = await store.enqueue_rollout(1)
        keeper: Any = store._keeper
        add, ended_between = Waiters.add, []

        def end_now(waiters: Waiters, waiter: Any) -> None:
            """Somebody else tries to, just when the waiter is added."""
            thread = threading.Thread(target=lambda: ended_between.append(keeper._lock.acquire(timeout=0.05)))
            thread.start()
            thread.join()
            add(waiters, waiter)

        monkeypatch.setattr(Waiters, "add", end_now)
        assert await store.wait_for_rollouts([rollout.rollout_id], timeout=0) == []
        assert ended_between == [False]


async def test_who_waits_for_a_group_that_is_deleted_is_told() -> None:
    async with LocalStore() as store:
        rollout = await store.enqueue_rollout(1, group_id="g")
        waiting = asyncio.create_task(store.wait_for_groups(["g"]))
        await asyncio.sleep(0)
        await store.update_rollout(rollout.rollout_id, status="cancelled")
        await store.delete_rollouts([rollout.rollout_id])
        with pytest.raises(UnknownGroup):
            await asyncio.wait_for(waiting, 10)


async def test_a_limit_set_later_holds_for_every_attempt() -> None:
    async with LocalStore() as store:
        first = await store.start_rollout(1)
        await store.start_attempt(first.rollout_id)
        await store.update_rollout(first.rollout_id, config=RolloutConfig(timeout_seconds=0.05))
        await asyncio.wait_for(_all_ended(store, first.rollout_id), 10)


async def _all_ended(store: LocalStore, rollout_id: str) -> None:
    while {attempt.status for attempt in await store.query_attempts(rollout_id)} != {"timeout"}:
        await asyncio.sleep(0.02)


async def test_true_is_not_one_and_what_statistics_hand_out_is_the_callers() -> None:
    async with LocalStore() as store:
        first = await store.update_resources("r", {"flag": 1})
        second = await store.update_resources("r", {"flag": True})
        assert (first.version, second.version, second.resources["flag"]) == (1, 2, True)
        (await store.statistics())["lost"]["requeued"].append("x")
        assert (await store.statistics())["lost"]["requeued"] == []


async def test_who_reads_a_folder_for_long_stops_no_writer(tmp_path: Path) -> None:
    async with LocalStore(tmp_path) as store:
        started = await store.start_rollout(1)
        await asyncio.sleep(0.2)  # the first rollout is in the database
        with peek.reading(tmp_path / "journal.db") as snapshot:
            snapshot.execute("SELECT count(*) FROM rollouts").fetchone()
            for number in range(40):  # twice as much as makes a checkpoint
                await store.add_span(make_span(started.attempt, number + 1, text="x" * 2**20))
        assert (await store.statistics())["spans"] == 40


def test_what_is_no_place_for_a_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "journal.lock").mkdir()
    with pytest.raises(StoreError, match=r"cannot be read and written .*another folder"):
        LocalStore(tmp_path)
    (tmp_path / "other" / "journal.db").mkdir(parents=True)
    with pytest.raises(StoreError, match=r"journal\.db cannot be read and written .*another folder"):
        LocalStore(tmp_path / "other")

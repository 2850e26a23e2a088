"""What a folder remembers, and what it says about what it lost."""

import asyncio
import errno
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from store_samples import copy_of_killed, fill_group, make_call_span, make_span, run_one

from raybolt.store import (
    AttemptedRollout,
    EnqueueRolloutRequest,
    LocalStore,
    Rollout,
    RolloutConfig,
    StoreError,
    names,
    read_group,
)
from raybolt.store.tail import Tail

REPOSITORY = Path(__file__).parents[2]


def _lasting(statistics: dict[str, Any]) -> dict[str, Any]:
    """What does not depend on when and how long a store has been open."""
    fleeting = {"uptime", "total_span_bytes", "total_workers", "oldest_queued_seconds", "journal_bytes"}
    return {name: value for name, value in statistics.items() if name not in fleeting}


def _journalled(rollouts: Sequence[Rollout]) -> list[Rollout]:
    """The rollouts less what is kept in memory only: when their attempts were last heard from."""
    return [
        replace(rollout, attempt=replace(rollout.attempt, last_heartbeat_time=None))
        if isinstance(rollout, AttemptedRollout)
        else rollout
        for rollout in rollouts
    ]


async def test_everything_is_there_when_the_folder_is_opened_again(tmp_path: Path) -> None:
    async with LocalStore(tmp_path) as store:
        await fill_group(store, "taken", num_rollouts=1)
        await store.take_groups(1)
        await fill_group(store, "complete", num_rollouts=2, num_spans=2)
        await store.enqueue_many_rollouts(
            [EnqueueRolloutRequest(input=i, metadata={"k": i}) for i in range(2)]
        )
        await store.add_resources({"p": 1}, resources_id="a")
        await store.add_resources({"p": 2}, resources_id="b")
        await store.update_resources("a", {"p": 3})
        rollouts, groups = await store.query_rollouts(), await store.query_groups()
        before = _lasting(await store.statistics())

    async with LocalStore(tmp_path) as store:
        assert _journalled(await store.query_rollouts()) == _journalled(rollouts)
        assert await store.query_groups() == groups
        assert _lasting(await store.statistics()) == before
        latest = await store.get_latest_resources()
        assert latest is not None
        assert (latest.resources_id, latest.version, latest.resources) == ("a", 2, {"p": 3})
        (handle,) = await store.take_groups(5)
        data = read_group(handle)
        assert [len(rollout.spans) for rollout in data.rollouts] == [2, 2]
        assert data.rollouts[1].spans[1].attributes[names.RESPONSE_IDS].tolist() == [8, 9]
        assert [taken.input for taken in await store.dequeue_many_rollouts(9)] == [0, 1]


async def test_opening_a_folder_gives_up_what_was_in_flight_and_says_so(tmp_path: Path) -> None:
    retried = RolloutConfig(max_attempts=2, retry_condition=("unresponsive",))
    async with LocalStore(tmp_path) as store:
        await store.start_rollout("no retry", rollout_id="fails")
        running = await store.start_rollout("retry", rollout_id="returns", config=retried)
        await store.add_span(make_call_span(running.attempt))
        await store.enqueue_rollout("waiting", rollout_id="waits")

    async with LocalStore(tmp_path) as store:
        assert (await store.statistics())["lost"] == {"requeued": ["returns"], "failed": ["fails"]}
        assert {r.rollout_id: r.status for r in await store.query_rollouts()} == {
            "fails": "failed",
            "returns": "requeuing",
            "waits": "queuing",
        }
        (attempt,) = await store.query_attempts("returns")
        assert attempt.status == "unresponsive"
        assert attempt.metadata == {"lost": "in flight when the store was opened"}
        assert len(await store.query_spans("returns")) == 1
        assert [t.rollout_id for t in await store.dequeue_many_rollouts(9)] == ["waits", "returns"]


async def test_a_requeued_rollout_keeps_its_place_behind_those_that_waited(tmp_path: Path) -> None:
    again = RolloutConfig(max_attempts=2, retry_condition=("failed",))
    async with LocalStore(tmp_path) as store:
        await store.enqueue_rollout("a", rollout_id="a", config=again)
        await store.enqueue_rollout("b", rollout_id="b")
        await run_one(store, status="failed")
        await store.update_rollout("b", metadata={"touched": True})
    async with LocalStore(tmp_path) as store:
        await store.enqueue_rollout("c", rollout_id="c")
        assert [t.rollout_id for t in await store.dequeue_many_rollouts(9)] == ["b", "a", "c"]


async def test_spans_pushed_out_of_memory_are_read_from_the_journal(tmp_path: Path) -> None:
    async with LocalStore(tmp_path, cache_bytes=5_000) as store:
        taken = [await store.start_rollout(i) for i in range(6)]
        for one in taken:
            await store.add_many_spans([make_call_span(one.attempt, i) for i in range(3)])
        assert (await store.statistics())["total_span_bytes"] < 10_000
        assert await store.add_span(make_call_span(taken[0].attempt, 1)) is None
        assert await store.add_span(make_call_span(taken[0].attempt, 7)) is not None
        kept = await store.query_spans(taken[0].rollout_id)
        assert [span.sequence_id for span in kept] == [0, 1, 2, 7]


async def test_a_killed_writer_loses_no_acknowledged_span(tmp_path: Path) -> None:
    """The child prints the id of each span after the store has acknowledged it, until it is killed."""
    writer = textwrap.dedent(
        """
        import asyncio, sys
        from raybolt.store import LocalStore
        from store_samples import make_call_span

        async def main():
            store = LocalStore(sys.argv[1])
            started = await store.start_rollout("x", rollout_id="r")
            for number in range(10**9):
                await store.add_many_spans([make_call_span(started.attempt, number)])
                print(number, flush=True)

        asyncio.run(main())
        """
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "tests")}
    with subprocess.Popen(
        [sys.executable, "-c", writer, str(tmp_path)], stdout=subprocess.PIPE, env=environment, cwd=tmp_path
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"0\n"
        time.sleep(0.3)
        child.send_signal(signal.SIGKILL)
        acknowledged = 1 + len(child.stdout.read().split())

    async with LocalStore(tmp_path) as store:
        kept = [span.sequence_id for span in await store.query_spans("r")]
        assert acknowledged > 10
        assert kept in (list(range(acknowledged)), list(range(acknowledged + 1)))
        assert (await store.statistics())["lost"]["failed"] == ["r"]


@pytest.mark.parametrize("damage", ["cut", "garbled"])
@pytest.mark.parametrize(("torn", "per_batch"), [("journal.tail", 5), ("journal.db-wal", 20)])
async def test_what_is_torn_costs_whole_transactions_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: str, per_batch: int, damage: str
) -> None:
    monkeypatch.setattr("raybolt.store.keeper.SETTLE_SECONDS", 3600.0)
    source, copy = tmp_path / "source", tmp_path / "copy"
    store = LocalStore(source)
    started = await store.start_rollout("x", rollout_id="r")
    for number in range(5):
        first = per_batch * number
        await store.add_many_spans([make_call_span(started.attempt, first + i) for i in range(per_batch)])
    copy_of_killed(source, copy)
    await store.close()
    size = (copy / torn).stat().st_size
    if damage == "cut":
        os.truncate(copy / torn, size - 500)
    else:
        with (copy / torn).open("r+b") as file:
            file.seek(size - 500)
            file.write(b"\xff" * 400)

    async with LocalStore(copy) as reopened:
        kept = [span.sequence_id for span in await reopened.query_spans("r")]
        assert kept == list(range(4 * per_batch))
        assert (await reopened.statistics())["spans"] == 4 * per_batch


async def test_a_folder_serves_one_store_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raybolt.store.journal_file.LOCK_WAIT_SECONDS", 0.05)
    async with LocalStore(tmp_path):
        with pytest.raises(StoreError, match=r"is in use by another store.*give another folder"):
            LocalStore(tmp_path)
    await LocalStore(tmp_path).close()


async def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"this is no database, but long enough to look at" * 100)
    with pytest.raises(StoreError, match=r"journal.db is no journal \(file is not a database\)"):
        LocalStore(tmp_path)


async def test_a_journal_of_another_format_is_refused(tmp_path: Path) -> None:
    await LocalStore(tmp_path).close()
    connection = sqlite3.connect(tmp_path / "journal.db")
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(StoreError, match="has format 9, not 4; open it with the raybolt that wrote it"):
        LocalStore(tmp_path)


@pytest.mark.parametrize("num_spans", [1, 20])
async def test_after_a_failed_write_the_store_refuses_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_spans: int
) -> None:
    store = LocalStore(tmp_path)
    started = await store.start_rollout("x", rollout_id="r")
    await store.add_span(make_span(started.attempt, 1))
    if num_spans == 1:
        monkeypatch.setattr(Tail, "append", no_room)
    else:
        store._keeper._journal._connection.execute("PRAGMA query_only = ON")  # type: ignore[union-attr]
    refused = [make_span(started.attempt, 2 + i) for i in range(num_spans)]
    for _ in range(2):
        with pytest.raises(StoreError, match=r"cannot be written .*make room, then open the store again"):
            await store.add_many_spans(refused)
    with pytest.raises(StoreError, match="cannot be written"):
        await store.close()
    monkeypatch.undo()
    async with LocalStore(tmp_path) as reopened:
        assert [span.sequence_id for span in await reopened.query_spans("r")] == [1]


def no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    await store.close()
    await store.close()
    with pytest.raises(StoreError, match="is closed; open a new one"):
        await store.enqueue_rollout("x")


async def test_the_log_is_moved_into_the_database_while_the_store_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raybolt.store.journal.CHECKPOINT_BYTES", 10_000)
    async with LocalStore(tmp_path) as store:
        started = await store.start_rollout("x")
        for number in range(0, 100, 20):
            batch = [make_span(started.attempt, number + i, text="x" * 2_000) for i in range(20)]
            await store.add_many_spans(batch)
        deadline = time.monotonic() + 20
        while (tmp_path / "journal.db").stat().st_size < 100_000:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert len(await store.query_spans(started.rollout_id)) == 100


async def test_what_is_due_while_the_disk_is_full_is_left_to_whoever_asks_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("raybolt.store.keeper.PRUNE_SECONDS", 0.01)
    monkeypatch.setattr("raybolt.store.keeper.SETTLE_SECONDS", 3600.0)
    store = LocalStore(tmp_path, cache_bytes=0, retention_seconds=0.2)
    for rollout_id in ("r", "s"):
        started = await store.start_rollout("x", rollout_id=rollout_id)
        await store.add_span(make_span(started.attempt, 1))
    monkeypatch.setattr("raybolt.store.journal.write", no_space)
    await store.update_attempt("r", "latest", "succeeded")  # the tail takes it; it is deleted soon
    with pytest.raises(StoreError, match="make room, then open the store again"):
        await ask_for_ever(store)
    monkeypatch.undo()
    with pytest.raises(StoreError, match="make room"):
        await store.close()
    assert not caplog.records
    async with LocalStore(tmp_path) as reopened:
        assert [rollout.status for rollout in await reopened.query_rollouts()] == ["succeeded", "failed"]


async def ask_for_ever(store: LocalStore) -> None:
    while True:
        await store.query_rollouts()
        await asyncio.sleep(0.01)


def no_space(*_: object) -> None:
    raise sqlite3.OperationalError("database or disk is full")

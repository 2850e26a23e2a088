"""A disk that fills up: with a reserve spans are refused in time, without one the store stops cleanly."""

import asyncio
import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path
from uuid import uuid4

import pytest
from small_disk import enlarge
from store_samples import make_span

from raybolt.store import (
    InvalidValue,
    LightningStore,
    LocalStore,
    RayStore,
    StoreError,
    StoreFull,
    read_group,
)
from raybolt.store.room import Room

RESERVE_BYTES = 40 * 2**20  # more than the log that is moved into the database file at once
TESTS = Path(__file__).parents[1]


async def add_until_refused(store: LightningStore, rollout_id: str) -> tuple[list[int], StoreError]:
    """Adds spans of 100 kB one after another; returns the acknowledged ones' numbers, and the refusal."""
    (attempt,) = await store.query_attempts(rollout_id)
    acknowledged: list[int] = []
    for number in range(1_000):
        try:
            await store.add_many_spans([make_span(attempt, number, text="x" * 100_000)])
        except StoreError as error:
            return acknowledged, error
        acknowledged.append(number)
    raise AssertionError("the disk was never full")


async def numbers_of(store: LightningStore, rollout_id: str) -> list[int]:
    return [span.sequence_id for span in await store.query_spans(rollout_id)]


async def test_a_disk_below_its_reserve_takes_ends_but_no_spans_until_there_is_room(small_disk: Path) -> None:
    async with LocalStore(small_disk / "store", reserve_bytes=RESERVE_BYTES) as store:
        await store.declare_group("g", 1)
        await store.enqueue_rollout("x", rollout_id="r", group_id="g")
        taken = await store.dequeue_rollout()
        assert taken is not None
        acknowledged, refusal = await add_until_refused(store, "r")
        assert isinstance(refusal, StoreFull)
        assert "bytes free" in str(refusal)
        assert len(acknowledged) > 10
        assert await numbers_of(store, "r") == acknowledged

        filler = small_disk / "filler"
        filler.write_bytes(b"x" * 2 * 2**20)
        await store.update_attempt("r", taken.attempt.attempt_id, status="succeeded")
        (handle,) = await store.take_groups(1)
        assert [len(data.spans) for data in read_group(handle).rollouts] == [len(acknowledged)]

        with pytest.raises(StoreFull):
            await store.add_span(make_span(taken.attempt, 5_000))
        filler.unlink()
        assert await store.delete_rollouts(["r"]) == 1
        await store.compact()
        again = await store.start_rollout("y", rollout_id="s")
        assert await store.add_span(make_span(again.attempt, 1)) is not None
    async with LocalStore(small_disk / "store", reserve_bytes=0) as store:
        assert await numbers_of(store, "s") == [1]


async def test_a_full_disk_without_reserve_stops_the_store_and_loses_nothing_acknowledged(
    small_disk: Path,
) -> None:
    store = LocalStore(small_disk / "store", reserve_bytes=0)
    await store.start_rollout("x", rollout_id="r")
    acknowledged, _ = await add_until_refused(store, "r")
    assert len(acknowledged) > 10
    queued: list[str] = []

    async def enqueue_for_ever() -> None:
        while True:
            queued.append((await store.enqueue_rollout("x" * 100_000)).rollout_id)

    with pytest.raises(StoreError, match=r"cannot be written \(.*full.*make room, then open the store again"):
        await enqueue_for_ever()
    with pytest.raises(StoreError, match="make room, then open the store again"):
        await store.update_attempt("r", "latest", status="succeeded")
    with pytest.raises(StoreError, match="make room"):
        await store.close()
    enlarge(small_disk)
    async with LocalStore(small_disk / "store", keep_in_flight=True, reserve_bytes=0) as reopened:
        assert await numbers_of(reopened, "r") == acknowledged
        statistics = await reopened.statistics()
        assert (statistics["spans"], statistics["total_rollouts"]) == (len(acknowledged), 1 + len(queued))
        (attempt,) = await reopened.query_attempts("r")
        assert attempt.status == "running"
        assert await reopened.add_span(make_span(attempt, 5_000)) is not None


async def test_a_file_that_may_not_grow_stops_the_store_and_loses_nothing_acknowledged(
    tmp_path: Path,
) -> None:
    """As with a quota, which says nothing beforehand: the child prints what was acknowledged."""
    writer = textwrap.dedent(
        """
        import asyncio, sys
        from raybolt.store import LocalStore, StoreError
        from store_samples import make_span

        async def main():
            store = LocalStore(sys.argv[1])
            started = await store.start_rollout("x", rollout_id="r")
            for number in range(10_000):
                try:
                    await store.add_span(make_span(started.attempt, number, text="x" * 10_000))
                except StoreError as error:
                    sys.exit(str(error))
                print(number, flush=True)

        asyncio.run(main())
        """
    )

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 * 2**20, 2 * 2**20))

    child = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", writer, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        preexec_fn=limit,
    )
    assert child.returncode == 1
    assert "cannot be written" in child.stderr
    assert "make room, then open the store again" in child.stderr
    acknowledged = [int(line) for line in child.stdout.split()]
    assert len(acknowledged) > 10
    async with LocalStore(tmp_path, keep_in_flight=True) as store:
        assert await numbers_of(store, "r") == acknowledged


async def test_shards_on_a_full_disk_refuse_stop_and_can_be_opened_again(
    small_disk: Path, ray_session: None
) -> None:
    name = f"full-{uuid4().hex}"
    store = RayStore.create(small_disk / "store", name=name, num_shards=2, reserve_bytes=RESERVE_BYTES)
    await store.start_rollout("x", rollout_id="r")
    acknowledged, refusal = await add_until_refused(store, "r")
    assert isinstance(refusal, StoreFull)
    queued: list[str] = []

    async def enqueue_for_ever() -> None:
        while True:
            queued.append((await store.enqueue_rollout("x" * 200_000)).rollout_id)

    with pytest.raises(StoreError, match=r"cannot be written \(.*full"):
        await enqueue_for_ever()
    with pytest.raises(StoreError, match="make room, then open the store again"):
        await store.destroy()
    enlarge(small_disk)
    again = RayStore.create(small_disk / "store", name=name)
    assert await numbers_of(again, "r") == acknowledged
    assert {each.rollout_id for each in await again.query_rollouts()} == {"r", *queued}
    await again.destroy()


def test_spans_may_fill_the_disk_down_to_the_reserve(tmp_path: Path) -> None:
    room = Room(tmp_path, 900, free_bytes=lambda folder: 1_000)
    room.check(100)
    with pytest.raises(StoreFull, match=r"has 1000 bytes free, too few for 101 more and the reserve of 900"):
        room.check(101)


async def test_a_store_under_its_reserve_refuses_spans_and_nothing_else(tmp_path: Path) -> None:
    async with LocalStore(tmp_path, reserve_bytes=2**60) as store:
        await store.enqueue_rollout("x", rollout_id="r")
        taken = await store.dequeue_rollout()
        assert taken is not None
        with pytest.raises(StoreFull):
            await store.add_span(make_span(taken.attempt, 1))
        assert await store.query_spans("r") == []
        assert (await store.update_attempt("r", "latest", status="failed")).status == "failed"
    async with LocalStore(tmp_path) as store:
        assert (await store.statistics())["spans"] == 0
        assert await store.add_span(make_span(taken.attempt, 1)) is not None


def test_a_negative_reserve_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="reserve_bytes is -1; give 0 or more"):
        LocalStore(tmp_path, reserve_bytes=-1)

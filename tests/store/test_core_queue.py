"""Who waits, and since when: positions that hold across shards and over openings."""

import sqlite3
from pathlib import Path

from store_sharded import ShardedStore

from raybolt.store import LocalStore
from raybolt.store.queue import RolloutQueue

NOW = 1_790_000_000.25


def test_a_position_is_the_nanosecond_of_queuing_and_no_two_are_the_same() -> None:
    queue = RolloutQueue()
    positions = [queue.push("a", NOW), queue.push("b", NOW), queue.push("c", NOW - 60)]
    assert positions == [1_790_000_000_250_000_000 + index for index in range(3)]
    assert queue.push("d", NOW + 1) == 1_790_000_001_250_000_000
    assert queue.push("a", NOW + 2) == positions[0]
    assert (queue.first(2), len(queue), queue.since()) == (["a", "b"], 4, NOW)
    queue.remove("a")
    assert queue.waiting(9) == [(positions[1], "b"), (positions[2], "c"), (1_790_000_001_250_000_000, "d")]
    assert RolloutQueue().since() is None


def test_moments_that_floats_can_tell_apart_are_different_positions_and_come_back_exactly() -> None:
    queue = RolloutQueue()
    times = [NOW + index * 2.0**-22 for index in range(100)]
    for index, time in enumerate(times):
        queue.push(str(index), time)
        assert queue.since() == time
        queue.remove(str(index))


def test_positions_that_an_older_journal_counted_from_0_keep_their_order() -> None:
    queue = RolloutQueue()
    queue.restore([(7, "requeued", NOW), (3, "first", NOW + 5), (8, "last", NOW + 9)])
    assert queue.first(9) == ["first", "requeued", "last"]
    assert queue.since() == NOW + 5
    assert queue.push("new", NOW + 10) == 1_790_000_010_250_000_000


async def test_requeued_rollouts_stand_where_they_were_requeued_on_all_shards_also_after_reopening(
    tmp_path: Path,
) -> None:
    ids = [f"a{index}" for index in range(12)]
    requeued = ["a5", "a0", "a4", "a2", "a1", "a3"]
    async with ShardedStore(3, tmp_path) as store:
        for rollout_id in ids:
            await store.enqueue_rollout("x", rollout_id=rollout_id)
        assert [taken.rollout_id for taken in await store.dequeue_many_rollouts(6)] == ids[:6]
        for rollout_id in requeued:
            await store.update_rollout(rollout_id, status="requeuing")
    for folder in tmp_path.iterdir():  # every shard has some of either kind
        with sqlite3.connect(folder / "journal.db") as journal:
            kinds = journal.execute("SELECT DISTINCT status FROM rollouts ORDER BY 1").fetchall()
        journal.close()
        assert kinds == [("queuing",), ("requeuing",)]
    async with ShardedStore(3, tmp_path) as store:
        await store.enqueue_rollout("x", rollout_id="new")
        taken = await store.dequeue_many_rollouts(13)
        assert [each.rollout_id for each in taken] == [*ids[6:], *requeued, "new"]


async def test_what_opening_gives_up_waits_behind_what_waited_before(tmp_path: Path) -> None:
    async with LocalStore(tmp_path) as store:
        for rollout_id in ("a", "b", "c"):
            await store.enqueue_rollout("x", rollout_id=rollout_id)
        await store.dequeue_many_rollouts(2)
        await store.update_rollout("b", status="requeuing")
    async with LocalStore(tmp_path) as store:
        taken = await store.dequeue_many_rollouts(9)
        assert [each.rollout_id for each in taken] == ["c", "b"]

"""What a store holds in memory: no trace of what was deleted, and no endless feed."""

import asyncio

import pytest
from store_samples import fill_group

from raybolt.store import InvalidValue, LocalStore, feed


async def test_deleted_groups_leave_nothing_behind_however_often_they_were_taken() -> None:
    async with LocalStore() as store:
        book = store._keeper._core.groups
        for number in range(3):
            await fill_group(store, f"g{number}", num_rollouts=1)
        await store.take_groups(2, lease_seconds=0.001)
        while [group.status for group in await store.query_groups()] != ["complete"] * 3:
            await asyncio.sleep(0.01)  # until the store's clock has looked
        handles = await store.take_groups(3, lease_seconds=1000)
        await store.acknowledge_groups(handles)
        assert len(book._taken_by) == 2
        members = [rollout.rollout_id for rollout in await store.query_rollouts()]
        await store.delete_rollouts(members[:2])
        assert [list(taken) for taken in book._taken_by.values()] == [["g2"]]
        await store.delete_rollouts(members[2:])
        assert (book._taken_by, book._entries, list(book._complete)) == ({}, {}, [])


async def test_a_feed_without_a_journal_holds_so_many_changes_and_refuses_older_cursors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feed, "MOST_CHANGES", 4)
    async with LocalStore() as store:
        for number in range(6):
            await store.enqueue_rollout(number)
        kept = await store.get_changes("2")
        assert [change.cursor for change in kept] == ["3", "4", "5", "6"]
        assert [change.cursor for change in await store.get_changes("5")] == ["6"]
        with pytest.raises(InvalidValue, match="cursor is '1', but the feed is kept from '2' on"):
            await store.get_changes("1")
        with pytest.raises(InvalidValue, match="cursor is '0', but"):
            await store.get_changes()

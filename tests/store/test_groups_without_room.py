"""Groups for which there is no room where they are sealed: nobody gets them yet, and nobody loses them."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from store_samples import fill_group
from store_sharded import ShardedStore

from raybolt.store import StoreFull


class SealingRoom:
    """Stands for an object store with room for so many groups."""

    def __init__(self, num_groups: int) -> None:
        self.num_groups = num_groups

    def publish(self, table: Any) -> Any:
        if self.num_groups == 0:
            raise StoreFull("no room for a group")
        self.num_groups -= 1
        return table


@pytest.fixture(params=[1, 3])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[ShardedStore]:
    """Five complete groups: g0 to g4."""
    async with ShardedStore(request.param) as sharded:
        for index in range(5):
            await fill_group(sharded, f"g{index}", num_rollouts=1)
        yield sharded


def limit_room(store: ShardedStore, num_groups: int) -> SealingRoom:
    room = SealingRoom(num_groups)
    for keeper in store._keepers:
        keeper._publish = room.publish
    return room


async def statuses(store: ShardedStore) -> dict[str, str]:
    return {group.group_id: group.status for group in await store.query_groups()}


async def test_as_many_groups_are_handed_out_as_have_room_and_the_others_later(store: ShardedStore) -> None:
    room = limit_room(store, 2)
    first = {handle.group_id for handle in await store.take_groups(5, lease_seconds=600)}
    assert len(first) == 2
    with pytest.raises(StoreFull, match="no room for a group"):
        await store.take_groups(5, lease_seconds=600)
    groups = await store.query_groups()
    assert {group.group_id for group in groups if group.status == "taken"} == first
    assert [group.lease_end for group in groups if group.status == "complete"] == [None] * 3
    room.num_groups = 10
    rest = {handle.group_id for handle in await store.take_groups(5)}
    assert first | rest == {"g0", "g1", "g2", "g3", "g4"}
    assert not first & rest
    assert set((await statuses(store)).values()) == {"taken"}


async def test_no_group_is_taken_by_whom_the_store_refuses(store: ShardedStore) -> None:
    limit_room(store, 0)
    with pytest.raises(StoreFull):
        await store.take_groups(5)
    with pytest.raises(StoreFull):
        await store.get_group("g3")
    assert set((await statuses(store)).values()) == {"complete"}


async def test_a_taking_that_is_asked_for_twice_gets_the_same_groups_though_there_is_more_room_now(
    store: ShardedStore,
) -> None:
    room = limit_room(store, 2)
    taking = {"limit": 5, "group_id_in": None, "claim": "c", "lease_seconds": None}
    keeper = store._keepers[0]
    held = [group.group_id for group in await keeper.ask("groups", {"status_in": None, "group_id_in": None})]
    first = [handle.group_id for handle in await keeper.ask("take_groups", taking)]
    room.num_groups = 10
    again = [handle.group_id for handle in await keeper.ask("take_groups", taking)]
    assert first == again == held[:2]

"""Groups for which there is no room where they are sealed: nobody gets them yet, and nobody loses them."""

from collections.abc import AsyncIterator
from typing import Any
from weakref import WeakSet

import pytest
from store_samples import fill_group
from store_sharded import ShardedStore

from raybolt.store import GroupHandle, StoreFull


class Sealed:
    """Stands for an object in Ray's object store, which goes with the last reference to it."""


class ObjectStore:
    """Has room for so many groups."""

    def __init__(self, num_groups: int) -> None:
        self.num_groups = num_groups
        self.held: WeakSet[Sealed] = WeakSet()

    def put(self, table: Any) -> Sealed:
        if len(self.held) >= self.num_groups:
            raise StoreFull("no room for a group")
        sealed = Sealed()
        self.held.add(sealed)
        return sealed


@pytest.fixture(params=[1, 3])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[ShardedStore]:
    """Five complete groups: g0 to g4."""
    async with ShardedStore(request.param) as sharded:
        for index in range(5):
            await fill_group(sharded, f"g{index}", num_rollouts=1)
        yield sharded


def sealing_into(store: ShardedStore, num_groups: int) -> ObjectStore:
    objects = ObjectStore(num_groups)
    for keeper in store._keepers:
        keeper._sealer._publish = objects.put
    return objects


async def statuses(store: ShardedStore) -> list[str]:
    return [group.status for group in await store.query_groups()]


async def test_as_many_groups_are_handed_out_as_fit_and_the_others_when_those_are_let_go(
    store: ShardedStore,
) -> None:
    objects = sealing_into(store, 3)
    taken: list[str] = []
    handles: list[GroupHandle] = []
    for num_more in (2, 2, 1):
        handles = await store.take_groups(5, lease_seconds=600)
        taken += [handle.group_id for handle in handles]
        assert len(handles) == len(objects.held) == num_more  # one more would fit, to read what was spilled
        if len(taken) < 5:
            with pytest.raises(StoreFull, match="no room for a group"):
                await store.take_groups(5, lease_seconds=600)
        groups = await store.query_groups()
        assert {group.group_id for group in groups if group.status == "taken"} == set(taken)
        assert {group.lease_end for group in groups if group.status == "complete"} <= {None}
        handles.clear()
    assert sorted(taken) == ["g0", "g1", "g2", "g3", "g4"]


async def test_groups_that_just_fit_leave_no_room_to_read_them_so_one_is_kept_back(
    store: ShardedStore,
) -> None:
    objects = sealing_into(store, 5)
    first = await store.take_groups(5)
    assert (len(first), len(objects.held)) == (4, 4)
    objects.num_groups = 6
    assert len(await store.take_groups(5)) == 1


async def test_no_group_is_taken_by_whom_the_store_refuses(store: ShardedStore) -> None:
    objects = sealing_into(store, 1)
    with pytest.raises(StoreFull):
        await store.take_groups(5)
    with pytest.raises(StoreFull):
        await store.get_group("g3")
    assert await statuses(store) == ["complete"] * 5
    objects.num_groups = 2
    assert (await store.get_group("g3")).group_id == "g3"
    assert await statuses(store) == ["complete"] * 5


async def test_a_taking_that_is_asked_for_twice_gets_the_same_groups_though_there_is_more_room_now(
    store: ShardedStore,
) -> None:
    objects = sealing_into(store, 2)
    taking = {"limit": 5, "group_id_in": None, "claim": "c", "lease_seconds": None}
    keeper = store._keepers[0]
    first = [handle.group_id for handle in await keeper.ask("take_groups", taking)]
    objects.num_groups = 10
    again = [handle.group_id for handle in await keeper.ask("take_groups", taking)]
    assert len(first) == 1
    assert again == first


async def test_a_taking_that_is_asked_for_twice_gives_back_what_does_not_fit_any_more(
    store: ShardedStore,
) -> None:
    objects = sealing_into(store, 10)
    taking = {"limit": 5, "group_id_in": None, "claim": "c", "lease_seconds": 600.0}
    numbers = [len(await keeper.ask("take_groups", taking)) for keeper in store._keepers]
    assert sum(numbers) == 5
    keeper = store._keepers[numbers.index(max(numbers))]
    objects.num_groups = 2
    assert len(await keeper.ask("take_groups", taking)) == 1
    assert (await statuses(store)).count("complete") == max(numbers) - 1
    objects.num_groups = 1
    with pytest.raises(StoreFull):
        await keeper.ask("take_groups", taking)
    left = [group for group in await store.query_groups() if group.status == "complete"]
    assert len(left) == max(numbers)
    assert {group.lease_end for group in left} == {None}
    objects.num_groups = 10
    assert len(await store.take_groups(5)) == max(numbers)

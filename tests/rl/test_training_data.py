"""Sharding of groups over learners, and how these come by them."""

from store_samples import fill_group

from raybolt.rl.training_data import GroupRefs, balanced_parts
from raybolt.store import HttpStore, LocalStore, serve


def test_parts_are_balanced_by_size_and_keep_order_within() -> None:
    assert balanced_parts([5, 1, 1, 4, 3], 2) == [[0, 1, 2], [3, 4]]


def test_fewer_items_than_parts_leave_parts_empty() -> None:
    assert balanced_parts([7], 3) == [[0], [], []]


def test_shards_are_made_of_whole_groups() -> None:
    data = GroupRefs(episodes_refs=["a", "b", "c"], num_tokens=[10, 10, 20])

    shards = [shard for shard, _ in data.shard(2)]

    assert [shard.episodes_refs for shard in shards] == [["c"], ["a", "b"]]
    assert [shard.num_tokens for shard in shards] == [[20], [10, 10]]


async def test_groups_on_a_server_are_fetched_in_their_order() -> None:
    async with LocalStore() as local:
        for index in range(3):
            await fill_group(local, f"g/{index}", num_rollouts=1 + index)
        with serve(local, port=0, tokens=["secret"]) as server:
            async with HttpStore(server.url, token="secret") as store:
                data = GroupRefs.of(await store.take_groups(3))
            data.validate()
            data.solve_refs()
    data.validate()
    assert data.episodes_refs is None
    assert [table.num_rows for table in data.episodes or ()] == [1, 2, 3]

"""Sharding of groups over learners."""

from raybolt.rl.training_data import GroupRefs, balanced_parts


def test_parts_are_balanced_by_size_and_keep_order_within() -> None:
    assert balanced_parts([5, 1, 1, 4, 3], 2) == [[0, 1, 2], [3, 4]]


def test_fewer_items_than_parts_leave_parts_empty() -> None:
    assert balanced_parts([7], 3) == [[0], [], []]


def test_shards_are_made_of_whole_groups() -> None:
    data = GroupRefs(episodes_refs=["a", "b", "c"], num_tokens=[10, 10, 20])

    shards = [shard for shard, _ in data.shard(2)]

    assert [shard.episodes_refs for shard in shards] == [["c"], ["a", "b"]]
    assert [shard.num_tokens for shard in shards] == [[20], [10, 10]]

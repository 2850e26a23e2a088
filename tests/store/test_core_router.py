"""Several clients of one store of several shards, each with a router that learns from answers only."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from store_samples import fill_group, make_span
from store_sharded import ShardedStore

from raybolt.store import UnknownRollout
from raybolt.store.router import ShardRouter

IDS = [f"r{index}" for index in range(12)]  # some on each of three shards


@pytest.fixture
async def store() -> AsyncIterator[ShardedStore]:
    async with ShardedStore(3) as store:
        yield store


async def test_another_client_finds_what_it_did_not_make(store: ShardedStore) -> None:
    for rollout_id in IDS:
        await store.start_rollout("x", rollout_id=rollout_id)
    for rollout_id in IDS:
        newcomer = store.another_client()
        (attempt,) = await newcomer.query_attempts(rollout_id)
        assert await newcomer.add_span(make_span(attempt)) is not None
        found = await newcomer.get_rollout_by_id(rollout_id)
        assert found is not None
        assert (found.rollout_id, found.status) == (rollout_id, "running")
    with pytest.raises(UnknownRollout, match="'nobody'"):
        await store.another_client().query_attempts("nobody")


async def test_a_rollout_that_others_deleted_and_made_anew_in_a_group_is_found(store: ShardedStore) -> None:
    other = store.another_client()
    for rollout_id in IDS:
        await store.enqueue_rollout("first", rollout_id=rollout_id)
        await store.update_rollout(rollout_id, status="cancelled")
    await other.delete_rollouts(IDS)
    for rollout_id in IDS:
        await other.enqueue_rollout("second", rollout_id=rollout_id, group_id="g")
        found = await store.get_rollout_by_id(rollout_id)
        assert found is not None
        assert (found.input, found.group_id) == ("second", "g")


async def test_the_resources_of_a_rollout_can_be_changed_whatever_shard_it_is_on(store: ShardedStore) -> None:
    await store.add_resources({"prompt": "p"}, resources_id="rs")
    for rollout_id in IDS:
        await store.enqueue_rollout("x", rollout_id=rollout_id)
        await store.update_rollout(rollout_id, resources_id=None)
        assert (await store.update_rollout(rollout_id, resources_id="rs")).resources_id == "rs"


async def test_what_another_takes_meanwhile_is_made_up_for_by_later_groups(store: ShardedStore) -> None:
    ids = [f"g{index}" for index in range(6)]
    for group_id in ids:
        await fill_group(store, group_id, num_rollouts=1)
    thief = store.another_client()
    stolen: list[str] = []
    quick = asyncio.Lock()

    def robbed(shard: Any) -> Any:
        async def ask(operation: str, arguments: dict[str, Any]) -> Any:
            if operation == "take_groups":
                async with quick:  # than any of the shards
                    if not stolen:
                        stolen.extend(handle.group_id for handle in await thief.take_groups(2))
            return await shard(operation, arguments)

        return ask

    store._router = ShardRouter([robbed(keeper.ask) for keeper in store._keepers])
    taken = [handle.group_id for handle in await store.take_groups(4)]
    assert stolen == ["g0", "g1"]
    assert sorted(taken) == ["g2", "g3", "g4", "g5"]
    assert await store.take_groups(9) == []


async def test_a_worker_is_busy_while_it_is_for_any_shard_and_else_what_it_was_left_as(
    store: ShardedStore,
) -> None:
    async def status(worker_id: str) -> str:
        worker = await store.get_worker_by_id(worker_id)
        assert worker is not None
        return worker.status

    for rollout_id in IDS:
        worker_id = f"w-{rollout_id}"
        await store.start_rollout("x", rollout_id=rollout_id, worker_id=worker_id)
        await store.dequeue_rollout(worker_id)  # in vain, of which the first shard hears
        assert await status(worker_id) == "busy"
        await store.update_attempt(rollout_id, "latest", "timeout")
        assert await status(worker_id) == "unknown"
        await store.dequeue_rollout(worker_id)
        assert await status(worker_id) == "idle"


@pytest.mark.parametrize("limit", [1, 4, 20])
async def test_rollouts_taken_by_a_call_whose_answer_was_lost_are_given_to_its_repetition(
    store: ShardedStore, limit: int
) -> None:
    for rollout_id in IDS:
        await store.enqueue_rollout("x", rollout_id=rollout_id)
    call = {"limit": limit, "worker_id": "w", "claim": "c"}
    first = await store._ask("dequeue", **call)
    again = await store.another_client()._ask("dequeue", **call)
    assert [each.rollout_id for each in first] == IDS[:limit]
    assert [each.attempt.attempt_id for each in again] == [each.attempt.attempt_id for each in first]
    others = await store.dequeue_many_rollouts(20)
    assert [each.rollout_id for each in others] == IDS[limit:]


@pytest.mark.parametrize("limit", [1, 4, 20])
async def test_groups_taken_by_a_call_whose_answer_was_lost_are_given_to_its_repetition(
    store: ShardedStore, limit: int
) -> None:
    ids = [f"g{index}" for index in range(6)]
    for group_id in ids:
        await fill_group(store, group_id, num_rollouts=1)
    call = {"limit": limit, "group_id_in": None, "claim": "c", "lease_seconds": None}
    first = await store._ask("take_groups", **call)
    again = await store.another_client()._ask("take_groups", **call)
    assert [each.group_id for each in first] == ids[:limit]
    assert {(each.group_id, each.claim) for each in again} == {(each.group_id, each.claim) for each in first}
    assert [each.group_id for each in await store.take_groups(20)] == ids[limit:]

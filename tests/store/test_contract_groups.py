"""Groups in the store's contract, over every implementation."""

import asyncio

import pytest
from store_samples import fill_group, run_one

from raybolt.store import (
    EnqueueRolloutRequest,
    InvalidValue,
    LightningStore,
    RolloutConfig,
    names,
    read_group,
)


async def test_a_complete_group_is_handed_out_once_with_its_counts(store: LightningStore) -> None:
    await store.declare_group("g", 3, task_id="t")
    await store.enqueue_many_rollouts(
        [EnqueueRolloutRequest(input=i, group_id="g", task_id="t") for i in range(3)]
    )
    await run_one(store, num_spans=2)
    await run_one(store, status="failed")
    assert await store.take_groups(5) == []
    last = await store.dequeue_rollout()
    assert last is not None
    await store.update_rollout(last.rollout.rollout_id, status="cancelled")
    (handle,) = await store.take_groups(5)
    assert (handle.group_id, handle.task_id) == ("g", "t")
    assert (handle.num_rollouts, handle.num_succeeded, handle.num_spans, handle.num_tokens) == (3, 1, 3, 6)
    assert handle.nbytes > 0
    assert await store.take_groups(5) == []
    (group,) = await store.query_groups(status_in=["taken"])
    assert (group.group_id, group.num_ended, group.num_succeeded) == ("g", 3, 1)


async def test_a_taken_group_holds_rollouts_attempts_and_spans(store: LightningStore) -> None:
    await store.declare_group("g", 2)
    queued = await store.enqueue_rollout({"q": 1}, group_id="g", task_id="t", metadata={"k": [1]})
    await run_one(store, num_spans=2)
    never_run = await store.enqueue_rollout({"q": 2}, group_id="g")
    await store.update_rollout(never_run.rollout_id, status="cancelled")
    (handle,) = await store.take_groups(1)
    group = await asyncio.to_thread(read_group, handle)
    assert (group.group_id, group.task_id) == ("g", "t")
    run, cancelled = group.rollouts
    assert run.rollout == await store.get_rollout_by_id(queued.rollout_id)
    assert run.attempt == await store.get_latest_attempt(queued.rollout_id)
    assert [span.sequence_id for span in run.spans] == [1, 2]
    assert run.spans[0].attributes[names.PROMPT_IDS].tolist() == [5, 6, 7]
    assert run.spans[1].attributes[names.LOGPROBS].tolist() == [-0.5, -0.25]
    assert run.spans[1].attributes[names.WEIGHTS_VERSION] == 4
    assert (cancelled.rollout.status, cancelled.attempt, cancelled.spans) == ("cancelled", None, ())


async def test_groups_are_handed_out_in_order_of_completion_and_by_id(store: LightningStore) -> None:
    for group_id in ("a", "b", "c", "d"):
        await fill_group(store, group_id, num_rollouts=1)
    assert [handle.group_id for handle in await store.take_groups(2, group_id_in=["c", "nobody"])] == ["c"]
    assert [handle.group_id for handle in await store.take_groups(2)] == ["a", "b"]
    assert [handle.group_id for handle in await store.take_groups(2)] == ["d"]
    assert (await store.get_group("a")).num_rollouts == 1


async def test_a_group_may_be_declared_after_its_rollouts_ended(store: LightningStore) -> None:
    await store.enqueue_rollout("x", group_id="g", task_id="t")
    await run_one(store)
    assert await store.take_groups(1) == []
    declared = await store.declare_group("g", 1)
    assert (declared.status, declared.task_id) == ("complete", "t")
    assert len(await store.take_groups(1)) == 1


async def test_a_retried_rollout_keeps_its_group_open_and_gives_its_last_attempt(
    store: LightningStore,
) -> None:
    await store.declare_group("g", 1)
    config = RolloutConfig(max_attempts=2, retry_condition=("failed",))
    await store.enqueue_rollout("x", group_id="g", config=config)
    await run_one(store, status="failed", num_spans=3)
    assert await store.take_groups(1) == []
    second = await run_one(store)
    (handle,) = await store.take_groups(1)
    (data,) = (await asyncio.to_thread(read_group, handle)).rollouts
    assert data.attempt is not None
    assert data.attempt.attempt_id == second.attempt.attempt_id
    assert len(data.spans) == 1


async def test_a_group_refuses_what_contradicts_its_declaration(store: LightningStore) -> None:
    await store.declare_group("g", 1)
    await store.declare_group("g", 1)
    with pytest.raises(InvalidValue, match="num_rollouts of group 'g' is 2, but was declared as 1"):
        await store.declare_group("g", 2)
    with pytest.raises(InvalidValue, match="declared with 1 rollouts and has 0; 2 more do not fit"):
        await store.enqueue_many_rollouts([EnqueueRolloutRequest(input=i, group_id="g") for i in "ab"])
    with pytest.raises(InvalidValue, match="num_rollouts of group 'h' is 0; give 1 or more"):
        await store.declare_group("h", 0)
    assert await store.query_rollouts() == []

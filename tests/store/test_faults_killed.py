"""Processes around a store on Ray are killed; afterwards it is counted what is there."""

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from store_samples import make_call_span

from raybolt.store import LightningStore, LocalStore, RayStore, RolloutConfig, StoreError

pytestmark = pytest.mark.usefixtures("ray_session")

NUM_KILLS = 20


@pytest.fixture
async def two_shards(ray_session: None, tmp_path: Path) -> AsyncIterator[RayStore]:
    ray_store = RayStore.create(tmp_path, name=f"killed-{uuid4().hex}", num_shards=2)
    yield ray_store
    await ray_store.destroy()


@pytest.fixture(params=["folder", "ray"])
async def shared(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LightningStore]:
    if request.param == "folder":
        async with LocalStore(tmp_path) as local_store:
            yield local_store
    else:
        ray_store = RayStore.create(tmp_path, name=f"shared-{uuid4().hex}")
        yield ray_store
        await ray_store.destroy()


def kill_shard(store: RayStore, index: int) -> None:
    """Sends SIGKILL to the process that runs the shard."""
    import ray

    pid = ray.get(store._links[index].actor.__ray_call__.remote(lambda shard: os.getpid()))
    os.kill(pid, signal.SIGKILL)


async def test_a_store_in_memory_says_that_a_killed_shard_took_its_part_along() -> None:
    store = RayStore.create(None, name=f"in-memory-{uuid4().hex}", num_shards=2)
    assert [store._router._shard_of(rollout_id) for rollout_id in ("r2", "r4")] == [1, 0]
    for rollout_id in ("r2", "r4"):
        await store.enqueue_rollout("x", rollout_id=rollout_id)
    for index, kept in ((1, ["r4"]), (0, [])):
        await asyncio.to_thread(kill_shard, store, index)
        with pytest.raises(StoreError, match="a shard of this store has died, and as the store is in memory"):
            await store.query_rollouts()
        with pytest.raises(StoreError, match="destroy it"):
            RayStore.create(None, name=store.name, num_shards=2)
        for rollout_id in kept:  # nobody killed the other shard
            assert await store.get_rollout_by_id(rollout_id) is not None
    with pytest.raises(StoreError, match="has died"):
        await RayStore.connect(store.name).enqueue_rollout("x")
    await RayStore.connect(store.name).destroy()
    again = RayStore.create(None, name=store.name)
    assert await again.query_rollouts() == []
    await again.destroy()


@pytest.mark.slow
async def test_twenty_kills_of_shards_in_mid_write_lose_nothing_acknowledged(
    two_shards: RayStore,
) -> None:
    rollout_ids = ["r2", "r3", "r4", "r5"]
    assert [two_shards._router._shard_of(rollout_id) for rollout_id in rollout_ids] == [1, 1, 0, 0]
    started = [await two_shards.start_rollout("x", rollout_id=rollout_id) for rollout_id in rollout_ids]
    acknowledged: dict[str, list[str]] = {one.rollout_id: [] for one in started}
    over = asyncio.Event()

    async def write(index: int) -> None:
        store = RayStore.connect(two_shards.name)  # as another process would
        attempt, number = started[index].attempt, 0
        while not over.is_set():
            spans = [make_call_span(attempt, number + i) for i in range(5)]
            number += 5
            await store.add_many_spans(spans)
            acknowledged[attempt.rollout_id] += [span.span_id for span in spans]

    writers = [asyncio.create_task(write(index)) for index in range(4)]
    for turn in range(NUM_KILLS):
        mine = rollout_ids[2:] if turn % 2 == 0 else rollout_ids[:2]  # those of the shard to be killed
        before = {rollout_id: len(acknowledged[rollout_id]) for rollout_id in mine}
        while any(len(acknowledged[rollout_id]) == before[rollout_id] for rollout_id in mine):
            assert not any(writer.done() for writer in writers)
            await asyncio.sleep(0.01)
        await asyncio.to_thread(kill_shard, two_shards, turn % 2)
    over.set()
    await asyncio.gather(*writers)

    for rollout_id, span_ids in acknowledged.items():
        assert [span.span_id for span in await two_shards.query_spans(rollout_id)] == span_ids
        assert len(span_ids) >= 5 * NUM_KILLS // 2
    statistics = await two_shards.statistics()
    assert statistics["spans"] == sum(map(len, acknowledged.values()))
    assert statistics["lost"] == {"requeued": [], "failed": []}
    assert {each.status for each in await two_shards.query_rollouts()} == {"running"}


async def test_the_rollout_of_a_killed_runner_is_run_again(two_shards: RayStore) -> None:
    import ray

    @ray.remote(num_cpus=0)
    class Runner:
        async def begin(self, store: RayStore) -> tuple[Any, int]:
            """Takes a rollout and records a call; the rest never comes."""
            (taken,) = await store.dequeue_many_rollouts(1, worker_id="killed")
            await store.add_span(make_call_span(taken.attempt, 1))
            return taken.attempt, os.getpid()

    limits = RolloutConfig(unresponsive_seconds=2.0, max_attempts=2, retry_condition=("unresponsive",))
    await two_shards.enqueue_rollout("x", rollout_id="r", config=limits)
    runner = Runner.remote()  # type: ignore[attr-defined]
    attempt, pid = await runner.begin.remote(two_shards)
    os.kill(pid, signal.SIGKILL)

    async def taken_again() -> Any:
        while (taken := await two_shards.dequeue_rollout("alive")) is None:
            await asyncio.sleep(0.1)
        return taken

    second = await asyncio.wait_for(taken_again(), 60)
    assert (second.rollout_id, second.attempt.sequence_id) == ("r", 2)
    assert await two_shards.add_span(make_call_span(attempt, 2)) is not None  # was under way when it died
    rollout = await two_shards.get_rollout_by_id("r")
    assert rollout is not None
    assert rollout.status == "preparing"  # the second attempt's, whatever the first one does
    await two_shards.add_span(make_call_span(second.attempt, 1))
    await two_shards.update_attempt("r", second.attempt.attempt_id, status="succeeded")
    assert await two_shards.add_span(make_call_span(attempt, 3)) is not None
    rollout = await two_shards.get_rollout_by_id("r")
    assert rollout is not None
    assert rollout.status == "succeeded"
    kept = await two_shards.query_spans("r")
    assert [(span.attempt_id, span.sequence_id) for span in kept] == [
        (attempt.attempt_id, 1),
        (attempt.attempt_id, 2),
        (attempt.attempt_id, 3),
        (second.attempt.attempt_id, 1),
    ]


async def test_a_question_that_cannot_be_sent_is_an_error_and_harms_no_neighbour(
    two_shards: RayStore,
) -> None:
    wrong = asyncio.ensure_future(two_shards._links[0].ask("rollout", {"rollout_id": threading.Lock()}))
    with pytest.raises(TypeError, match="cannot pickle"):
        await asyncio.wait_for(wrong, 60)
    assert await asyncio.wait_for(two_shards.get_rollout_by_id("r"), 60) is None


async def test_two_writers_of_one_attempt_lose_nothing_and_double_nothing(shared: LightningStore) -> None:
    """As when a runner that was thought dead goes on beside the one that has its work."""
    started = await shared.start_rollout("x", rollout_id="r")
    ours = range(100)
    theirs = range(50, 150)

    async def write(store: LightningStore, numbers: range) -> int:
        num_new = 0
        for number in numbers:
            num_new += len(await store.add_many_spans([make_call_span(started.attempt, number)]))
        return num_new

    counts = await asyncio.gather(
        asyncio.to_thread(asyncio.run, write(shared, ours)),
        asyncio.to_thread(asyncio.run, write(shared, theirs)),
    )
    assert sum(counts) == 150
    assert [span.sequence_id for span in await shared.query_spans("r")] == list(range(150))
    assert (await shared.statistics())["spans"] == 150


async def test_runners_in_two_processes_write_to_one_attempt(two_shards: RayStore) -> None:
    import ray

    @ray.remote(num_cpus=0)
    def write(store: RayStore, attempt: Any, first: int) -> int:
        from raybolt.store import blocking

        spans = [make_call_span(attempt, number) for number in range(first, first + 100)]
        return sum(len(blocking(store.add_many_spans([span]))) for span in spans)

    started = await two_shards.start_rollout("x", rollout_id="r")
    counts = await asyncio.gather(*(write.remote(two_shards, started.attempt, first) for first in (0, 50)))
    assert sum(counts) == 150
    assert [span.sequence_id for span in await two_shards.query_spans("r")] == list(range(150))

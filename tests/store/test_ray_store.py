"""What only a store on Ray has to show: killed processes, references, names."""

import asyncio
import os
import pickle
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from store_samples import fill_group, make_call_span, run_one

from raybolt.store import (
    GroupHandle,
    InvalidValue,
    LocalStore,
    RayStore,
    StoreError,
    StoreFull,
    blocking,
    decode_group,
    names,
    read_group,
)

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture
def store(ray_session: None, tmp_path: Path) -> Iterator[RayStore]:
    ray_store = RayStore.create(tmp_path, name=f"test-{uuid4().hex}")
    yield ray_store
    blocking(ray_store.destroy())


def kill_shard(store: RayStore) -> None:
    """Sends SIGKILL to the process that runs the shard."""
    import ray

    pid = ray.get(store._links[0].actor.__ray_call__.remote(lambda shard: os.getpid()))
    os.kill(pid, signal.SIGKILL)


async def test_acknowledged_spans_survive_a_kill_of_the_shard_in_mid_write(store: RayStore) -> None:
    started = await asyncio.gather(*(store.start_rollout(i, rollout_id=f"r{i}") for i in range(4)))
    acknowledged = dict.fromkeys((one.rollout_id for one in started), 0)
    stop = asyncio.Event()

    async def write(index: int) -> None:
        attempt = started[index].attempt
        while not stop.is_set():
            number = acknowledged[attempt.rollout_id]
            assert len(await store.add_many_spans([make_call_span(attempt, number)])) <= 1  # 0: sent twice
            acknowledged[attempt.rollout_id] += 1

    writers = [asyncio.ensure_future(write(index)) for index in range(4)]
    for _ in range(2):
        before = sum(acknowledged.values())
        while sum(acknowledged.values()) < before + 100:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(kill_shard, store)
    stop.set()
    await asyncio.gather(*writers)

    for rollout_id, count in acknowledged.items():
        kept = await store.query_spans(rollout_id)
        assert [span.sequence_id for span in kept] == list(range(count))
    assert (await store.statistics())["lost"] == {"requeued": [], "failed": []}
    assert {r.status for r in await store.query_rollouts()} == {"running"}


async def test_calls_wait_for_a_killed_shard_and_change_nothing_twice(store: RayStore) -> None:
    await store.declare_group("g", 2)
    for index in range(2):
        await store.enqueue_rollout(index, rollout_id=f"r{index}", group_id="g")
    await asyncio.to_thread(kill_shard, store)
    taken = await store.dequeue_rollout()
    assert taken is not None
    assert (taken.rollout_id, taken.attempt.sequence_id) == ("r0", 1)
    await store.update_attempt("r0", taken.attempt.attempt_id, status="succeeded")
    await run_one(store)
    await asyncio.to_thread(kill_shard, store)
    assert [handle.group_id for handle in await store.take_groups(5)] == ["g"]
    assert await store.take_groups(5) == []


async def test_a_question_asked_twice_gets_one_answer(store: RayStore) -> None:
    """As when the shard dies after the commit, before its answer, and Ray repeats the call."""
    await fill_group(store, "g", num_rollouts=1)
    await store.enqueue_rollout("x", rollout_id="x")
    first = await store._ask("dequeue", limit=1, worker_id=None, claim="c1")
    again = await store._ask("dequeue", limit=1, worker_id=None, claim="c1")
    assert first == again
    assert first[0].rollout_id == "x"
    taking = {"limit": 1, "group_id_in": None, "claim": "c2", "lease_seconds": None}
    groups = [await store._ask("take_groups", **taking) for _ in range(2)]
    assert [[handle.group_id for handle in handles] for handles in groups] == [["g"], ["g"]]


async def test_a_group_outlives_the_runner_that_wrote_it(store: RayStore) -> None:
    import ray

    @ray.remote(num_cpus=0)
    class Runner:
        async def work(self, store: RayStore) -> int:
            await run_one(store)
            return os.getpid()

    await store.declare_group("g", 1)
    await store.enqueue_rollout("x", group_id="g")
    runner = Runner.remote()  # type: ignore[attr-defined]
    pid = await runner.work.remote(store)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ray.exceptions.RayActorError):
        await runner.work.remote(store)
    (handle,) = await store.take_groups(1)
    (data,) = decode_group(await handle.ref).rollouts
    assert data.spans[0].attributes[names.RESPONSE_IDS].tolist() == [8, 9]


async def test_a_group_lost_with_its_shard_is_sealed_again(store: RayStore) -> None:
    import ray

    await fill_group(store, "g", num_rollouts=1)
    (handle,) = await store.take_groups(1)
    await asyncio.to_thread(kill_shard, store)
    again = await store.get_group("g")
    (data,) = decode_group(await again.ref).rollouts
    assert data.spans[0].attributes[names.RESPONSE_IDS].tolist() == [8, 9]

    async def read_until_it_is_gone() -> None:  # Ray takes a moment to notice the death of its owner
        for _ in range(300):
            await asyncio.wait_for(handle.ref, 30)
            await asyncio.sleep(0.1)

    with pytest.raises((ray.exceptions.OwnerDiedError, ray.exceptions.ObjectLostError)):
        await read_until_it_is_gone()


async def test_the_driver_holds_references_and_readers_share_one_copy(store: RayStore) -> None:
    import ray

    started = await store.start_rollout("x", group_id="g")
    span = make_call_span(started.attempt)
    span.attributes[names.PROMPT_IDS] = np.arange(100_000, dtype=np.int32)  # type: ignore[index]
    await store.add_span(span)
    await store.update_attempt(started.rollout_id, "latest", status="succeeded")
    await store.declare_group("g", 1)
    (handle,) = await store.take_groups(1)
    assert isinstance(handle.ref, ray.ObjectRef)
    assert handle.nbytes > 400_000
    assert len(ray.cloudpickle.dumps(handle)) < 2_000

    def prompt_ids() -> Any:
        (data,) = read_group(handle).rollouts
        return data.spans[0].attributes[names.PROMPT_IDS]

    first, second = await asyncio.to_thread(prompt_ids), await asyncio.to_thread(prompt_ids)
    assert first.ctypes.data == second.ctypes.data  # both are views of the object store's memory
    assert not first.flags.writeable
    assert first.tolist()[-2:] == [99_998, 99_999]


async def test_a_store_is_attached_to_by_name_and_path(store: RayStore, tmp_path: Path) -> None:
    await store.enqueue_rollout("x", rollout_id="r")
    same = RayStore.create(tmp_path, name=store.name)
    assert await same.get_rollout_by_id("r") is not None
    connected = pickle.loads(pickle.dumps(RayStore.connect(store.name)))
    assert await connected.get_rollout_by_id("r") is not None
    with pytest.raises(
        StoreError, match=r"runs already, with path .* and 1 shards, not .*other and 1; give another name"
    ):
        RayStore.create(tmp_path / "other", name=store.name)


async def test_a_folder_in_use_makes_no_second_store(store: RayStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"is in use by another store"):
        RayStore.create(tmp_path, name="second")
    with pytest.raises(StoreError, match="no store named 'second' runs in this cluster"):
        RayStore.connect("second")


async def test_a_finished_store_is_opened_in_process(tmp_path: Path) -> None:
    ray_store = RayStore.create(tmp_path, name=f"test-{uuid4().hex}")
    await fill_group(ray_store, "g", num_rollouts=2)
    await ray_store.destroy()
    with pytest.raises(StoreError, match="is gone"):
        await ray_store.statistics()
    async with LocalStore(tmp_path) as local_store:
        (handle,) = await local_store.take_groups(1)
        assert [data.rollout.input for data in read_group(handle).rollouts] == [{"n": 0}, {"n": 1}]


def test_blocking_calls_work_from_any_thread_without_a_loop(store: RayStore) -> None:
    counts: list[int] = []

    def enqueue() -> None:
        for index in range(5):
            blocking(store.enqueue_rollout(index))
        counts.append(len(blocking(store.query_rollouts())))

    threads = [threading.Thread(target=enqueue) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(counts) == 15


async def test_blocking_refuses_to_stall_a_loop(store: RayStore) -> None:
    with pytest.raises(StoreError, match="inside a running event loop; await"):
        blocking(store.statistics())


async def test_a_cancelled_call_harms_no_neighbour(store: RayStore) -> None:
    calls = [asyncio.ensure_future(store.enqueue_rollout(i)) for i in range(3)]
    await asyncio.sleep(0)
    calls[1].cancel()
    done = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result).__name__ for result in done] == ["Rollout", "CancelledError", "Rollout"]
    assert len(await store.query_rollouts()) >= 2


def test_a_group_that_does_not_arrive_is_an_error_that_says_what_may_be_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import ray

    from raybolt.store import blocks

    @ray.remote(num_cpus=0)
    class Never:
        async def come(self) -> None:
            await asyncio.Event().wait()

    never = Never.remote()  # what Ray does with a spilled object that it has no room to read back
    handle = GroupHandle(
        group_id="g",
        task_id=None,
        claim=None,
        ref=never.come.remote(),
        num_rollouts=1,
        num_succeeded=1,
        num_spans=1,
        num_tokens=2,
        nbytes=100,
    )
    monkeypatch.setattr(blocks, "FETCH_SECONDS", 0.2)
    with pytest.raises(StoreFull, match=r"has not brought 1 groups here within 0.2 s.*let go of handles"):
        read_group(handle)
    ray.kill(never)


@pytest.mark.parametrize(
    ("num_bytes", "num_parts"), [(1_000, 1), (200_000, 3), (1_000_000, 12), (1_100_000, 1)]
)
async def test_a_message_travels_in_parts_that_ray_sends_within_the_call_unless_it_is_large(
    store: RayStore, num_bytes: int, num_parts: int
) -> None:
    from raybolt.store.shard import pack_message, unpack_message

    text = "é" * (num_bytes // 2)
    parts = pack_message([("update_worker", {"worker_id": "w", "heartbeat_stats": {"text": text}})])
    assert len(parts) == num_parts
    assert num_parts == 1 or max(map(len, parts)) < 100 * 1024
    assert unpack_message(parts)[0][1]["heartbeat_stats"] == {"text": text}
    worker = await store.update_worker("w", {"text": text})
    assert worker.heartbeat_stats == {"text": text}


@pytest.mark.parametrize("name", ["aa-shard-1", "", None, 5])
def test_a_store_has_a_name_that_no_shard_of_another_has(name: Any) -> None:
    with pytest.raises(InvalidValue, match="name is"):
        RayStore.create(None, name=name)


def test_stores_are_told_by_name_and_their_shards_are_not(tmp_path: Path) -> None:
    store = RayStore.create(None, name="shard-1", num_shards=2)
    try:
        with pytest.raises(StoreError, match=r"runs in this cluster \(it has: .*'shard-1'[^-]*\)"):
            RayStore.connect("none")
    finally:
        blocking(store.destroy())


def test_a_store_that_was_ended_is_not_another_of_its_name(tmp_path: Path) -> None:
    name = f"test-{uuid4().hex}"
    old = RayStore.create(tmp_path, name=name)
    blocking(old.destroy())
    new = RayStore.create(tmp_path, name=name)
    try:
        with pytest.raises(StoreError):
            blocking(asyncio.wait_for(old.destroy(), 60))
        assert blocking(new.query_rollouts()) == []
    finally:
        blocking(new.destroy())

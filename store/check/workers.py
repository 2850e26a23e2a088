"""Workers: derived from what they do."""

from raybolt.store.base import LightningStore
from raybolt.store.check.rules import check, expect, expect_that, present
from raybolt.store.check.samples import enqueue_some, take_one
from raybolt.store.types import Worker


async def _worker(store: LightningStore, worker_id: str = "w") -> Worker:
    return present(await store.get_worker_by_id(worker_id), f"the worker {worker_id!r}")


async def _state(store: LightningStore, worker_id: str = "w") -> tuple[str, str | None]:
    worker = await _worker(store, worker_id)
    return worker.status, worker.current_rollout_id


@check("A heartbeat makes a worker known, keeps its last statistics, and does not say what it does")
async def heartbeats(store: LightningStore) -> None:
    expect(await store.get_worker_by_id("w"), None, "a worker that nobody heard of")
    first = await store.update_worker("w", {"load": 1})
    expect(
        (first.worker_id, first.status, first.heartbeat_stats), ("w", "unknown", {"load": 1}), "the worker"
    )
    present(first.last_heartbeat_time, "last_heartbeat_time")
    heard = present(first.first_heard_time, "first_heard_time")
    second = await store.update_worker("w")
    expect(second.heartbeat_stats, {"load": 1}, "statistics after a heartbeat without any")
    expect(second.first_heard_time, heard, "first_heard_time after another heartbeat")
    third = await store.update_worker("w", heartbeat_stats={"load": 2})
    expect(third.heartbeat_stats, {"load": 2}, "statistics replaced")
    expect(await store.get_worker_by_id("w"), third, "the worker, read")
    expect(
        (third.current_rollout_id, third.current_attempt_id, third.last_busy_time), (None, None, None), "rest"
    )


@check("A worker is known by asking for work, and idle if there is none")
async def asking_for_nothing(store: LightningStore) -> None:
    expect(await store.dequeue_rollout("w"), None, "the next of an empty queue")
    asked = await _worker(store)
    present(asked.last_dequeue_time, "last_dequeue_time after asking an empty queue")
    expect((asked.status, asked.last_busy_time), ("idle", None), "the worker")
    idle_since = present(asked.last_idle_time, "last_idle_time")
    await store.dequeue_rollout("w")
    expect((await _worker(store)).last_idle_time, idle_since, "last_idle_time after asking once more")
    started = await store.start_rollout("x", worker_id="w")
    await store.dequeue_rollout("w")
    expect(await _state(store), ("busy", started.rollout_id), "a worker that asks for more than it has")
    for index in range(4):
        at_work = f"at-work-{index}"
        await store.start_rollout("x", worker_id=at_work)
        await store.dequeue_rollout(at_work)
        expect((await _worker(store, at_work)).last_idle_time, None, "last_idle_time of one always at work")
    await store.update_attempt(started.rollout_id, "latest", "unresponsive")
    expect(await _state(store), ("unknown", None), "a worker that fell silent")
    await store.dequeue_rollout("w")
    expect(await _state(store), ("idle", None), "one that asks for work again")


@check("A worker is busy with its attempt, and idle when that has ended")
async def busy_and_idle(store: LightningStore) -> None:
    await enqueue_some(store, 2)
    for index, outcome in enumerate(("succeeded", "failed")):
        taken = await take_one(store, "w")
        busy = await _worker(store)
        expect(
            (busy.status, busy.current_rollout_id, busy.current_attempt_id),
            ("busy", f"r{index}", taken.attempt.attempt_id),
            "the worker at work",
        )
        present(busy.last_busy_time, "last_busy_time")
        present(busy.last_dequeue_time, "last_dequeue_time")
        await store.update_attempt(taken.rollout_id, "latest", outcome)  # type: ignore[arg-type]
        idle = await _worker(store)
        expect(
            (idle.status, idle.current_rollout_id, idle.current_attempt_id),
            ("idle", None, None),
            "afterwards",
        )
        present(idle.last_idle_time, "last_idle_time")


@check("Of a worker whose attempt went silent or too slow nobody knows what it does")
async def unknown_after_silence(store: LightningStore) -> None:
    for outcome in ("timeout", "unresponsive"):
        started = await store.start_rollout("x", worker_id=outcome)
        await store.update_attempt(started.rollout_id, "latest", outcome)
        expect(await _state(store, outcome), ("unknown", None), f"a worker after {outcome}")
        present((await _worker(store, outcome)).last_idle_time, f"last_idle_time after {outcome}")
    await store.update_attempt(started.rollout_id, "latest", "running")
    expect(await _state(store, outcome), ("busy", started.rollout_id), "a worker heard from again")


@check("A worker with several attempts is busy until the last of them has ended")
async def several_attempts(store: LightningStore) -> None:
    await enqueue_some(store, 3)
    taken = await store.dequeue_many_rollouts(limit=3, worker_id="w")
    busy = await _worker(store)
    expect(busy.status, "busy", "the worker")
    expect_that(
        busy.current_attempt_id in {one.attempt.attempt_id for one in taken},
        "current_attempt_id",
        expected="one of its attempts",
        seen=busy,
    )
    await store.update_attempt("r2", taken[2].attempt.attempt_id, "succeeded")
    later = await _worker(store)
    expect(
        (later.status, later.current_rollout_id in ("r0", "r1")), ("busy", True), "after the last one ended"
    )
    expect(later.last_busy_time, busy.last_busy_time, "last_busy_time, as it began nothing new")
    await store.update_attempt("r0", taken[0].attempt.attempt_id, "failed")
    expect(await _state(store), ("busy", "r1"), "after the first ended too")
    await store.update_attempt("r1", taken[1].attempt.attempt_id, "succeeded")
    expect(await _state(store), ("idle", None), "after all ended")


@check("An attempt that is given to another worker makes that one busy and the first one idle")
async def handed_over(store: LightningStore) -> None:
    started = await store.start_rollout("x", worker_id="a")
    await store.update_attempt(started.rollout_id, "latest", worker_id="b")
    expect(await _state(store, "a"), ("idle", None), "the worker that had it")
    expect(await _state(store, "b"), ("busy", started.rollout_id), "the worker that has it")
    await store.update_attempt(started.rollout_id, "latest", worker_id=None)
    expect(await _state(store, "b"), ("idle", None), "the worker when nobody has it")


@check("What is noted on an old attempt says nothing of its worker")
async def notes_on_old_attempts(store: LightningStore) -> None:
    old = await store.start_rollout("x", worker_id="w")
    await store.update_attempt(old.rollout_id, "latest", "timeout")
    new = await store.start_rollout("y", worker_id="w")
    await store.update_attempt(new.rollout_id, "latest", "succeeded")
    before = await _worker(store)
    await store.update_attempt(old.rollout_id, "latest", "timeout", metadata={"note": "slow"})
    expect(await _worker(store), before, "the worker after a note on its old attempt")


@check("A worker outlives a cancelled rollout that is deleted while it runs")
async def deleted_under_way(store: LightningStore) -> None:
    started = await store.start_rollout("x", worker_id="w")
    await store.update_rollout(started.rollout_id, status="cancelled")
    await store.delete_rollouts([started.rollout_id])
    beat = await store.update_worker("w")
    expect((beat.status, beat.current_rollout_id), ("idle", None), "the worker at its next heartbeat")


WORKERS = (
    heartbeats,
    asking_for_nothing,
    busy_and_idle,
    unknown_after_silence,
    several_attempts,
    handed_over,
    notes_on_old_attempts,
    deleted_under_way,
)

"""Enqueuing, taking, updating and waiting for rollouts."""

import asyncio
from typing import Any

from raybolt.store.base import LightningStore
from raybolt.store.check.rules import check, expect, expect_that, present, refused
from raybolt.store.check.samples import enqueue_some, rollout_of, run_one, statuses, take_one
from raybolt.store.errors import InvalidTransition, InvalidValue, UnknownResources, UnknownRollout
from raybolt.store.types import UNSET, AttemptedRollout, EnqueueRolloutRequest, Rollout, RolloutConfig


@check("An enqueued rollout waits, and keeps what it was given")
async def enqueued_rollout(store: LightningStore) -> None:
    config = RolloutConfig(max_attempts=3, retry_condition=("timeout",), timeout_seconds=9.0)
    await store.add_resources({"prompt": "p"}, resources_id="rs")
    rollout = await store.enqueue_rollout(
        {"question": "?", "ids": (1, 2)},
        "val",
        "rs",
        config,
        {"seed": 7},
        task_id="t1",
        group_id="g1",
    )
    expect((rollout.status, rollout.end_time, rollout.ended), ("queuing", None, False), "a queued rollout")
    expect(rollout.input, {"question": "?", "ids": [1, 2]}, "its input")
    expect((rollout.task_id, rollout.group_id, rollout.mode), ("t1", "g1", "val"), "its task, group, mode")
    expect((rollout.resources_id, rollout.config, rollout.metadata), ("rs", config, {"seed": 7}), "the rest")
    expect(await store.get_rollout_by_id(rollout.rollout_id), rollout, "the rollout, read again")


@check("Without further ado a rollout has no mode, task, group or metadata, and is tried once")
async def default_fields(store: LightningStore) -> None:
    rollout = await store.enqueue_rollout("x")
    expect(
        (rollout.mode, rollout.task_id, rollout.group_id, rollout.resources_id, rollout.metadata),
        (None, None, None, None, {}),
        "what was not given",
    )
    expect(rollout.config, RolloutConfig(), "the config")
    expect_that(
        rollout.start_time > 1.7e9, "start_time", expected="seconds since 1970", seen=rollout.start_time
    )


@check("The queue is first in, first out, and never blocks")
async def queue_order(store: LightningStore) -> None:
    await enqueue_some(store, 3)
    first = await take_one(store, "w")
    expect((first.rollout_id, first.status), ("r0", "preparing"), "the first taken")
    attempt = first.attempt
    expect(
        (attempt.rollout_id, attempt.sequence_id, attempt.status, attempt.worker_id),
        ("r0", 1, "preparing", "w"),
        "its attempt",
    )
    rest = await store.dequeue_many_rollouts(limit=5)
    expect([taken.rollout_id for taken in rest], ["r1", "r2"], "the rest of the queue")
    expect(await store.dequeue_rollout(), None, "the next of an empty queue")
    expect(await store.dequeue_many_rollouts(limit=3), [], "all of an empty queue")
    await store.enqueue_rollout("one more")
    for limit in (0, -1):
        expect(await store.dequeue_many_rollouts(limit=limit), [], f"what limit={limit} takes")
    everything = await store.dequeue_many_rollouts(limit=10**12)
    expect([taken.input for taken in everything], ["one more"], "what the largest limit takes")


@check("A taken rollout is a rollout with the attempt that was started")
async def attempted_rollout(store: LightningStore) -> None:
    await enqueue_some(store, 1)
    taken = await take_one(store)
    expect(await store.get_latest_attempt("r0"), taken.attempt, "the last attempt")
    stored = await rollout_of(store, "r0")
    expect((taken.input, taken.start_time), (stored.input, stored.start_time), "the taken rollout's fields")


@check("A rollout is read with its last attempt once somebody has tried it")
async def rollouts_with_attempts(store: LightningStore) -> None:
    await enqueue_some(store, 2)
    await take_one(store)
    second = await store.start_attempt("r0", "another")
    expect(await store.get_rollout_by_id("r0"), second, "a rollout that was tried twice")
    tried, queued = await store.query_rollouts()
    expect(tried, second, "the same, among others")
    expect((type(queued), queued.rollout_id), (Rollout, "r1"), "one that nobody has tried")
    await store.update_attempt("r0", "latest", status="succeeded")
    (ended,) = await store.query_rollouts(status_in=["succeeded"])
    expect_that(isinstance(ended, AttemptedRollout), "what ended", expected="one with an attempt", seen=ended)
    expect(getattr(ended, "attempt", None), await store.get_latest_attempt("r0"), "its attempt")
    expect([type(r) for r in await store.wait_for_rollouts(["r0"])], [Rollout], "what was waited for")


@check("Many takers at once get each rollout once, and none is left")
async def concurrent_takers(store: LightningStore) -> None:
    await enqueue_some(store, 40)
    taken = await asyncio.gather(*(store.dequeue_rollout() for _ in range(50)))
    inputs = sorted(one.input for one in taken if one is not None)
    expect(inputs, list(range(40)), "the inputs that were handed out")


@check("A rollout that comes back to the queue goes to its end")
async def requeued_order(store: LightningStore) -> None:
    again = RolloutConfig(max_attempts=2, retry_condition=("failed",))
    await store.enqueue_rollout("a", config=again)
    await store.enqueue_rollout("b")
    await run_one(store, status="failed")
    await store.enqueue_rollout("c")
    expect([t.input for t in await store.dequeue_many_rollouts(limit=9)], ["b", "a", "c"], "the queue")


@check("Rollouts that came back are handed out in the order in which they did, and a new one after them")
async def requeued_one_after_another(store: LightningStore) -> None:
    await enqueue_some(store, 8)
    await store.dequeue_many_rollouts(6)
    for index in (4, 1, 5, 0, 3, 2):
        await store.update_rollout(f"r{index}", status="requeuing")
    await store.enqueue_rollout("new", rollout_id="r8")
    taken = [rollout.rollout_id for rollout in await store.dequeue_many_rollouts(9)]
    expect(taken, ["r6", "r7", "r4", "r1", "r5", "r0", "r3", "r2", "r8"], "the queue")


@check("update_rollout with status queuing puts a rollout into the queue, once")
async def queued_by_hand(store: LightningStore) -> None:
    started = await store.start_rollout("x", rollout_id="r")
    await store.update_rollout("r", status="queuing")
    await store.update_rollout("r", status="requeuing")
    again = await store.dequeue_many_rollouts(limit=5)
    expect([(one.rollout_id, one.attempt.sequence_id) for one in again], [("r", 2)], "the queue")
    expect(again[0].attempt.attempt_id != started.attempt.attempt_id, True, "that the attempt is new")


@check("A started rollout is never in the queue")
async def started_rollout(store: LightningStore) -> None:
    started = await store.start_rollout("x", mode="train", worker_id="me")
    expect((started.status, started.mode), ("preparing", "train"), "the rollout")
    expect((started.attempt.sequence_id, started.attempt.worker_id), (1, "me"), "its attempt")
    expect(await store.dequeue_rollout(), None, "the queue")


@check("Enqueuing an id again returns the first, unless it differs; a batch goes in whole or not at all")
async def repeated_id(store: LightningStore) -> None:
    first = await store.enqueue_rollout("a", rollout_id="r")
    expect(await store.enqueue_rollout("a", rollout_id="r"), first, "the second answer")
    with refused(InvalidValue, "rollout_id 'r'"):
        await store.enqueue_rollout("b", rollout_id="r")
    with refused(InvalidValue, "rollout_id 's'"):
        await store.enqueue_many_rollouts([EnqueueRolloutRequest(input=i, rollout_id="s") for i in "ab"])
    with refused(InvalidValue, "rollout_id 'r'"):
        await store.enqueue_many_rollouts([EnqueueRolloutRequest(input="a", rollout_id="r")] * 2)
    with refused(InvalidValue, "rollout_id 'r'"):
        await store.enqueue_many_rollouts(
            [
                EnqueueRolloutRequest(input="new", rollout_id="s"),
                EnqueueRolloutRequest(input="b", rollout_id="r"),
            ]
        )
    expect(await store.get_rollout_by_id("s"), None, "what a refused batch left")
    expect(len(await store.dequeue_many_rollouts(limit=9)), 1, "rollouts in the queue")


@check("Input that is no JSON, and a mode that is none, are refused by field")
async def refused_input(store: LightningStore) -> None:
    with refused(InvalidValue, "input", "object"):
        await store.enqueue_rollout(object())
    with refused(InvalidValue, "mode", "'training'"):
        await store.enqueue_rollout("x", mode="training")  # type: ignore[arg-type]
    with refused(InvalidValue, "metadata"):
        await store.enqueue_rollout("x", metadata={"m": {1, 2}})
    expect(await store.query_rollouts(), [], "what was kept of them")


@check("What is stored does not follow the caller's objects")
async def stored_copy(store: LightningStore) -> None:
    question, metadata = {"q": [1]}, {"m": [1]}
    rollout = await store.enqueue_rollout(question, metadata=metadata)
    question["q"].append(2)
    metadata["m"].append(2)
    stored = await rollout_of(store, rollout.rollout_id)
    expect((stored.input, stored.metadata), ({"q": [1]}, {"m": [1]}), "the stored rollout")


@check("What an agent does to its input and metadata changes neither what is stored nor what a retry gets")
async def own_copies(store: LightningStore) -> None:
    again = RolloutConfig(max_attempts=2, retry_condition=("failed",))
    await store.add_resources({"r": [1]}, resources_id="rs")
    await store.enqueue_rollout({"q": [1]}, metadata={"m": [1]}, config=again, rollout_id="r")
    for read in (take_one(store), rollout_of(store, "r"), store.query_rollouts()):
        found = await read
        for rollout in found if isinstance(found, list) else [found]:
            rollout.input["q"].append(2)
            rollout.metadata["m"].append(2)
    for _ in range(2):
        attempt = await store.update_attempt("r", "latest", "failed", metadata={"a": [1]})
        attempt.metadata["a"].append(2)
    retried = await take_one(store)
    expect((retried.input, retried.metadata), ({"q": [1]}, {"m": [1]}), "what the retry gets")
    expect((await store.query_attempts("r"))[0].metadata, {"a": [1]}, "metadata of the first attempt")
    for _ in range(2):
        worker = await store.update_worker("w", {"load": [1]})
        expect(worker.heartbeat_stats, {"load": [1]}, "the worker's statistics")
        for seen in (worker, *await store.query_workers(worker_id_contains="w")):
            dict(seen.heartbeat_stats or {}).get("load", []).append(2)
    resources = await store.add_resources({"r": [1]}, resources_id="rs")
    resources.resources["r"].append(2)
    expect([one.resources for one in await store.query_resources()], [{"r": [1]}], "the resources")


@check("An update sets what is given, None included, and leaves what is UNSET")
async def update_semantics(store: LightningStore) -> None:
    await store.add_resources({"prompt": "p"}, resources_id="rs")
    rollout = await store.enqueue_rollout("x", "train", "rs", metadata={"a": 1})
    config = RolloutConfig(max_attempts=2)

    async def update(**changes: Any) -> tuple[object, ...]:
        seen = await store.update_rollout(rollout.rollout_id, **changes)
        expect(await store.get_rollout_by_id(rollout.rollout_id), seen, f"what is stored after {changes}")
        return seen.input, seen.mode, seen.resources_id, seen.status, seen.config, seen.metadata

    once = RolloutConfig()
    expect(await update(), ("x", "train", "rs", "queuing", once, {"a": 1}), "an update of nothing")
    expect(await update(mode=None), ("x", None, "rs", "queuing", once, {"a": 1}), "mode=None")
    expect(
        await update(resources_id=None, metadata={"b": 2}, mode=UNSET),
        ("x", None, None, "queuing", once, {"b": 2}),
        "resources_id=None, new metadata",
    )
    expect(
        await update(input=None, config=config, metadata=None),
        (None, None, None, "queuing", config, {}),
        "input=None, metadata=None, a config",
    )


@check("A cancelled rollout leaves the queue and stays cancelled")
async def cancelled_rollout(store: LightningStore) -> None:
    rollout = await store.enqueue_rollout("x")
    cancelled = await store.update_rollout(rollout.rollout_id, status="cancelled")
    present(cancelled.end_time, "the end_time of what was cancelled")
    expect(await store.dequeue_rollout(), None, "the queue")
    expect(await store.update_rollout(rollout.rollout_id, status="cancelled"), cancelled, "once more")
    with refused(InvalidTransition, "cancelled", "queuing"):
        await store.update_rollout(rollout.rollout_id, status="queuing")
    with refused(InvalidTransition, "cancelled", "preparing"):
        await store.start_attempt(rollout.rollout_id)
    with refused(InvalidValue, "status", "'done'"):
        await store.update_rollout(rollout.rollout_id, status="done")  # type: ignore[arg-type]


@check("A refused update changes nothing at all")
async def refused_update(store: LightningStore) -> None:
    rollout = await store.enqueue_rollout("x", mode="train")
    with refused(InvalidValue, "status"):
        await store.update_rollout(rollout.rollout_id, mode="val", status="done")  # type: ignore[arg-type]
    with refused(UnknownResources, "'nobody'"):
        await store.update_rollout(rollout.rollout_id, mode="val", resources_id="nobody")
    expect(await store.get_rollout_by_id(rollout.rollout_id), rollout, "the rollout")


@check("Without resources_id a rollout gets the latest resources; an unknown one is UnknownResources")
async def resolved_resources(store: LightningStore) -> None:
    expect((await store.enqueue_rollout("x")).resources_id, None, "resources before there are any")
    await store.add_resources({"p": 1}, resources_id="a")
    await store.add_resources({"p": 2}, resources_id="b")
    expect((await store.enqueue_rollout("x")).resources_id, "b", "resources of an enqueued rollout")
    expect((await store.enqueue_rollout("x", None, "a", rollout_id="r")).resources_id, "a", "resources by id")
    await store.update_resources("a", {"p": 3})
    expect((await store.start_rollout("x")).resources_id, "a", "resources of a started rollout")
    num_rollouts = len(await store.query_rollouts())
    with refused(UnknownResources, "'nobody'"):
        await store.enqueue_rollout("x", resources_id="nobody")
    with refused(UnknownResources, "'nobody'"):
        await store.start_rollout("x", resources_id="nobody")
    with refused(UnknownResources, "'nobody'"):
        await store.enqueue_rollout("x", resources_id="nobody", rollout_id="r")
    with refused(UnknownResources, "'nobody'"):
        await store.enqueue_many_rollouts(
            [EnqueueRolloutRequest(input="x"), EnqueueRolloutRequest(input="x", resources_id="nobody")]
        )
    expect(len(await store.query_rollouts()), num_rollouts, "rollouts after what was refused")


@check("Waiting ends when all have ended, in the order asked for")
async def waiting_for_all(store: LightningStore) -> None:
    await enqueue_some(store, 2)
    waiting = asyncio.ensure_future(store.wait_for_rollouts(["r1", "r0"], timeout=60))
    await run_one(store)
    await asyncio.sleep(0.05)
    expect(waiting.done(), False, "whether it waits while one goes on")
    await run_one(store, status="failed")
    ended = await waiting
    expect([(r.rollout_id, r.status) for r in ended], [("r1", "failed"), ("r0", "succeeded")], "what ended")


@check("Waiting gives up after the timeout, with those that have ended")
async def waiting_in_vain(store: LightningStore) -> None:
    await enqueue_some(store, 2)
    await run_one(store)
    for timeout in (0.05, 0):
        ended = await store.wait_for_rollouts(rollout_ids=["r0", "r1"], timeout=timeout)
        expect([rollout.rollout_id for rollout in ended], ["r0"], f"what has ended after {timeout} s")
    expect(await store.wait_for_rollouts([], timeout=60), [], "what ends of none")
    with refused(UnknownRollout, "'nobody'"):
        await store.wait_for_rollouts(["r0", "nobody"], timeout=60)


@check("A rollout that comes back ends its waiters only when it ends for good")
async def waiting_through_retries(store: LightningStore) -> None:
    again = RolloutConfig(max_attempts=2, retry_condition=("failed",))
    await store.enqueue_rollout("x", rollout_id="r", config=again)
    waiting = asyncio.ensure_future(store.wait_for_rollouts(["r"], timeout=60))
    await run_one(store, status="failed")
    expect(await statuses(store), ["requeuing"], "the rollout after its first attempt")
    await asyncio.sleep(0.05)
    expect(waiting.done(), False, "whether it still waits")
    await run_one(store)
    expect([rollout.status for rollout in await waiting], ["succeeded"], "what ended")


ROLLOUTS = (
    enqueued_rollout,
    default_fields,
    queue_order,
    attempted_rollout,
    rollouts_with_attempts,
    concurrent_takers,
    requeued_order,
    requeued_one_after_another,
    queued_by_hand,
    started_rollout,
    repeated_id,
    refused_input,
    stored_copy,
    own_copies,
    update_semantics,
    cancelled_rollout,
    refused_update,
    resolved_resources,
    waiting_for_all,
    waiting_in_vain,
    waiting_through_retries,
)

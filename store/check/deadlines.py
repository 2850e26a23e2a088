"""Timeouts and silence, which the store's own clock notices. Short real times, generous bounds."""

import asyncio

from raybolt.store.base import LightningStore
from raybolt.store.check.rules import check, expect, expect_that, present, refused
from raybolt.store.check.samples import attempt_of, make_span, rollout_of
from raybolt.store.errors import InvalidValue
from raybolt.store.types import RolloutConfig

_PATIENCE_SECONDS = 60.0


@check("The store gives up attempts that are too slow or silent at their time, though nobody calls it")
async def nobody_calls(store: LightningStore) -> None:
    limits = {
        "timeout": RolloutConfig(timeout_seconds=0.2),
        "unresponsive": RolloutConfig(unresponsive_seconds=0.2),
        "requeuing": RolloutConfig(timeout_seconds=0.2, max_attempts=2, retry_condition=("timeout",)),
    }
    for rollout_id, config in limits.items():
        await store.start_rollout("x", rollout_id=rollout_id, config=config)
    await asyncio.sleep(2.0)
    asked_at = (await store.start_rollout("later", rollout_id="later")).start_time
    ended = present((await attempt_of(store, "timeout")).end_time, "the end_time of a slow attempt")
    expect_that(
        ended < asked_at - 0.5,
        "when a slow attempt was given up",
        expected=f"long before the store was called again, at {asked_at}",
        seen=ended,
    )
    end_time = present((await rollout_of(store, "unresponsive")).end_time, "the end of a silent rollout")
    expect_that(end_time < asked_at - 0.5, "when a silent one was", expected="as early", seen=end_time)
    seen = {name: (await attempt_of(store, name)).status for name in limits}
    expect(
        seen,
        {"timeout": "timeout", "unresponsive": "unresponsive", "requeuing": "timeout"},
        "the attempts",
    )
    rollouts = {name: (await rollout_of(store, name)).status for name in limits}
    expect(
        rollouts,
        {"timeout": "failed", "unresponsive": "failed", "requeuing": "requeuing"},
        "the rollouts",
    )
    reason = (await attempt_of(store, "timeout")).metadata
    expect(reason.get("origin"), "limit", "metadata['origin'] of an attempt that the store gave up")


@check("Those who wait for a rollout hear of its timeout")
async def waiters_hear_of_it(store: LightningStore) -> None:
    await store.start_rollout("x", rollout_id="r", config=RolloutConfig(timeout_seconds=0.2))
    ended = await store.wait_for_rollouts(["r"], timeout=_PATIENCE_SECONDS)
    expect([rollout.status for rollout in ended], ["failed"], "what ended")


@check("Spans keep an attempt alive, until they stop")
async def spans_keep_alive(store: LightningStore) -> None:
    config = RolloutConfig(unresponsive_seconds=1.0)
    started = await store.start_rollout("x", rollout_id="r", config=config)
    for number in range(8):
        await asyncio.sleep(0.25)
        await store.add_span(make_span(started.attempt, number))
    attempt = await attempt_of(store, "r")
    expect(attempt.status, "running", "the attempt after 2 s with a span every quarter of a second")
    expect_that(
        present(attempt.last_heartbeat_time, "last_heartbeat_time") > attempt.start_time + 1.0,
        "last_heartbeat_time",
        expected="the time of the last span",
        seen=attempt,
    )
    ended = await store.wait_for_rollouts(["r"], timeout=_PATIENCE_SECONDS)
    expect([rollout.status for rollout in ended], ["failed"], "the rollout when the spans have stopped")


@check("A worker's heartbeats keep all its attempts alive, and nobody else's")
async def heartbeats_keep_alive(store: LightningStore) -> None:
    config = RolloutConfig(unresponsive_seconds=1.0)
    for rollout_id, worker_id in (("a", "w"), ("b", "w"), ("c", "other")):
        await store.start_rollout("x", rollout_id=rollout_id, config=config, worker_id=worker_id)
    for _ in range(8):
        await asyncio.sleep(0.25)
        await store.update_worker("w")
    seen = [(await attempt_of(store, rollout_id)).status for rollout_id in "abc"]
    expect(seen, ["preparing", "preparing", "unresponsive"], "the attempts after 2 s of heartbeats")
    ended = await store.wait_for_rollouts(["a", "b"], timeout=_PATIENCE_SECONDS)
    expect([rollout.status for rollout in ended], ["failed", "failed"], "when the heartbeats have stopped")


@check("An attempt that the store gave up as silent revives with a span, and its notes are gone")
async def revival_after_silence(store: LightningStore) -> None:
    config = RolloutConfig(unresponsive_seconds=0.2, max_attempts=3, retry_condition=("unresponsive",))
    started = await store.start_rollout("x", rollout_id="r", config=config, metadata={"m": 1})
    for _ in range(300):
        if (await rollout_of(store, "r")).status == "requeuing":
            break
        await asyncio.sleep(0.1)
    expect((await rollout_of(store, "r")).status, "requeuing", "the rollout of a silent attempt")
    await store.update_rollout("r", config=RolloutConfig())  # or it would fall silent again
    await store.add_span(make_span(started.attempt))
    attempt = await attempt_of(store, "r")
    expect((attempt.status, attempt.metadata), ("running", {}), "the attempt after a span")
    expect(await store.dequeue_rollout(), None, "the queue")


@check("A time limit that is set later holds as well")
async def limit_set_later(store: LightningStore) -> None:
    await store.start_rollout("x", rollout_id="r")
    await store.update_rollout("r", config=RolloutConfig(timeout_seconds=0.1))
    ended = await store.wait_for_rollouts(["r"], timeout=_PATIENCE_SECONDS)
    expect([rollout.status for rollout in ended], ["failed"], "what ended")


@check("An attempt that ended in time is not given up afterwards")
async def ended_in_time(store: LightningStore) -> None:
    config = RolloutConfig(timeout_seconds=0.3, unresponsive_seconds=0.3)
    await store.start_rollout("x", rollout_id="r", config=config)
    await store.update_attempt("r", "latest", "succeeded")
    await asyncio.sleep(0.8)
    expect((await attempt_of(store, "r")).status, "succeeded", "the attempt")
    expect((await rollout_of(store, "r")).status, "succeeded", "the rollout")


@check("Limits that are no limits are refused")
async def refused_limits(store: LightningStore) -> None:
    for seconds in (0, -1.0, float("nan"), float("inf"), 10**400):
        with refused(InvalidValue, "timeout_seconds"):
            RolloutConfig(timeout_seconds=seconds)
        with refused(InvalidValue, "unresponsive_seconds"):
            RolloutConfig(unresponsive_seconds=seconds)
    with refused(InvalidValue, "max_attempts", "0"):
        RolloutConfig(max_attempts=0)
    for status in ("succeeded", "done"):
        with refused(InvalidValue, "retry_condition", status):
            RolloutConfig(retry_condition=(status,))  # type: ignore[arg-type]


DEADLINES = (
    nobody_calls,
    waiters_hear_of_it,
    spans_keep_alive,
    heartbeats_keep_alive,
    revival_after_silence,
    limit_set_later,
    ended_in_time,
    refused_limits,
)

"""Attempts, and what becomes of their rollouts."""

from typing import Any, get_args

from raybolt.store.base import LightningStore
from raybolt.store.check.rules import check, expect, present, refused
from raybolt.store.check.samples import attempt_of, make_span, rollout_of, run_one, statuses
from raybolt.store.errors import InvalidTransition, InvalidValue, UnknownAttempt, UnknownRollout
from raybolt.store.types import AttemptStatus, RolloutConfig


@check("The first span sets attempt and rollout running")
async def first_span(store: LightningStore) -> None:
    started = await store.start_rollout("x")
    await store.add_span(make_span(started.attempt))
    expect((await attempt_of(store, started.rollout_id)).status, "running", "the attempt")
    expect(await statuses(store), ["running"], "the rollout")


@check("Without retries the attempt's outcome ends the rollout")
async def outcomes(store: LightningStore) -> None:
    expected = {"succeeded": "succeeded", "failed": "failed", "timeout": "failed", "unresponsive": "failed"}
    for outcome in get_args(AttemptStatus):
        if outcome not in expected:
            continue
        rollout = await store.enqueue_rollout("x")
        await run_one(store, status=outcome)
        ended = await rollout_of(store, rollout.rollout_id)
        expect(ended.status, expected[outcome], f"the rollout after an attempt that ends as {outcome}")
        present(ended.end_time, "its end_time")
        attempt = await attempt_of(store, rollout.rollout_id)
        expect(
            attempt.end_time is None, outcome == "unresponsive", f"that an {outcome} attempt has no end_time"
        )


@check("A retry queues the rollout until its attempts are used up")
async def retries(store: LightningStore) -> None:
    rollout = await store.enqueue_rollout(
        "x", config=RolloutConfig(max_attempts=2, retry_condition=("failed",))
    )
    await run_one(store, status="failed")
    expect(await statuses(store), ["requeuing"], "the rollout after its first attempt")
    second = await run_one(store, status="failed")
    expect(second.attempt.sequence_id, 2, "the second attempt's sequence id")
    expect(await statuses(store), ["failed"], "the rollout after its second attempt")
    attempts = await store.query_attempts(rollout.rollout_id)
    expect([a.status for a in attempts], ["failed", "failed"], "the attempts")


@check("Only the outcomes that retry_condition names are tried again")
async def retry_conditions(store: LightningStore) -> None:
    config = RolloutConfig(max_attempts=5, retry_condition=("timeout", "unresponsive"))
    for outcome, expected in {
        "timeout": "requeuing",
        "unresponsive": "requeuing",
        "failed": "failed",
    }.items():
        started = await store.start_rollout("x", config=config)
        await store.update_attempt(started.rollout_id, "latest", outcome)  # type: ignore[arg-type]
        expect((await rollout_of(store, started.rollout_id)).status, expected, f"the rollout after {outcome}")


@check("retry_condition may be given as a list, and reads back equal")
async def listed_conditions(store: LightningStore) -> None:
    conditions: Any = ["failed", "timeout"]
    config = RolloutConfig(max_attempts=2, retry_condition=conditions)
    rollout = await store.enqueue_rollout("x", config=config)
    expect(rollout.config, RolloutConfig(max_attempts=2, retry_condition=("failed", "timeout")), "the config")
    expect((await rollout_of(store, rollout.rollout_id)).config, config, "the config, read again")


@check("start_attempt takes the rollout off the queue and counts on")
async def further_attempts(store: LightningStore) -> None:
    rollout = await store.enqueue_rollout("x")
    first = await store.start_attempt(rollout.rollout_id, "w")
    expect((first.status, first.attempt.worker_id), ("preparing", "w"), "the rollout and its worker")
    expect(await store.dequeue_rollout(), None, "the queue")
    second = await store.start_attempt(rollout.rollout_id)
    expect((first.attempt.sequence_id, second.attempt.sequence_id), (1, 2), "the sequence ids")
    expect(await store.get_latest_attempt(rollout.rollout_id), second.attempt, "the latest")


@check("A superseded attempt changes nothing but itself; its late span is kept")
async def superseded_attempt(store: LightningStore) -> None:
    first = await store.start_rollout("x")
    second = await store.start_attempt(first.rollout_id)
    present(await store.add_span(make_span(first.attempt)), "a late span")
    await store.update_attempt(first.rollout_id, first.attempt.attempt_id, status="failed")
    expect(await statuses(store), ["preparing"], "the rollout after its superseded attempt failed")
    await store.update_attempt(first.rollout_id, "latest", status="succeeded")
    expect(await statuses(store), ["succeeded"], "the rollout after its latest attempt succeeded")
    present(await store.add_span(make_span(first.attempt, 2)), "a span later still")
    expect(await statuses(store), ["succeeded"], "the rollout after that span")
    attempts = await store.query_attempts(second.rollout_id)
    expect([a.status for a in attempts], ["failed", "succeeded"], "the attempts")
    expect(
        [span.sequence_id for span in await store.query_spans(first.rollout_id, first.attempt.attempt_id)],
        [1, 2],
        "the late spans",
    )


@check("An ended attempt does not change its outcome; a span that comes after it is kept")
async def ended_attempt(store: LightningStore) -> None:
    started = await store.start_rollout("x")
    ended = await store.update_attempt(started.rollout_id, "latest", status="failed")
    expect(await store.update_attempt(started.rollout_id, "latest", status="failed"), ended, "once more")
    with refused(InvalidTransition, "failed", "succeeded"):
        await store.update_attempt(started.rollout_id, "latest", status="succeeded")
    with refused(InvalidValue, "status", "'done'"):
        await store.update_attempt(started.rollout_id, "latest", status="done")  # type: ignore[arg-type]
    present(await store.add_span(make_span(started.attempt)), "a span after the end")
    expect((await attempt_of(store, started.rollout_id)).status, "failed", "the attempt after that span")
    expect(await statuses(store), ["failed"], "the rollout after that span")


@check("An unresponsive attempt revives with a span, and its rollout leaves the queue")
async def revival(store: LightningStore) -> None:
    config = RolloutConfig(max_attempts=2, retry_condition=("unresponsive",))
    started = await store.start_rollout("x", config=config)
    await store.update_attempt(started.rollout_id, "latest", status="unresponsive")
    expect(await statuses(store), ["requeuing"], "the rollout of a silent attempt")
    await store.add_span(make_span(started.attempt))
    expect(await statuses(store), ["running"], "the rollout after the span")
    expect((await attempt_of(store, started.rollout_id)).status, "running", "the attempt after the span")
    expect(await store.dequeue_rollout(), None, "the queue")


@check("An unresponsive attempt that was superseded revives alone")
async def revival_of_the_superseded(store: LightningStore) -> None:
    config = RolloutConfig(max_attempts=2, retry_condition=("unresponsive",))
    first = await store.start_rollout("x", config=config)
    await store.update_attempt(first.rollout_id, "latest", status="unresponsive")
    second = present(await store.dequeue_rollout(), "the retry")
    await store.add_span(make_span(first.attempt))
    attempts = await store.query_attempts(first.rollout_id)
    expect([a.status for a in attempts], ["running", "preparing"], "the attempts")
    expect(await statuses(store), ["preparing"], "the rollout")
    await store.update_attempt(first.rollout_id, second.attempt.attempt_id, "succeeded")
    expect(await statuses(store), ["succeeded"], "the rollout at last")


@check("update_attempt sets what is given and leaves what is UNSET")
async def attempt_updates(store: LightningStore) -> None:
    started = await store.start_rollout("x", worker_id="a")
    rollout_id, attempt_id = started.rollout_id, started.attempt.attempt_id

    async def update(**changes: Any) -> tuple[object, ...]:
        seen = await store.update_attempt(rollout_id, attempt_id, **changes)
        expect(await store.get_latest_attempt(rollout_id), seen, f"what is stored after {changes}")
        return seen.status, seen.worker_id, seen.metadata

    expect(await update(), ("preparing", "a", {}), "an update of nothing")
    expect(await update(metadata={"m": 1}), ("preparing", "a", {"m": 1}), "metadata")
    expect(await update(worker_id="b"), ("preparing", "b", {"m": 1}), "worker_id")
    expect(await update(status="running", metadata=None), ("running", "b", {}), "status, metadata=None")
    beat = started.attempt.start_time + 5
    seen = await store.update_attempt(rollout_id, "latest", last_heartbeat_time=beat)
    expect((seen.last_heartbeat_time, seen.status), (beat, "running"), "last_heartbeat_time")


@check("Latest attempts are read for many rollouts at once")
async def latest_attempts(store: LightningStore) -> None:
    first = await store.start_rollout("x")
    second = await store.start_attempt(first.rollout_id)
    waiting = await store.enqueue_rollout("y")
    latest = await store.get_latest_attempts([waiting.rollout_id, first.rollout_id])
    expect(latest, [None, second.attempt], "the latest attempts")
    expect(await store.get_latest_attempts([]), [], "those of nobody")
    with refused(UnknownRollout, "nobody"):
        await store.get_latest_attempts([first.rollout_id, "nobody"])


@check("Unknown rollouts and attempts raise, each by its kind; reading by id returns None")
async def unknown_ids(store: LightningStore) -> None:
    queued = (await store.enqueue_rollout("x")).rollout_id
    other = (await store.start_rollout("y")).attempt.attempt_id
    with refused(UnknownRollout, "'nobody'"):
        await store.update_rollout("nobody", mode=None)
    with refused(UnknownRollout, "'nobody'"):
        await store.start_attempt("nobody")
    with refused(UnknownRollout, "'nobody'"):
        await store.update_attempt("nobody", "latest", status="failed")
    with refused(UnknownRollout, "'nobody'"):
        await store.query_attempts("nobody")
    with refused(UnknownRollout, "'nobody'"):
        await store.get_latest_attempt("nobody")
    for attempt_id in ("latest", "nobody", other):
        with refused(UnknownAttempt, repr(attempt_id), repr(queued)):
            await store.update_attempt(queued, attempt_id, status="failed")
    expect(await store.get_rollout_by_id("nobody"), None, "an unknown rollout")
    expect(await store.get_latest_attempt(queued), None, "the attempt that nobody has started")
    expect(await store.query_attempts(queued), [], "the attempts of a queued rollout")
    expect(await store.query_spans(queued, "latest"), [], "the spans of its latest attempt")


ATTEMPTS = (
    first_span,
    outcomes,
    retries,
    retry_conditions,
    listed_conditions,
    further_attempts,
    superseded_attempt,
    ended_attempt,
    revival,
    revival_of_the_superseded,
    attempt_updates,
    latest_attempts,
    unknown_ids,
)

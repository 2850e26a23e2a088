"""Values that no store should swallow: refused by field, and nothing is broken afterwards."""

from dataclasses import replace
from typing import Any

from raybolt.store.base import LightningStore
from raybolt.store.check.rules import check, expect, refused
from raybolt.store.check.samples import make_span, run_one
from raybolt.store.errors import InvalidValue
from raybolt.store.types import EnqueueRolloutRequest

_LONE_SURROGATE = "\ud800"  # what no file and no message can hold


async def _still_works(store: LightningStore) -> None:
    await store.enqueue_rollout("fine")
    await run_one(store)


@check("A span with a field that cannot be kept is refused by field, and the store goes on")
async def spans_with_bad_fields(store: LightningStore) -> None:
    started = await store.start_rollout("x")
    good = make_span(started.attempt)
    bad: dict[str, list[Any]] = {
        "name": [None, 5, _LONE_SURROGATE],
        "span_id": [None, "", _LONE_SURROGATE],
        "trace_id": [None, _LONE_SURROGATE],
        "parent_id": [7, _LONE_SURROGATE],
        "start_time": [None, float("nan"), float("inf"), "1"],
        "end_time": [None, float("nan")],
        "sequence_id": [None, 2**63, 1.5],
        "status": ["fine", None],
        "status_message": [3, _LONE_SURROGATE],
    }
    for field, values in bad.items():
        for value in values:
            with refused(InvalidValue, field):
                await store.add_many_spans([replace(good, span_id="other"), replace(good, **{field: value})])
    expect(await store.query_spans(started.rollout_id), [], "the spans kept of refused batches")
    await store.add_span(good)
    expect(len(await store.query_spans(started.rollout_id)), 1, "the spans kept of a good one")
    await _still_works(store)


@check("Ids that are no text, or empty, are refused by field, and the store goes on")
async def bad_ids(store: LightningStore) -> None:
    for value in (_LONE_SURROGATE, "", 5):
        bad: Any = value
        for field in ("rollout_id", "group_id", "task_id"):
            with refused(InvalidValue, field):
                await store.enqueue_rollout("x", **{field: bad})
            with refused(InvalidValue, field):
                await store.enqueue_many_rollouts(
                    [EnqueueRolloutRequest(input="good"), EnqueueRolloutRequest(input="x", **{field: bad})]
                )
        with refused(InvalidValue, "worker_id"):
            await store.start_rollout("x", worker_id=bad)
        with refused(InvalidValue, "worker_id"):
            await store.update_worker(bad)
        with refused(InvalidValue, "worker_id"):
            await store.dequeue_rollout(bad)
        with refused(InvalidValue, "group_id"):
            await store.declare_group(bad, 1)
        with refused(InvalidValue, "resources_id"):
            await store.add_resources({}, resources_id=bad)
    expect(await store.query_rollouts(), [], "the rollouts kept")
    await _still_works(store)


@check("Metadata and heartbeats of the wrong kind are refused by field, and the store goes on")
async def bad_objects(store: LightningStore) -> None:
    started = await store.start_rollout("x")
    bad: Any
    for bad in ([1], "text", 5):
        with refused(InvalidValue, "metadata"):
            await store.enqueue_rollout("x", metadata=bad)
        with refused(InvalidValue, "metadata"):
            await store.update_rollout(started.rollout_id, metadata=bad)
        with refused(InvalidValue, "metadata"):
            await store.update_attempt(started.rollout_id, "latest", metadata=bad)
        with refused(InvalidValue, "heartbeat_stats"):
            await store.update_worker("w", bad)
        with refused(InvalidValue, "resources"):
            await store.add_resources(bad)
        with refused(InvalidValue, "config"):
            await store.update_rollout(started.rollout_id, config=bad)
        with refused(InvalidValue, "config"):
            await store.enqueue_rollout("x", config=bad)
    for bad in (float("nan"), float("inf"), "now"):
        with refused(InvalidValue, "last_heartbeat_time"):
            await store.update_attempt(started.rollout_id, "latest", last_heartbeat_time=bad)
    for bad in (1.5, "2", 2**63):
        with refused(InvalidValue, "num_rollouts"):
            await store.declare_group("g", bad)
    expect(len(await store.query_rollouts()), 1, "the rollouts kept")
    await _still_works(store)


HOSTILE = (spans_with_bad_fields, bad_ids, bad_objects)

"""Values that no store should swallow: refused by field, and nothing is broken afterwards."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import numpy as np

from raybolt.store.base import LightningStore
from raybolt.store.check.rules import check, expect, present, refused
from raybolt.store.check.samples import make_span, run_one
from raybolt.store.errors import InvalidValue
from raybolt.store.types import EnqueueRolloutRequest, SpanEvent

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
        "start_time": [None, float("nan"), float("inf"), "1", True, 1e308],
        "end_time": [None, float("nan"), 10**400],
        "sequence_id": [None, 2**63, 1.5, True],
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
    for bad in (float("nan"), float("inf"), "now", 10**400, 1e308):
        with refused(InvalidValue, "last_heartbeat_time"):
            await store.update_attempt(started.rollout_id, "latest", last_heartbeat_time=bad)
    for bad in (1.5, "2", 2**63, True):
        with refused(InvalidValue, "num_rollouts"):
            await store.declare_group("g", bad)
    expect(len(await store.query_rollouts()), 1, "the rollouts kept")
    await _still_works(store)


@check("JSON may be nested 300 deep; what is deeper is refused, and the store goes on")
async def deep_json(store: LightningStore) -> None:
    def nested(depth: int) -> Any:
        value: Any = 1
        for _ in range(depth):
            value = [value]
        return value

    rollout = await store.enqueue_rollout(nested(300), metadata={"wide": [[]] * 400})
    stored = present(await store.get_rollout_by_id(rollout.rollout_id), "the rollout")
    expect(json.dumps(stored.input), "[" * 300 + "1" + "]" * 300, "a deep input, as it was stored")
    for depth in (301, 100_000):
        with refused(InvalidValue, "input", "300"):
            await store.enqueue_rollout(nested(depth))
        with refused(InvalidValue, "metadata", "300"):
            await store.update_rollout(rollout.rollout_id, metadata={"deep": nested(depth)})
    started = await store.start_rollout("x")
    await store.add_span(make_span(started.attempt, 1, deep=nested(299)))
    for depth in (300, 100_000):
        with refused(InvalidValue, "attributes", "300"):
            await store.add_span(make_span(started.attempt, 2, deep=nested(depth)))
    (span,) = await store.query_spans(started.rollout_id)
    expect(span.attributes["deep"], nested(299), "a deep attribute, as it was stored")
    await _still_works(store)


@check("Arguments of the wrong type or kind are refused by field, and the store goes on")
async def bad_arguments(store: LightningStore) -> None:
    started = await store.start_rollout("x", rollout_id="r")
    span: Any = make_span(started.attempt)
    any_store: Any = store
    calls: list[tuple[str, Callable[[Any], Awaitable[object]], tuple[Any, ...]]] = [
        ("rollout_id", any_store.get_rollout_by_id, (None, 5, ["r"], _LONE_SURROGATE)),
        ("rollout_id", any_store.start_attempt, (None, 5)),
        ("rollout_id", any_store.query_spans, (5,)),
        ("attempt_id", lambda bad: any_store.update_attempt("r", bad, "failed"), (None, 5)),
        ("attempt_id", lambda bad: any_store.query_spans("r", bad), (5,)),
        ("name_contains", lambda bad: any_store.query_spans("r", name_contains=bad), (5,)),
        ("group_id", any_store.get_group, (None, 5)),
        ("resources_id", any_store.get_resources_by_id, (None, 5)),
        ("resources_id", lambda bad: any_store.update_rollout("r", resources_id=bad), (5,)),
        ("resources_id", lambda bad: any_store.enqueue_rollout("x", resources_id=bad), (5,)),
        ("worker_id", any_store.get_worker_by_id, (None, 5)),
        ("rollout_ids", any_store.wait_for_rollouts, ("r", None, 5, [5])),
        ("rollout_ids", any_store.delete_rollouts, ("r", None, [None])),
        ("group_ids", any_store.wait_for_groups, ("g", None)),
        ("rollout_id_in", lambda bad: any_store.query_rollouts(rollout_id_in=bad), ("r", 5, [["r"]])),
        ("status_in", lambda bad: any_store.query_rollouts(status_in=bad), (["quueing"], [5], ["taken"])),
        ("status_in", lambda bad: any_store.query_groups(status_in=bad), (["running"],)),
        ("status_in", lambda bad: any_store.query_workers(status_in=bad), (["bussy"],)),
        ("mode", lambda bad: any_store.query_rollouts(mode=bad), ("trian", 5)),
        ("limit", lambda bad: any_store.query_rollouts(limit=bad), ("3", None, 1.5, 2**80)),
        ("offset", lambda bad: any_store.query_workers(offset=bad), ("3", None, 1.5)),
        ("limit", any_store.dequeue_many_rollouts, ("3", 1.5)),
        ("limit", any_store.take_groups, ("3", None)),
        ("handles", any_store.acknowledge_groups, (None, "g", 5, [5])),
        ("lease_seconds", lambda bad: any_store.take_groups(1, lease_seconds=bad), ("3", -1, 10**400, True)),
        ("timeout", lambda bad: any_store.wait_for_rollouts(["r"], bad), ("1", float("nan"), True)),
        ("timeout", lambda bad: any_store.get_changes("0", timeout=bad), ("1",)),
        ("cursor", any_store.get_changes, (0, None)),
        ("older_than_seconds", any_store.prune, ("1d", -1, float("nan"), None)),
        ("rollouts", any_store.enqueue_many_rollouts, (None, [{"input": 1}], EnqueueRolloutRequest(input=1))),
        ("spans", any_store.add_many_spans, (None, span, [None], [{"name": "n"}])),
        ("rollout_attempt_ids", any_store.get_many_span_sequence_ids, (["r"], [("r", "a", "b")], ("r", "a"))),
        ("attributes", any_store.add_span, (replace(span, attributes=None), replace(span, attributes=[1]))),
        ("events", any_store.add_span, (replace(span, events=({"name": "e"},)),)),
        ("time", any_store.add_span, (replace(span, events=(SpanEvent("e", float("nan")),)),)),
        ("resources", any_store.add_resources, (None,)),
        ("heartbeat_stats", lambda bad: any_store.update_worker("w", bad), (None,)),
    ]
    for field, call, values in calls:
        for value in values:
            with refused(InvalidValue, field):
                await call(value)
    expect(await store.query_rollouts(), [started], "the rollouts kept")
    expect(await store.wait_for_rollouts([], float("inf")), [], "what ends of none, without a limit")
    for long in (float("inf"), 10**400, 1e308):
        expect(await store.prune(long), 0, "what ended longer ago than there are stores")
    expect(await store.wait_for_rollouts(["r"], -float("inf")), [], "what has ended, without a wait")
    expect(len(await any_store.query_rollouts(limit=np.int64(1))), 1, "rollouts by a count of NumPy's")
    expect(await any_store.wait_for_rollouts(["r"], np.float32(0)), [], "what has ended, by NumPy's seconds")
    expect(len(await any_store.add_many_spans(one for one in [span])), 1, "new spans, given one by one")
    await store.update_rollout("r", status="cancelled")
    await _still_works(store)


HOSTILE = (spans_with_bad_fields, bad_ids, bad_objects, deep_json, bad_arguments)

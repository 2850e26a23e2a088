"""Filters, order and pages of every query."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from raybolt.store.base import LightningStore
from raybolt.store.check.rules import check, expect, refused
from raybolt.store.check.samples import enqueue_some, make_span, take_one
from raybolt.store.errors import InvalidValue
from raybolt.store.types import EnqueueRolloutRequest

Find = Callable[..., Awaitable[list[Any]]]


def _finder(query: Callable[..., Awaitable[Sequence[Any]]], field: str, *args: str) -> Find:
    """A query that returns one field of what it found."""

    async def find(**filters: Any) -> list[Any]:
        return [getattr(item, field) for item in await query(*args, **filters)]

    return find


async def _check_paging(find: Find, items: Sequence[Any], sort_by: str, order: Sequence[Any]) -> None:
    """Expects pages of the items in their own order, and sorted by a field."""
    expect(await find(), list(items), "all, in their own order")
    expect(await find(limit=-1), list(items), "limit=-1")
    expect(await find(limit=0), [], "limit=0")
    expect(await find(limit=2), list(items)[:2], "limit=2")
    expect(await find(limit=2, offset=1), list(items)[1:3], "limit=2, offset=1")
    expect(await find(offset=1), list(items)[1:], "offset=1")
    expect(await find(offset=99), [], "offset=99")
    expect(await find(sort_by=sort_by), list(order), f"sort_by={sort_by!r}")
    expect(await find(sort_by=sort_by, sort_order="desc"), list(order)[::-1], "sort_order='desc'")
    expect(
        await find(sort_by=sort_by, sort_order="desc", limit=2, offset=1), list(order)[::-1][1:3], "its page"
    )
    with refused(InvalidValue, "limit", "-2"):
        await find(limit=-2)
    with refused(InvalidValue, "offset", "-1"):
        await find(offset=-1)
    with refused(InvalidValue, "sort_by", "'colour'", sort_by):
        await find(sort_by="colour")
    for order_of_none in ("up", None):
        with refused(InvalidValue, "sort_order", repr(order_of_none), "'asc' or 'desc'"):
            await find(sort_order=order_of_none)


@check("query_rollouts filters, sorts and pages; its own order is that of enqueuing")
async def rollouts_by_page(store: LightningStore) -> None:
    await store.enqueue_many_rollouts(
        [
            EnqueueRolloutRequest(input=i, rollout_id=f"r{i}", task_id=task_id)
            for i, task_id in enumerate(["d", "a", "c", "b"])
        ]
    )
    find = _finder(store.query_rollouts, "rollout_id")
    await _check_paging(find, ["r0", "r1", "r2", "r3"], "task_id", ["r1", "r3", "r2", "r0"])
    await store.enqueue_rollout("x", rollout_id="r4")
    expect((await find(sort_by="task_id"))[-1], "r4", "one without the field, which comes last")
    expect((await find(sort_by="task_id", sort_order="desc"))[-1], "r4", "and last in either order")
    with refused(InvalidValue, "sort_by", "'config'"):
        await find(sort_by="config")
    with refused(InvalidValue, "sort_by", "'input'", "a number of some and a text of others"):
        await find(sort_by="input")


@check("query_rollouts combines its filters by filter_logic")
async def rollouts_by_filter(store: LightningStore) -> None:
    await store.enqueue_many_rollouts(
        [
            EnqueueRolloutRequest(
                input=i, rollout_id=f"r{i}", group_id=f"g{i % 2}", mode="train" if i < 4 else "val"
            )
            for i in range(6)
        ]
    )
    await take_one(store)
    find = _finder(store.query_rollouts, "rollout_id")
    expect(await find(status_in=["preparing"]), ["r0"], "status_in")
    expect(await find(status_in=[]), [], "status_in of none")
    expect(await find(rollout_id_in=["r5", "r1", "nobody"]), ["r1", "r5"], "rollout_id_in, in their order")
    expect(await find(rollout_id_contains="5"), ["r5"], "rollout_id_contains")
    expect(await find(group_id_in=["g1", "g0"], mode="val"), ["r4", "r5"], "group_id_in and mode")
    expect(await find(group_id_in=["g1"], rollout_id_in=["r0", "r3"]), ["r3"], "two filters")
    either = {"group_id_in": ["g1"], "rollout_id_in": ["r0", "r3"], "filter_logic": "or"}
    expect(await find(**either), ["r0", "r1", "r3", "r5"], "either of two filters")
    expect(await find(**either, status_in=["preparing"], mode="val"), ["r0", "r1", "r3", "r4", "r5"], "four")
    expect(await find(filter_logic="or", limit=1), ["r0"], "no filter at all, by 'or'")
    with refused(InvalidValue, "status_in", "'queuing'"):
        await find(status_in="queuing")
    with refused(InvalidValue, "filter_logic", "'xor'"):
        await find(filter_logic="xor")


@check("query_attempts sorts and pages; its own order is that of their sequence ids")
async def attempts_by_page(store: LightningStore) -> None:
    started = await store.start_rollout("x", worker_id="d")
    for worker_id in ("a", "c", "b"):
        await store.start_attempt(started.rollout_id, worker_id)
    find = _finder(store.query_attempts, "sequence_id", started.rollout_id)
    await _check_paging(find, [1, 2, 3, 4], "worker_id", [2, 4, 3, 1])
    expect(await find(sort_by=None), [1, 2, 3, 4], "sort_by=None")
    expect(await find(sort_by=None, sort_order="desc"), [4, 3, 2, 1], "their own order, from its end")
    expect(await find(sort_order="desc"), [4, 3, 2, 1], "the latest first")


@check("query_spans filters, sorts and pages; its own order is that of attempt and sequence id")
async def spans_by_page(store: LightningStore) -> None:
    started = await store.start_rollout("x")
    spans = [
        replace(make_span(started.attempt, i + 1), name=name, trace_id=f"t{i % 2}", parent_id=parent_id)
        for i, (name, parent_id) in enumerate(
            [("d", None), ("a", "span-1"), ("c", "span-1"), ("b", "span-2")]
        )
    ]
    await store.add_many_spans(spans)
    find = _finder(store.query_spans, "sequence_id", started.rollout_id)
    await _check_paging(find, [1, 2, 3, 4], "name", [2, 4, 3, 1])
    expect(await find(name="c"), [3], "name")
    expect(await find(name_contains="c"), [3], "name_contains")
    expect(await find(trace_id="t1"), [2, 4], "trace_id")
    expect(await find(trace_id_contains="t"), [1, 2, 3, 4], "trace_id_contains")
    expect(await find(span_id="span-2"), [2], "span_id")
    expect(await find(span_id_contains="-3"), [3], "span_id_contains")
    expect(await find(parent_id="span-1"), [2, 3], "parent_id")
    expect(await find(parent_id_contains="span"), [2, 3, 4], "parent_id_contains")
    expect(await find(parent_id="span-1", trace_id="t1"), [2], "two filters")
    expect(await find(parent_id="span-1", trace_id="t1", filter_logic="or"), [2, 3, 4], "either of two")
    expect(
        await find(attempt_id="latest", name="d", filter_logic="or"), [1], "the attempt, which is no filter"
    )
    with refused(InvalidValue, "filter_logic", "'xor'"):
        await find(filter_logic="xor")
    with refused(InvalidValue, "sort_by", "'attributes'"):
        await find(sort_by="attributes")


@check("query_resources filters, sorts and pages; the latest are at the end")
async def resources_by_page(store: LightningStore) -> None:
    for resources_id in ("d", "a", "c", "b"):
        await store.add_resources({"x": resources_id}, resources_id=resources_id)
    find = _finder(store.query_resources, "resources_id")
    await _check_paging(find, ["d", "a", "c", "b"], "resources_id", ["a", "b", "c", "d"])
    expect(await find(resources_id="c"), ["c"], "resources_id")
    expect(await find(resources_id_contains="a"), ["a"], "resources_id_contains")
    expect(await find(resources_id="nobody"), [], "an unknown id")
    await store.update_resources("d", {"x": 1})
    expect(await find(), ["a", "c", "b", "d"], "the order after an update")


@check("query_workers filters, sorts and pages; its own order is that in which they were heard of")
async def workers_by_page(store: LightningStore) -> None:
    await enqueue_some(store, 1)
    for worker_id in ("w-d", "w-a", "w-c", "w-b"):
        await store.update_worker(worker_id)
    find = _finder(store.query_workers, "worker_id")
    await _check_paging(find, ["w-d", "w-a", "w-c", "w-b"], "worker_id", ["w-a", "w-b", "w-c", "w-d"])
    await store.dequeue_rollout("w-c")
    expect(await find(status_in=["busy"]), ["w-c"], "status_in")
    expect(await find(worker_id_contains="-b"), ["w-b"], "worker_id_contains")
    expect(await find(status_in=["busy"], worker_id_contains="-b"), [], "both filters")
    expect(
        await find(status_in=["busy"], worker_id_contains="-b", filter_logic="or"), ["w-c", "w-b"], "either"
    )
    with refused(InvalidValue, "filter_logic", "'xor'"):
        await find(filter_logic="xor")
    at_work = [f"z-{9 - index}" for index in range(10)]
    for worker_id in at_work:
        await store.start_rollout("x", worker_id=worker_id)
    expect(await find(worker_id_contains="z-"), at_work, "the order of those that started attempts")


QUERIES = (
    rollouts_by_page,
    rollouts_by_filter,
    attempts_by_page,
    spans_by_page,
    resources_by_page,
    workers_by_page,
)

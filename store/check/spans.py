"""Spans: kept once, read back as they were, numbered by attempt."""

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np

from raybolt.store import names
from raybolt.store.base import LightningStore
from raybolt.store.check.rules import check, expect, expect_that, present, refused
from raybolt.store.check.samples import make_call_span, make_span, statuses
from raybolt.store.errors import InvalidValue, UnknownAttempt, UnknownRollout
from raybolt.store.types import SpanEvent


@check("A span is read back as it was recorded")
async def span_as_recorded(store: LightningStore) -> None:
    started = await store.start_rollout("x")
    attributes: dict[str, Any] = {
        names.PROMPT_IDS: np.array([1, 2, 3], np.int32),
        names.LOGPROBS: np.array([-1.5], np.float32),
        "empty": np.array([], np.int32),
        "long": np.array([2**40], np.int64),
        "double": np.array([0.1], np.float64),
        "bytes": np.array([255, 0], np.uint8),
        "plain": {"a": [1, None, True, "é"]},
        "scalar": np.float32(0.5),
    }
    span = replace(
        make_span(started.attempt, **attributes),
        parent_id="p",
        status="error",
        status_message="no",
        events=(SpanEvent("retry", 10.5, {"n": 1}),),
    )
    await store.add_span(span)
    (back,) = await store.query_spans(started.rollout_id)
    expect((back.name, back.start_time, back.end_time), ("chat", 10.0, 11.5), "name and times")
    expect((back.status, back.status_message), ("error", "no"), "status and its message")
    expect((back.trace_id, back.span_id, back.parent_id), ("trace-1", "span-1", "p"), "trace, id and parent")
    expect(back.events, (SpanEvent("retry", 10.5, {"n": 1}),), "events")
    arrays = {key: value for key, value in back.attributes.items() if isinstance(value, np.ndarray)}
    expect(
        {key: (value.dtype.name, value.tolist()) for key, value in arrays.items()},
        {
            names.PROMPT_IDS: ("int32", [1, 2, 3]),
            names.LOGPROBS: ("float32", [-1.5]),
            "empty": ("int32", []),
            "long": ("int64", [2**40]),
            "double": ("float64", [0.1]),
            "bytes": ("uint8", [255, 0]),
        },
        "arrays",
    )
    expect(back.attributes["plain"], {"a": [1, None, True, "é"]}, "a JSON attribute")
    expect(back.attributes["scalar"], 0.5, "a NumPy scalar")


@check("A span sent twice is kept once, and the second call says so")
async def repeated_spans(store: LightningStore) -> None:
    started = await store.start_rollout("x")
    spans = [make_span(started.attempt, i) for i in (2, 1)]
    added = await store.add_many_spans([*spans, spans[0]])
    expect([span.span_id for span in added], ["span-2", "span-1"], "the new ones of a batch")
    expect(list(await store.add_many_spans(spans)), [], "the new ones of the same batch again")
    expect(await store.add_span(spans[0]), None, "the answer for a span that is there")
    kept = await store.query_spans(started.rollout_id, "latest")
    expect([span.sequence_id for span in kept], [1, 2], "the spans kept")
    expect((await store.statistics())["spans"], 2, "the spans counted")
    third = make_span(started.attempt, 3)
    expect(await store.add_span(third) is third, True, "that a new span is returned")
    expect(list(await store.add_many_spans([])), [], "the new ones of none")


@check("Two attempts may have spans of one id, and each keeps its own")
async def same_id_in_two_attempts(store: LightningStore) -> None:
    first = await store.start_rollout("x")
    second = await store.start_attempt(first.rollout_id)
    present(await store.add_span(make_span(first.attempt)), "the first attempt's span")
    present(await store.add_span(make_span(second.attempt)), "the second attempt's span")
    expect(len(await store.query_spans(first.rollout_id)), 2, "the spans of both")


@check("Spans are read by attempt, and in order of attempt and sequence id")
async def spans_by_attempt(store: LightningStore) -> None:
    first = await store.start_rollout("x")
    second = await store.start_attempt(first.rollout_id)
    await store.add_many_spans(
        [make_span(second.attempt, 1), make_span(first.attempt, 3), make_span(first.attempt, 2)]
    )
    rollout_id, a, b = first.rollout_id, first.attempt.attempt_id, second.attempt.attempt_id

    async def found(attempt_id: str | None) -> list[tuple[str, int]]:
        return [(s.attempt_id, s.sequence_id) for s in await store.query_spans(rollout_id, attempt_id)]

    expect(await found(None), [(a, 2), (a, 3), (b, 1)], "all spans")
    expect(await found("latest"), [(b, 1)], "those of the latest attempt")
    expect(await found(a), [(a, 2), (a, 3)], "those of one attempt")


@check("An array that the store cannot keep is refused by its name, and so are other values")
async def refused_attributes(store: LightningStore) -> None:
    started = await store.start_rollout("x")
    with refused(InvalidValue, "'m'", "(1, 2)", "1-D"):
        await store.add_span(make_span(started.attempt, m=np.zeros((1, 2), np.float32)))
    with refused(InvalidValue, "'m'", "complex128", "int32"):
        await store.add_span(make_span(started.attempt, m=np.zeros(2, np.complex128)))
    with refused(InvalidValue, "span 'chat'"):
        await store.add_span(make_span(started.attempt, m=[np.zeros(2)]))
    with refused(InvalidValue, "span 'chat'"):
        await store.add_many_spans([make_span(started.attempt, 1), make_span(started.attempt, 2, m=object())])
    expect(await store.query_spans(started.rollout_id), [], "what was kept of them")


@check("A batch with one unknown attempt adds nothing, and no attempt hears of it")
async def batch_with_a_stranger(store: LightningStore) -> None:
    started, other = await store.start_rollout("x"), await store.start_rollout("y")
    good = make_span(started.attempt, 1)
    for attempt_id in ("nobody", other.attempt.attempt_id, "latest"):
        with refused(UnknownAttempt, repr(attempt_id)):
            await store.add_many_spans([good, replace(good, attempt_id=attempt_id)])
    for index in range(8):  # of which a store of several shards has some elsewhere
        elsewhere = await store.start_rollout(index)
        with refused(UnknownAttempt, "'nobody'"):
            await store.add_many_spans([good, replace(make_span(elsewhere.attempt), attempt_id="nobody")])
    with refused(UnknownRollout, "'nobody'"):
        await store.add_many_spans([good, replace(good, rollout_id="nobody")])
    expect(await store.query_spans(started.rollout_id), [], "the spans kept")
    expect(await statuses(store), ["preparing"] * 10, "the rollouts")
    with refused(UnknownRollout, "'nobody'"):
        await store.query_spans("nobody")
    with refused(UnknownAttempt, "'nobody'"):
        await store.query_spans(started.rollout_id, "nobody")


@check("Sequence ids are 1, 2, … for each attempt, and go on above explicit ones")
async def sequence_ids(store: LightningStore) -> None:
    first, other = await store.start_rollout("x"), await store.start_rollout("y")
    a = (first.rollout_id, first.attempt.attempt_id)
    b = (other.rollout_id, other.attempt.attempt_id)
    expect([await store.get_next_span_sequence_id(*a) for _ in range(2)], [1, 2], "the first numbers")
    expect(await store.get_many_span_sequence_ids([a, b, a]), [3, 1, 4], "the next, of two attempts")
    await store.add_span(make_span(first.attempt, 20))
    await store.add_span(make_span(other.attempt, 7))
    expect(await store.get_many_span_sequence_ids([b, a]), [8, 21], "those above explicit ones")
    await store.add_span(make_span(first.attempt, 5))
    expect(await store.get_next_span_sequence_id(*a), 22, "the next after a lower one")
    second = await store.start_attempt(first.rollout_id)
    expect(
        await store.get_next_span_sequence_id(first.rollout_id, second.attempt.attempt_id), 1, "a new attempt"
    )
    with refused(UnknownRollout, "'nobody'"):
        await store.get_next_span_sequence_id("nobody", "at")
    with refused(UnknownAttempt, "'nobody'"):
        await store.get_many_span_sequence_ids([a, (first.rollout_id, "nobody")])
    expect(await store.get_next_span_sequence_id(*a), 23, "the next after what was refused")


@check("Nobody gets a number that another got")
async def concurrent_numbers(store: LightningStore) -> None:
    started = await store.start_rollout("x")
    ids = (started.rollout_id, started.attempt.attempt_id)
    numbers = await asyncio.gather(*(store.get_next_span_sequence_id(*ids) for _ in range(30)))
    expect(sorted(numbers), list(range(1, 31)), "the numbers handed out")


@check("A span of OpenTelemetry's SDK becomes a span of the attempt, numbered unless it has a number")
async def otel_spans(store: LightningStore) -> None:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Status, StatusCode

    started = await store.start_rollout("x")
    ids = (started.rollout_id, started.attempt.attempt_id)
    resource = Resource({"service.name": "agent"})
    tracer = TracerProvider(resource=resource, shutdown_on_exit=False).get_tracer("check")
    outer = tracer.start_span("outer", attributes={"n": 1, "l": ["a", "b"]})
    outer.add_event("half way", {"k": 2})
    outer.set_status(Status(StatusCode.ERROR, "broke"))
    outer.end()
    inner = tracer.start_span("inner")
    inner.end()
    expect(present(await store.add_otel_span(*ids, outer), "the first span").sequence_id, 1, "its number")  # type: ignore[arg-type]
    expect(await store.add_otel_span(*ids, outer), None, "the answer for the span that is there")  # type: ignore[arg-type]
    added = present(await store.add_otel_span(*ids, inner, 9), "the second span")  # type: ignore[arg-type]
    expect(added.sequence_id, 9, "the number that was given")
    back, second = await store.query_spans(*ids)
    context = outer.get_span_context()
    expect((back.trace_id, back.span_id), (f"{context.trace_id:032x}", f"{context.span_id:016x}"), "its ids")
    expect((back.name, back.status, back.status_message), ("outer", "error", "broke"), "name and status")
    expect(
        dict(back.attributes),
        {
            "n": 1,
            "l": ["a", "b"],
            names.SCOPE_NAME: "check",
            names.RESOURCE_ATTRIBUTES: {"service.name": "agent"},
        },
        "attributes, scope and resource",
    )
    expect([(e.name, dict(e.attributes)) for e in back.events], [("half way", {"k": 2})], "events")
    expect((second.name, second.status, second.parent_id), ("inner", "unset", None), "the other")
    expect_that(
        1e9 < back.start_time <= back.end_time, "times", expected="seconds, in order", seen=back.start_time
    )
    open_span = tracer.start_span("open")
    with refused(InvalidValue, "'open'", "not ended"):
        await store.add_otel_span(*ids, open_span)  # type: ignore[arg-type]
    with refused(UnknownAttempt, "'nobody'"):
        await store.add_otel_span(started.rollout_id, "nobody", inner)  # type: ignore[arg-type]
    open_span.end()


@check("Writers at work at the same time lose nothing")
async def concurrent_writers(store: LightningStore) -> None:
    started = await asyncio.gather(*(store.start_rollout(i) for i in range(8)))

    async def write(index: int) -> None:
        attempt = started[index].attempt
        for batch in range(5):
            spans = [make_call_span(attempt, 10 * batch + i) for i in range(10)]
            expect(list(await store.add_many_spans(spans)) == spans, True, "that each batch was new")

    await asyncio.gather(*(write(index) for index in range(8)))
    for one in started:
        kept = await store.query_spans(one.rollout_id)
        expect([span.sequence_id for span in kept], list(range(50)), "the spans of a writer")


@check("Two writers with one attempt id lose nothing and double nothing")
async def two_writers_of_one_attempt(store: LightningStore) -> None:
    started = await store.start_rollout("x")
    spans = [make_span(started.attempt, i) for i in range(40)]
    batches = [spans[i : i + 10] for i in range(0, 40, 10)] + [spans[i : i + 20] for i in (0, 20)]
    answers = await asyncio.gather(*(store.add_many_spans(batch) for batch in batches))
    added = sorted(span.sequence_id for answer in answers for span in answer)
    expect(added, list(range(40)), "what the answers together call new")
    kept = await store.query_spans(started.rollout_id)
    expect([span.sequence_id for span in kept], list(range(40)), "the spans kept")


SPANS = (
    span_as_recorded,
    repeated_spans,
    same_id_in_two_attempts,
    spans_by_attempt,
    refused_attributes,
    batch_with_a_stranger,
    sequence_ids,
    concurrent_numbers,
    otel_spans,
    concurrent_writers,
    two_writers_of_one_attempt,
)

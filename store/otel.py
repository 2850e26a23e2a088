"""Spans of ours as OpenTelemetry's, for any exporter of its SDK, and those of its SDK as ours."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from . import names
from .errors import InvalidValue, StoreError
from .types import Span, SpanEvent, SpanStatus

_SCOPE = InstrumentationScope("raybolt")
_STATUS = {"ok": StatusCode.OK, "error": StatusCode.ERROR, "unset": StatusCode.UNSET}


def export_spans(
    spans: Iterable[Span], exporter: SpanExporter, *, resource: Mapping[str, str] | None = None
) -> int:
    """Gives the spans to an exporter (OTLP, console, Jaeger, …) and returns how many there were.

    `resource` describes the process that they came from; its `service.name` is "raybolt" unless given.
    The exporter stays open.

    Raises:
        StoreError: the exporter reports failure.
    """
    source = Resource({"service.name": "raybolt", **(resource or {})})
    batch = [to_otel(span, source) for span in spans]
    if batch and exporter.export(batch) is not SpanExportResult.SUCCESS:
        raise StoreError(
            f"{type(exporter).__name__} did not take {len(batch)} spans; its own log says why (the "
            "collector's address, most often). Nothing is lost: the store still has them"
        )
    return len(batch)


def to_otel(span: Span, resource: Resource | None = None) -> ReadableSpan:
    """The span as the SDK's exporters take it.

    OpenTelemetry's attributes are scalars and flat lists: arrays become lists of numbers, other values that
    hold values become JSON text, as the GenAI conventions have it. Rollout, attempt and sequence id become
    attributes.
    """
    ids = {
        names.ROLLOUT_ID: span.rollout_id,
        names.ATTEMPT_ID: span.attempt_id,
        names.SEQUENCE_ID: span.sequence_id,
    }
    parent = None if span.parent_id is None else _context(span, span.parent_id)
    return ReadableSpan(
        name=span.name,
        context=_context(span, span.span_id),
        parent=parent,
        resource=resource,
        attributes=_attributes({**span.attributes, **ids}),
        events=[
            Event(event.name, _attributes(event.attributes), _nanoseconds(event.time))
            for event in span.events
        ],
        status=Status(_STATUS[span.status], span.status_message if span.status == "error" else None),
        start_time=_nanoseconds(span.start_time),
        end_time=_nanoseconds(span.end_time),
        instrumentation_scope=_SCOPE,
    )


def from_otel(span: ReadableSpan, rollout_id: str, attempt_id: str, sequence_id: int) -> Span:
    """The span of an SDK tracer as ours. Lists of ints stay lists; bytes become their `repr`.

    Raises:
        InvalidValue: it has not ended, or has no context.
    """
    if span.context is None or span.start_time is None or span.end_time is None:
        raise InvalidValue(f"span {span.name!r} has not ended (or has no context); add it from on_end")
    status: SpanStatus = "error" if span.status.status_code is StatusCode.ERROR else "ok"
    return Span(
        rollout_id=rollout_id,
        attempt_id=attempt_id,
        sequence_id=sequence_id,
        trace_id=f"{span.context.trace_id:032x}",
        span_id=f"{span.context.span_id:016x}",
        parent_id=None if span.parent is None else f"{span.parent.span_id:016x}",
        name=span.name,
        start_time=span.start_time / 1e9,
        end_time=span.end_time / 1e9,
        status="unset" if span.status.status_code is StatusCode.UNSET else status,
        status_message=span.status.description,
        attributes={name: _plain(value) for name, value in (span.attributes or {}).items()},
        events=tuple(
            SpanEvent(
                event.name,
                event.timestamp / 1e9,
                {name: _plain(value) for name, value in (event.attributes or {}).items()},
            )
            for event in span.events
        ),
    )


def _plain(value: Any) -> Any:
    """An OpenTelemetry value as JSON."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, str | bool | int | float) else repr(value)


def _context(span: Span, span_id: str) -> SpanContext:
    try:
        ids = int(span.trace_id, 16), int(span_id, 16)
    except ValueError:
        raise InvalidValue(
            f"span {span_id!r} of trace {span.trace_id!r}: OpenTelemetry's ids are 16 and 32 hex digits"
        ) from None
    return SpanContext(*ids, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def _attributes(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _flat(value) for name, value in values.items() if value is not None}


def _flat(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple) and _is_flat(value):
        return list(value)
    return value if isinstance(value, str | bool | int | float) else json.dumps(value, ensure_ascii=False)


def _is_flat(values: list[Any] | tuple[Any, ...]) -> bool:
    """Whether all are scalars of one type, as OpenTelemetry's lists are."""
    return (
        all(isinstance(value, str | bool | int | float) for value in values)
        and len(set(map(type, values))) < 2
    )


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e6) * 1000  # a float of seconds since the epoch is no finer

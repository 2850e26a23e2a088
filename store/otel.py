"""Spans of ours as OpenTelemetry's, for any exporter of its SDK, and those of its SDK as ours."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util import BoundedList
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.trace.status import Status, StatusCode

from . import names
from .errors import InvalidValue, StoreError
from .otel_facts import IS_REMOTE, OWN_RESOURCE, UNNAMED, SpanFacts, is_count, link, taken_facts
from .types import Span, SpanEvent, SpanStatus

_STATUS = {"ok": StatusCode.OK, "error": StatusCode.ERROR, "unset": StatusCode.UNSET}


def export_spans(
    spans: Iterable[Span], exporter: SpanExporter, *, resource: Mapping[str, str] | None = None
) -> int:
    """Gives the spans to an exporter (OTLP, console, Jaeger, …) and returns how many there were.

    `resource` describes the process that they came from; its `service.name` is "raybolt" unless given.
    Spans that came from OpenTelemetry have their own. The exporter stays open.

    Raises:
        StoreError: the exporter reports failure.
    """
    source = Resource({**OWN_RESOURCE, **(resource or {})})
    batch = [to_otel(span, source) for span in spans]
    if batch and exporter.export(batch) is not SpanExportResult.SUCCESS:
        raise StoreError(
            f"{type(exporter).__name__} did not take {len(batch)} spans; its own log says why (the "
            "collector's address, most often). Nothing is lost: the store still has them"
        )
    return len(batch)


def to_otel(span: Span, resource: Resource | None = None) -> ReadableSpan:
    """The span as the SDK's exporters take it; one without a resource of its own gets the one given.

    OpenTelemetry's attributes are scalars and flat lists: arrays become lists of numbers, other values that
    hold values become JSON text, as the GenAI conventions have it. Rollout, attempt and sequence id become
    attributes. What `from_otel` keeps as attributes, such as scope and resource, goes back into its place.
    """
    ids = {
        names.ROLLOUT_ID: span.rollout_id,
        names.ATTEMPT_ID: span.attempt_id,
        names.SEQUENCE_ID: span.sequence_id,
    }
    facts, others = taken_facts(span.attributes)
    parent = None if span.parent_id is None else _context(span.trace_id, span.parent_id, facts.flags)
    return ReadableSpan(
        name=span.name,
        context=_context(span.trace_id, span.span_id, facts.flags & ~IS_REMOTE, facts.trace_state),
        parent=parent,
        resource=_resource(facts) or resource or Resource(OWN_RESOURCE),
        attributes=_bounded({**others, **ids}, facts.dropped_attributes),
        events=_bounded_list([_event(event) for event in span.events], facts.dropped_events),
        links=_bounded_list([_link(each) for each in facts.links], facts.dropped_links),
        kind=SpanKind[facts.kind.upper()],
        status=Status(_STATUS[span.status], span.status_message if span.status == "error" else None),
        start_time=_nanoseconds(span.start_time),
        end_time=_nanoseconds(span.end_time),
        instrumentation_scope=InstrumentationScope(
            facts.scope_name,
            facts.scope_version or None,
            facts.scope_schema_url or None,
            _attributes(facts.scope_attributes),
        ),
    )


def from_otel(span: ReadableSpan, rollout_id: str, attempt_id: str, sequence_id: int) -> Span:
    """The span of an SDK tracer as ours. Lists of ints stay lists; bytes become their `repr`.

    Scope, resource, links, kind and whatever else ours has no field for become attributes, see `SpanFacts`.

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
        name=span.name or UNNAMED,
        start_time=span.start_time / 1e9,
        end_time=span.end_time / 1e9,
        status="unset" if span.status.status_code is StatusCode.UNSET else status,
        status_message=span.status.description,
        attributes={**_plain_attributes(span.attributes), **facts_of(span).as_attributes()},
        events=tuple(
            SpanEvent(
                event.name or UNNAMED,
                event.timestamp / 1e9,
                _with_dropped(_plain_attributes(event.attributes), event.dropped_attributes),
            )
            for event in span.events
        ),
    )


def facts_of(span: ReadableSpan) -> SpanFacts:
    """What the span says and ours has no field for."""
    scope, context = span.instrumentation_scope, span.context
    about: dict[str, Any] = {}
    if scope is not None:
        about = {
            "scope_name": scope.name,
            "scope_version": scope.version or "",
            "scope_schema_url": scope.schema_url or "",
            "scope_attributes": _plain_attributes(scope.attributes),
        }
    return SpanFacts(
        **about,
        resource_attributes=_plain_attributes(span.resource.attributes),
        resource_schema_url=span.resource.schema_url,
        kind=span.kind.name.lower(),
        trace_state=context.trace_state.to_header(),
        flags=context.trace_flags | (IS_REMOTE if span.parent is not None and span.parent.is_remote else 0),
        links=[
            link(
                f"{each.context.trace_id:032x}",
                f"{each.context.span_id:016x}",
                trace_state=each.context.trace_state.to_header(),
                flags=each.context.trace_flags | (IS_REMOTE if each.context.is_remote else 0),
                attributes=_plain_attributes(each.attributes),
                dropped_attributes=each.dropped_attributes,
            )
            for each in span.links
        ],
        dropped_attributes=span.dropped_attributes,
        dropped_events=span.dropped_events,
        dropped_links=span.dropped_links,
    )


def _plain_attributes(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: _plain(value) for name, value in (attributes or {}).items()}


def _with_dropped(attributes: dict[str, Any], dropped: int) -> dict[str, Any]:
    return {**attributes, names.DROPPED_ATTRIBUTES: dropped} if dropped else attributes


def _plain(value: Any) -> Any:
    """An OpenTelemetry value as JSON."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, str | bool | int | float) else repr(value)


def _context(trace_id: str, span_id: str, flags: int, trace_state: str = "") -> SpanContext:
    try:
        ids = int(trace_id, 16), int(span_id, 16)
    except ValueError:
        raise InvalidValue(
            f"span {span_id!r} of trace {trace_id!r}: OpenTelemetry's ids are 16 and 32 hex digits"
        ) from None
    return SpanContext(
        *ids,
        is_remote=bool(flags & IS_REMOTE),
        trace_flags=TraceFlags(flags & 0xFF or TraceFlags.SAMPLED),  # what is exported was sampled
        trace_state=TraceState.from_header([trace_state]),
    )


def _resource(facts: SpanFacts) -> Resource | None:
    if not facts.resource_attributes and not facts.resource_schema_url:
        return None
    return Resource(_attributes(facts.resource_attributes), facts.resource_schema_url)


def _link(given: Mapping[str, Any]) -> Link:
    context = _context(
        given["trace_id"], given["span_id"], given.get("flags", 0), given.get("trace_state", "")
    )
    attributes = given.get("attributes", {})
    return Link(context, _bounded(attributes, given.get("dropped_attributes_count", 0)))


def _event(event: SpanEvent) -> Event:
    attributes = dict(event.attributes)
    known = is_count(attributes.get(names.DROPPED_ATTRIBUTES))
    dropped = attributes.pop(names.DROPPED_ATTRIBUTES) if known else 0
    return Event(event.name, _bounded(attributes, dropped), _nanoseconds(event.time))


def _bounded(values: Mapping[str, Any], num_dropped: int) -> Mapping[str, Any]:
    """The attributes as the SDK has them of which some were dropped."""
    attributes = _attributes(values)
    if not num_dropped:
        return attributes
    bounded = BoundedAttributes(attributes=attributes)
    bounded.dropped = num_dropped
    return bounded


def _bounded_list(values: Sequence[Any], num_dropped: int) -> Sequence[Any]:
    if not num_dropped:
        return values
    bounded = BoundedList.from_seq(len(values), values)
    bounded.dropped = num_dropped
    return bounded


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

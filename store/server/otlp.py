"""OTLP/HTTP traces: spans of any OpenTelemetry exporter, put where their attributes say.

A span, or the resource of its process, names rollout and attempt by ``raybolt.rollout_id`` and
``raybolt.attempt_id`` (Agent Lightning's names do as well), and may have a sequence id; without one it gets
the attempt's next. Spans that cannot be placed are counted in a partial success, as OTLP has it: their
sender must not send them again, and the others are kept.
"""

import asyncio
import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from aiohttp import web
from google.protobuf.json_format import MessageToJson, ParseDict
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from raybolt.store import names
from raybolt.store.client import StoreClient
from raybolt.store.errors import InvalidValue, UnknownAttempt, UnknownRollout
from raybolt.store.otel_facts import KINDS, UNNAMED, SpanFacts, link
from raybolt.store.rows import SpanRow, pack_span
from raybolt.store.types import AttributeValue, Json, Span, SpanEvent, SpanStatus
from raybolt.store.wire import load

from .bodies import check_media_type, read_body, reply
from .problems import HttpProblem, headers_of, status_and_error

PROTOBUF_TYPE = "application/x-protobuf"
_JSON_TYPE = "application/json"

_ROLLOUT_IDS = (names.ROLLOUT_ID, "agentlightning.rollout_id")
_ATTEMPT_IDS = (names.ATTEMPT_ID, "agentlightning.attempt_id")
_SEQUENCE_IDS = (names.SEQUENCE_ID, "agentlightning.span_sequence_id")
_ARRAYS = {
    names.PROMPT_IDS: np.dtype("int32"),
    names.RESPONSE_IDS: np.dtype("int32"),
    names.LOGPROBS: np.dtype("float32"),
}
"""Lists of numbers that are arrays with us."""
_STATUS: tuple[SpanStatus, ...] = ("unset", "ok", "error")
_ID_KEYS = ("traceId", "spanId", "parentSpanId")
_ID_BYTES = (16, 8)
"""Of a trace's and of a span's."""
_SHOWN_REASONS = 3
_UNNUMBERED = 0


class TraceReceiver:
    """Takes what exporters send to ``/v1/traces``."""

    def __init__(self, store: StoreClient, max_body_bytes: int) -> None:
        self._store = store
        self._max_body_bytes = max_body_bytes

    async def receive(self, request: web.Request) -> web.StreamResponse:
        """Answers in the encoding of the request, errors too."""
        kind = check_media_type(request, PROTOBUF_TYPE, _JSON_TYPE)
        try:
            body = await read_body(request, self._max_body_bytes)
            traces = _parsed(body) if kind == PROTOBUF_TYPE else _parsed_json(body)
            answer = await self._keep(traces)
        except Exception as error:
            known = status_and_error(error)
            if known is None or kind == _JSON_TYPE:
                raise
            refusal = reply(request, _status_message(str(known[1])), PROTOBUF_TYPE, status=known[0])
            refusal.headers.update(headers_of(*known))
            return refusal
        if kind == PROTOBUF_TYPE:
            return reply(request, answer.SerializeToString(), PROTOBUF_TYPE)
        return reply(request, MessageToJson(answer, indent=None).encode())

    async def _keep(self, traces: Any) -> Any:
        _check_size(traces, self._max_body_bytes)
        spans, reasons = _placed(traces)
        by_attempt: dict[tuple[str, str], list[Span]] = {}
        for span in spans:
            by_attempt.setdefault((span.rollout_id, span.attempt_id), []).append(span)
        for refused in await asyncio.gather(*(self._add(ids, own) for ids, own in by_attempt.items())):
            reasons += refused
        answer = ExportTraceServiceResponse()
        if reasons:
            answer.partial_success.rejected_spans = len(reasons)
            answer.partial_success.error_message = "; ".join(list(dict.fromkeys(reasons))[:_SHOWN_REASONS])
        return answer

    async def _add(self, ids: tuple[str, str], spans: list[Span]) -> list[str]:
        """Adds an attempt's spans; returns why each that was refused was."""
        try:
            numbered, unnumbered = await self._numbered(ids, spans)
            rows, reasons = _packed(numbered)
            await self._store._ask("add_rows", rows=rows)
        except (UnknownRollout, UnknownAttempt) as error:
            return [str(error)] * len(spans)
        return unnumbered + reasons

    async def _numbered(self, ids: tuple[str, str], spans: list[Span]) -> tuple[list[Span], list[str]]:
        """The spans, the unnumbered ones with numbers as they began; why those are left out that get none."""
        missing = [index for index, span in enumerate(spans) if span.sequence_id == _UNNUMBERED]
        if not missing:
            return spans, []
        try:
            numbers = await self._store._ask("next_sequence_ids", pairs=[ids] * len(missing))
        except InvalidValue as error:
            return [span for span in spans if span.sequence_id != _UNNUMBERED], [str(error)] * len(missing)
        missing.sort(key=lambda index: spans[index].start_time)
        for index, number in zip(missing, numbers, strict=True):
            spans[index] = replace(spans[index], sequence_id=number)
        return spans, []


def _packed(spans: Iterable[Span]) -> tuple[list[SpanRow], list[str]]:
    """The spans as rows, and for each that the store cannot keep the reason."""
    rows, reasons = [], []
    for span in spans:
        try:
            rows.append(pack_span(span))
        except InvalidValue as error:
            reasons.append(str(error))
    return rows, reasons


def _placed(traces: Any) -> tuple[list[Span], list[str]]:
    """The spans as ours, and for each that cannot be one the reason."""
    spans, reasons = [], []
    for of_resource in traces.resource_spans:
        about, places = _about(of_resource)
        for of_scope in of_resource.scope_spans:
            shared = _facts_of_scope(of_scope, of_resource, about)
            for span in of_scope.spans:
                try:
                    spans.append(_span(span, shared, places))
                except InvalidValue as error:
                    reasons.append(str(error))
    return spans, reasons


def _check_size(traces: Any, max_bytes: int) -> None:
    """Raises HttpProblem for a body that is too large with each span's resource and scope written out."""
    num_bytes = 0
    for of_resource in traces.resource_spans:
        for_all = of_resource.resource.ByteSize() + len(of_resource.schema_url)
        for of_scope in of_resource.scope_spans:
            for_each = for_all + of_scope.scope.ByteSize() + len(of_scope.schema_url)
            num_bytes += for_each * len(of_scope.spans)
    if num_bytes > max_bytes:
        raise HttpProblem(
            413,
            InvalidValue(
                f"the spans have more than {max_bytes} bytes together with the resource and scope that each "
                "is kept with; send less at a time, or with a smaller resource"
            ),
        )


def _about(of_resource: Any) -> tuple[dict[str, Json], dict[str, Json]]:
    """A resource's attributes, apart from those that place its spans, and these."""
    about = _plain_attributes(of_resource.resource.attributes)
    places = {
        name: about.pop(name) for name in (*_ROLLOUT_IDS, *_ATTEMPT_IDS, *_SEQUENCE_IDS) if name in about
    }
    return about, places


def _span(span: Any, shared: Mapping[str, Json], places: Mapping[str, Json]) -> Span:
    attributes = {**_plain_attributes(span.attributes), **shared, **_facts(span).as_attributes()}
    rollout_id = _taken(attributes, places, _ROLLOUT_IDS)
    attempt_id = _taken(attributes, places, _ATTEMPT_IDS)
    sequence_id = _taken(attributes, places, _SEQUENCE_IDS)
    if not isinstance(rollout_id, str) or not isinstance(attempt_id, str):
        raise InvalidValue(
            f"spans without the attributes {names.ROLLOUT_ID} and {names.ATTEMPT_ID} belong to no attempt; "
            "set them on each span, or in OTEL_RESOURCE_ATTRIBUTES"
        )
    if sequence_id is not None and type(sequence_id) is not int:
        raise InvalidValue(f"{names.SEQUENCE_ID} is {sequence_id!r}; give a whole number")
    if (len(span.trace_id), len(span.span_id)) != _ID_BYTES:
        raise InvalidValue("spans whose ids do not have 16 and 8 bytes are none of OpenTelemetry's")
    if span.end_time_unix_nano == 0:
        raise InvalidValue(f"span {span.name!r} has not ended; export it when it has")
    return Span(
        rollout_id=rollout_id,
        attempt_id=attempt_id,
        sequence_id=_UNNUMBERED if sequence_id is None else sequence_id,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex() or None,
        name=span.name or UNNAMED,
        start_time=span.start_time_unix_nano / 1e9,
        end_time=span.end_time_unix_nano / 1e9,
        status=_STATUS[span.status.code] if 0 <= span.status.code < len(_STATUS) else "unset",
        status_message=span.status.message or None,
        attributes={name: _with_array(name, value) for name, value in attributes.items()},
        events=tuple(
            SpanEvent(event.name or UNNAMED, event.time_unix_nano / 1e9, _event_attributes(event))
            for event in span.events
        ),
    )


def _facts_of_scope(of_scope: Any, of_resource: Any, about: Mapping[str, Json]) -> dict[str, Json]:
    """What all spans of the scope have in common, made once for them, as attributes."""
    scope = of_scope.scope
    return SpanFacts(
        scope_name=scope.name,
        scope_version=scope.version,
        scope_schema_url=of_scope.schema_url,
        scope_attributes=_plain_attributes(scope.attributes),
        resource_attributes=about,
        resource_schema_url=of_resource.schema_url,
    ).as_attributes()


def _facts(span: Any) -> SpanFacts:
    links = [each for each in span.links if (len(each.trace_id), len(each.span_id)) == _ID_BYTES]
    return SpanFacts(
        kind=KINDS[span.kind - 1] if 0 < span.kind <= len(KINDS) else KINDS[0],
        trace_state=span.trace_state,
        flags=span.flags,
        links=[
            link(
                each.trace_id.hex(),
                each.span_id.hex(),
                trace_state=each.trace_state,
                flags=each.flags,
                attributes=_plain_attributes(each.attributes),
                dropped_attributes=each.dropped_attributes_count,
            )
            for each in links
        ],
        dropped_attributes=span.dropped_attributes_count,
        dropped_events=span.dropped_events_count,
        dropped_links=span.dropped_links_count + len(span.links) - len(links),
    )


def _event_attributes(event: Any) -> dict[str, Json]:
    dropped = event.dropped_attributes_count
    return {
        **_plain_attributes(event.attributes),
        **({names.DROPPED_ATTRIBUTES: dropped} if dropped else {}),
    }


def _taken(attributes: dict[str, Json], shared: Mapping[str, Json], known: Sequence[str]) -> Json:
    """The first of the attributes that is there, on the span (which then lacks it) or its resource."""
    own = [attributes.pop(name, None) for name in known]
    found = [*own, *(shared.get(name) for name in known)]
    return next((value for value in found if value is not None), None)


def _with_array(name: str, value: Json) -> AttributeValue:
    if name not in _ARRAYS or not isinstance(value, list):
        return value
    if not all(type(each) in (int, float) for each in value):
        raise InvalidValue(f"attribute {name!r} is no list of numbers")
    dtype = _ARRAYS[name]
    try:
        if dtype.kind == "i" and any(each != int(each) for each in value):
            raise ValueError
        with np.errstate(over="raise"):
            return np.array(value, dtype)
    except (ValueError, OverflowError, FloatingPointError):
        raise InvalidValue(f"attribute {name!r} has numbers that no {dtype} can hold") from None


def _plain_attributes(pairs: Iterable[Any]) -> dict[str, Json]:
    return {pair.key: _plain(pair.value) for pair in pairs}


def _plain(value: Any) -> Json:
    """An OTLP value as JSON; bytes as base64, as in OTLP's own JSON."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    content = getattr(value, kind)
    if kind == "array_value":
        return [_plain(each) for each in content.values]
    if kind == "kvlist_value":
        return _plain_attributes(content.values)
    if kind == "bytes_value":
        return base64.b64encode(content).decode()
    return content


def _parsed(body: bytes) -> Any:
    try:
        return ExportTraceServiceRequest.FromString(body)
    except DecodeError as error:
        raise InvalidValue(f"the body is no OTLP trace request: {error}") from None


def _parsed_json(body: bytes) -> Any:
    """OTLP's JSON is protobuf's but for the ids, which are hex instead of base64."""
    content = load(body, "the body")
    try:
        for span in _json_spans(content):
            for record in (span, *(span.get("links") or ())):
                for key in _ID_KEYS:
                    if key in record:
                        record[key] = base64.b64encode(bytes.fromhex(record[key])).decode()
        return ParseDict(content, ExportTraceServiceRequest(), ignore_unknown_fields=True)
    except Exception as error:  # whatever a field's conversion raises when its content is of another type
        raise InvalidValue(f"the body is no OTLP trace request: {error}") from None


def _json_spans(content: Json) -> list[dict[str, Json]]:
    return [
        span
        for of_resource in content.get("resourceSpans") or ()
        for of_scope in of_resource.get("scopeSpans") or ()
        for span in of_scope.get("spans") or ()
    ]


def _status_message(text: str) -> bytes:
    """A ``google.rpc.Status`` with this message, which is what OTLP wants of errors: field 2, a string."""
    content = text.encode(errors="replace")
    length, size = b"", len(content)
    while size > 0x7F:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return b"\x12" + length + bytes([size]) + content

"""What OpenTelemetry says of a span comes back from the store: resource, scope, links, kind, dropped."""

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)
from store_http import request, served

from raybolt.store import AttemptedRollout, LocalStore, Span, names
from raybolt.store.otel import export_spans, from_otel, to_otel
from raybolt.store.otel_facts import taken_facts

encoder = pytest.importorskip("opentelemetry.exporter.otlp.proto.common.trace_encoder")
exporters = pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")

START = 1_700_000_000_250_000_000
"""Nanoseconds; a multiple of 1000, as fine as the store's times are."""
SOURCE = Resource(
    {"service.name": "sql-agent", "process.pid": 7, "process.command_args": ["python", "agent.py"]},
    "https://schema.example/2.0",
)


@pytest.fixture
async def store() -> AsyncIterator[LocalStore]:
    async with LocalStore() as local:
        yield local


def context(number: int, *, is_remote: bool, state: str = "") -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED | TraceFlags.RANDOM_TRACE_ID)
    return SpanContext(number, number, is_remote, flags, TraceState.from_header([state]))


def recorded(started: AttemptedRollout) -> ReadableSpan:
    """A span with everything that the SDK can say of one, of which its limits dropped some."""
    limits = SpanLimits(
        max_span_attributes=4, max_events=1, max_links=2, max_event_attributes=1, max_link_attributes=1
    )
    provider = TracerProvider(resource=SOURCE, span_limits=limits, shutdown_on_exit=False)
    tracer = provider.get_tracer("their.library", "1.2.3", "https://schema.example/1.0", {"team": "blue"})
    parent = NonRecordingSpan(context(0xABC, is_remote=True, state="vendor=1,other=2"))
    span = tracer.start_span(
        "call",
        set_span_in_context(parent),
        kind=SpanKind.CLIENT,
        links=[
            Link(context(7, is_remote=False)),  # which the limits drop
            Link(context(8, is_remote=True), {"why": "batched", "dropped": 1}),
            Link(context(9, is_remote=False)),
        ],
        start_time=START,
    )
    for number in range(4):
        span.set_attribute(f"n{number}", number)
    span.set_attribute(names.ROLLOUT_ID, started.rollout_id)
    span.set_attribute(names.ATTEMPT_ID, started.attempt.attempt_id)
    span.add_event("dropped", timestamp=START)
    span.add_event("retry", {"a": 1, "b": 2}, timestamp=START + 1000)
    span.set_status(Status(StatusCode.ERROR, "no"))
    span.end(START + 2000)
    assert isinstance(span, ReadableSpan)
    return span


def encoded(span: ReadableSpan) -> tuple[Any, dict[str, Any]]:
    """Resource and scope, and the span less what says where it belongs, as OTLP has them."""
    fields = MessageToDict(encoder.encode_spans([span]).resource_spans[0])
    (only,) = fields["scopeSpans"][0].pop("spans")
    only["attributes"] = [each for each in only["attributes"] if not each["key"].startswith("raybolt.")]
    return fields, only


async def test_the_sdks_spans_come_back_as_they_were(store: LocalStore) -> None:
    started = await store.start_rollout("x")
    span = recorded(started)
    await store.add_otel_span(started.rollout_id, started.attempt.attempt_id, span)
    (ours,) = await store.query_spans(started.rollout_id)
    back = to_otel(ours)
    assert encoded(back) == encoded(span)
    assert (back.dropped_attributes, back.dropped_events, back.dropped_links) == (2, 1, 1)
    assert back.instrumentation_scope == span.instrumentation_scope
    assert back.resource == SOURCE
    assert back.context == span.context
    assert back.parent == SpanContext(
        span.context.trace_id, 0xABC, True, span.context.trace_flags
    )  # the parent's state is its child's
    assert [each.context.is_remote for each in back.links] == [True, False]
    assert back.kind is SpanKind.CLIENT


@pytest.mark.parametrize("form", ["protobuf", "packed protobuf", "JSON"])
async def test_what_an_exporter_sends_comes_back_as_it_was(store: LocalStore, form: str) -> None:
    started = await store.start_rollout("x")
    span = recorded(started)
    with served(store) as server:
        if form == "JSON":
            sent = await asyncio.to_thread(request, server, "POST", "/v1/traces", otlp_json(span))
            assert (sent.status, sent.json) == (200, {})
        else:
            packed = exporters.Compression.Gzip if "packed" in form else exporters.Compression.NoCompression
            exporter = exporters.OTLPSpanExporter(f"{server.url}/v1/traces", compression=packed)
            await asyncio.to_thread(exporter.export, [span])
            exporter.shutdown()
    (ours,) = await store.query_spans(started.rollout_id)
    assert encoded(to_otel(ours)) == encoded(span)
    assert to_otel(ours).resource == SOURCE


async def test_what_places_spans_is_no_part_of_the_resource_they_are_kept_with(store: LocalStore) -> None:
    started = await store.start_rollout("x")
    places = {
        "raybolt.rollout_id": started.rollout_id,
        "agentlightning.attempt_id": started.attempt.attempt_id,
    }
    with served(store) as server:
        for number, about in enumerate([{"host.name": "a"}, {"host.name": "b"}, {}]):
            source = Resource({**places, **about}, "https://schema.example/2.0" if about else "")
            tracer = TracerProvider(resource=source, shutdown_on_exit=False).get_tracer("raybolt")
            span = tracer.start_span(f"call {number}")
            span.end()
            exporter = exporters.OTLPSpanExporter(f"{server.url}/v1/traces")
            await asyncio.to_thread(exporter.export, [span])
            exporter.shutdown()
    assert [(each.name, each.attributes) for each in await store.query_spans(started.rollout_id)] == [
        (f"call {number}", about)
        for number, about in enumerate(
            [
                {
                    "otel.resource.attributes": {"host.name": name},
                    "otel.resource.schema_url": "https://schema.example/2.0",
                }
                for name in "ab"
            ]
            + [{}]
        )
    ]


async def test_a_resource_outlives_its_store_in_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("raybolt.store.parquet")
    async with LocalStore(tmp_path / "first") as first:
        started = await first.start_rollout("x")
        await first.add_otel_span(started.rollout_id, started.attempt.attempt_id, recorded(started))
    parquet.export_parquet(tmp_path / "first", tmp_path / "files")
    parquet.import_parquet(tmp_path / "files", tmp_path / "second")
    async with LocalStore(tmp_path / "second") as second:
        (ours,) = await second.query_spans(started.rollout_id)
    assert to_otel(ours).resource == SOURCE


def otlp_json(span: ReadableSpan) -> dict[str, Any]:
    """As OTLP has it: ids in hex, unlike protobuf's own JSON."""

    def with_hex(value: Any) -> Any:
        if isinstance(value, list):
            return [with_hex(each) for each in value]
        if not isinstance(value, dict):
            return value
        ids = {"traceId", "spanId", "parentSpanId"}
        return {
            key: base64.b64decode(each).hex() if key in ids else with_hex(each) for key, each in value.items()
        }

    converted: dict[str, Any] = with_hex(MessageToDict(encoder.encode_spans([span])))
    return converted


async def test_a_link_that_leads_nowhere_is_counted_as_dropped(store: LocalStore) -> None:
    started = await store.start_rollout("x")
    body = otlp_json(recorded(started))
    (span,) = body["resourceSpans"][0]["scopeSpans"][0]["spans"]
    span["links"][0]["spanId"] = "00"
    with served(store) as server:
        sent = await asyncio.to_thread(request, server, "POST", "/v1/traces", body)
        span["links"][0]["spanId"] = 7
        refused = await asyncio.to_thread(request, server, "POST", "/v1/traces", body)
    assert (sent.status, sent.json, refused.status) == (200, {}, 400)
    (ours,) = await store.query_spans(started.rollout_id)
    assert [each["span_id"] for each in ours.attributes[names.LINKS]] == [f"{9:016x}"]
    assert ours.attributes[names.DROPPED_LINKS] == 2


async def test_the_attributes_have_the_names_of_opentelemetrys_mapping(store: LocalStore) -> None:
    started = await store.start_rollout("x")
    ours = from_otel(recorded(started), started.rollout_id, started.attempt.attempt_id, 1)
    known = {name: value for name, value in ours.attributes.items() if not name.startswith(("n", "raybolt."))}
    assert known == {
        "otel.scope.name": "their.library",
        "otel.scope.version": "1.2.3",
        "otel.scope.schema_url": "https://schema.example/1.0",
        "otel.scope.attributes": {"team": "blue"},
        "otel.resource.attributes": {
            "service.name": "sql-agent",
            "process.pid": 7,
            "process.command_args": ["python", "agent.py"],
        },
        "otel.resource.schema_url": "https://schema.example/2.0",
        "span.kind": "client",
        "w3c.tracestate": "vendor=1,other=2",
        "otel.span.flags": 0x203,
        "otel.links": [
            {
                "trace_id": f"{8:032x}",
                "span_id": f"{8:016x}",
                "flags": 0x203,
                "attributes": {"dropped": 1},
                "dropped_attributes_count": 1,
            },
            {"trace_id": f"{9:032x}", "span_id": f"{9:016x}"},
        ],
        "otel.dropped_attributes_count": 2,
        "otel.dropped_events_count": 1,
        "otel.dropped_links_count": 1,
    }
    assert ours.events[0].attributes == {"b": 2, "otel.dropped_attributes_count": 1}


def span_of(attributes: dict[str, Any]) -> Span:
    return Span(
        rollout_id="r", attempt_id="a", sequence_id=1, trace_id="1", span_id="2", name="chat",
        start_time=1.0, end_time=2.0, attributes=attributes,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("otel.scope.name", 7),
        ("otel.scope.attributes", ["a"]),
        ("otel.resource.attributes", "host"),
        ("otel.resource.schema_url", 7),
        ("span.kind", "LLM"),
        ("otel.span.flags", -1),
        ("otel.links", "many"),
        ("otel.links", [{"trace_id": "1", "span_id": "2"}]),
        ("otel.dropped_links_count", "two"),
    ],
)
def test_an_attribute_of_that_name_that_says_something_else_stays_one(name: str, value: Any) -> None:
    facts, others = taken_facts({name: value})
    assert others == {name: value}
    assert facts.as_attributes() == {}
    exported = to_otel(span_of({name: value}))
    assert name in exported.attributes
    assert exported.instrumentation_scope.name == "raybolt"
    assert exported.resource.attributes == {"service.name": "raybolt"}


def test_a_span_of_raybolts_own_has_no_such_attribute() -> None:
    exported = to_otel(span_of({"x": 1}))
    assert (exported.instrumentation_scope.name, exported.kind) == ("raybolt", SpanKind.INTERNAL)
    assert exported.resource == Resource({"service.name": "raybolt"})
    assert from_otel(exported, "r", "a", 1).attributes.keys() == {
        "x", names.ROLLOUT_ID, names.ATTEMPT_ID, names.SEQUENCE_ID,
    }  # fmt: skip


async def test_spans_and_events_without_a_name_are_kept(store: LocalStore) -> None:
    started = await store.start_rollout("x")
    span = TracerProvider(shutdown_on_exit=False).get_tracer("test").start_span("")
    span.add_event("")
    span.end()
    added = await store.add_otel_span(started.rollout_id, started.attempt.attempt_id, span)
    assert (added.name, added.events[0].name) == ("unnamed", "unnamed")


def test_who_exports_says_what_process_its_own_spans_come_from_and_no_others() -> None:
    exporter = InMemorySpanExporter()
    theirs = {"otel.resource.attributes": {"host.name": "theirs", "nested": {"a": [1]}}}
    export_spans([span_of({}), span_of(theirs)], exporter, resource={"host.name": "ours"})
    own, other = exporter.get_finished_spans()
    assert own.resource.attributes == {"service.name": "raybolt", "host.name": "ours"}
    assert other.resource.attributes == {"host.name": "theirs", "nested": '{"a": [1]}'}
    assert "otel.resource.attributes" not in other.attributes
    assert from_otel(own, "r", "a", 1).attributes["otel.resource.attributes"] == own.resource.attributes

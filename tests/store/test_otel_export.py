"""Our spans as OpenTelemetry's."""

import json

import numpy as np
import pytest
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace.status import StatusCode

from raybolt.store.errors import InvalidValue, StoreError
from raybolt.store.otel import export_spans, to_otel
from raybolt.store.types import Span, SpanEvent

TRACE = "0af7651916cd43dd8448eb211c80319c"


def span(**fields) -> Span:
    known = {
        "rollout_id": "ro-1",
        "attempt_id": "at-1",
        "sequence_id": 3,
        "trace_id": TRACE,
        "span_id": "b7ad6b7169203331",
        "name": "chat writer",
        "start_time": 1_700_000_000.25,
        "end_time": 1_700_000_001.5,
    }
    return Span(**{**known, **fields})


def test_ids_times_and_parent_are_kept():
    exporter = InMemorySpanExporter()
    assert export_spans([span(parent_id="00f067aa0ba902b7")], exporter) == 1
    (exported,) = exporter.get_finished_spans()
    assert exported.name == "chat writer"
    assert f"{exported.context.trace_id:032x}" == TRACE
    assert f"{exported.context.span_id:016x}" == "b7ad6b7169203331"
    assert f"{exported.parent.span_id:016x}" == "00f067aa0ba902b7"
    assert (exported.start_time, exported.end_time) == (1_700_000_000_250_000_000, 1_700_000_001_500_000_000)
    assert exported.attributes["raybolt.rollout_id"] == "ro-1"
    assert exported.attributes["raybolt.attempt_id"] == "at-1"
    assert exported.attributes["raybolt.sequence_id"] == 3
    assert exported.resource.attributes["service.name"] == "raybolt"


@pytest.mark.parametrize(
    ("value", "exported"),
    [
        ("text", "text"),
        (True, True),
        (7, 7),
        (["stop"], ["stop"]),
        ([], []),
        (np.array([5, 6], np.int32), [5, 6]),
        ([1, "a"], '[1, "a"]'),
        ([{"role": "user", "content": "é"}], '[{"role": "user", "content": "é"}]'),
        ({"query": 1}, '{"query": 1}'),
    ],
)
def test_what_opentelemetry_cannot_hold_becomes_json(value, exported):
    assert to_otel(span(attributes={"x": value})).attributes["x"] == exported


def test_an_absent_value_is_left_out():
    assert "x" not in to_otel(span(attributes={"x": None})).attributes


def test_errors_and_events_are_kept():
    event = SpanEvent("exception", 1_700_000_001.0, {"exception.type": "ValueError"})
    exported = to_otel(span(status="error", status_message="ValueError: no", events=(event,)))
    assert (exported.status.status_code, exported.status.description) == (StatusCode.ERROR, "ValueError: no")
    (found,) = exported.events
    assert (found.name, found.timestamp) == ("exception", 1_700_000_001_000_000_000)
    assert dict(found.attributes) == {"exception.type": "ValueError"}


def test_the_console_exporter_writes_them():
    written = []

    class Out:
        write = staticmethod(written.append)
        flush = staticmethod(lambda: None)

    export_spans([span(attributes={"gen_ai.operation.name": "chat"})], ConsoleSpanExporter(out=Out()))
    assert json.loads("".join(written))["attributes"]["gen_ai.operation.name"] == "chat"


def test_an_exporter_that_fails_is_an_error_that_says_nothing_is_lost():
    class Deaf(SpanExporter):
        def export(self, spans):
            return SpanExportResult.FAILURE

    with pytest.raises(StoreError, match="Deaf did not take 1 spans"):
        export_spans([span()], Deaf())


def test_ids_that_opentelemetry_cannot_hold_are_refused():
    with pytest.raises(InvalidValue, match="16 and 32 hex digits"):
        to_otel(span(span_id="first"))

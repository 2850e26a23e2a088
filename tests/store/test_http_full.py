"""What a full store's server says: 503, and when to send the spans again."""

import asyncio
from pathlib import Path

import pytest
from store_http import request, served

from raybolt.store import AttemptedRollout, LocalStore

exporters = pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")

NO_ROOM = 2**60
"""A reserve that no disk has."""


def otlp_body(started: AttemptedRollout) -> dict[str, object]:
    named = {"raybolt.rollout_id": started.rollout_id, "raybolt.attempt_id": started.attempt.attempt_id}
    span = {
        "traceId": "0af7651916cd43dd8448eb211c80319c",
        "spanId": "00000000000000a1",
        "name": "chat",
        "startTimeUnixNano": "1500000000",
        "endTimeUnixNano": "2500000000",
        "attributes": [{"key": key, "value": {"stringValue": value}} for key, value in named.items()],
    }
    return {"resourceSpans": [{"resource": {}, "scopeSpans": [{"spans": [span]}]}]}


async def test_refused_spans_are_answered_with_when_to_send_them_again(tmp_path: Path) -> None:
    from google.protobuf.json_format import ParseDict
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    async with LocalStore(tmp_path, reserve_bytes=NO_ROOM) as store:
        started = await store.start_rollout("x", rollout_id="r")
        row = {
            "rollout_id": "r",
            "attempt_id": started.attempt.attempt_id,
            "sequence_id": 1,
            "trace_id": "t",
            "span_id": "s",
            "name": "chat",
            "start_time": 1.0,
            "end_time": 2.0,
        }
        traces = otlp_body(started)
        packed = ParseDict(traces, ExportTraceServiceRequest())
        (span,) = packed.resource_spans[0].scope_spans[0].spans
        span.trace_id, span.span_id = b"t" * 16, b"s" * 8  # which are hex in OTLP's JSON alone
        with served(store) as server:
            plain = await asyncio.to_thread(request, server, "POST", "/v1/spans", {"spans": [row]})
            as_json = await asyncio.to_thread(request, server, "POST", "/v1/traces", traces)
            as_protobuf = await asyncio.to_thread(
                request,
                server,
                "POST",
                "/v1/traces",
                packed.SerializeToString(),
                content_type="application/x-protobuf",
            )
            unknown = await asyncio.to_thread(request, server, "GET", "/v1/rollouts/nobody")
        assert plain.error[0] == as_json.error[0] == "StoreFull"
        for answer in (plain, as_json, as_protobuf):
            assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
        assert b"bytes free" in as_protobuf.body
        assert "Retry-After" not in unknown.headers


async def test_the_real_exporter_sends_refused_spans_again_until_there_is_room(small_disk: Path) -> None:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    filler = small_disk / "filler"
    async with LocalStore(small_disk / "store", reserve_bytes=40 * 2**20) as store:
        started = await store.start_rollout("x", rollout_id="r")
        filler.write_bytes(b"x" * 40 * 2**20)
        about = {"raybolt.rollout_id": "r", "raybolt.attempt_id": started.attempt.attempt_id}
        with served(store) as server:
            exporter = exporters.OTLPSpanExporter(f"{server.url}/v1/traces", timeout=100)
            provider = TracerProvider(resource=Resource(about))
            provider.add_span_processor(SimpleSpanProcessor(exporter))

            def work() -> None:
                with provider.get_tracer("agent").start_as_current_span("chat"):
                    pass

            exporting = asyncio.create_task(asyncio.to_thread(work))
            while (await store.query_attempts("r"))[0].status != "running":  # a span was refused
                await asyncio.sleep(0.05)
            assert await store.query_spans("r") == []
            filler.unlink()
            await exporting
            provider.shutdown()
        assert [span.name for span in await store.query_spans("r")] == ["chat"]

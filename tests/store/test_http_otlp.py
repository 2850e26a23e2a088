"""OTLP/HTTP traces: what exporters send lands in the attempts that it names, or is refused by count."""

import asyncio
import gzip
import os
import subprocess
import sys
from collections.abc import AsyncIterator

import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from store_http import Reply, request, served
from store_samples import make_call_span

from raybolt.store import AttemptedRollout, LocalStore, Span, StoreServer, names
from raybolt.store.otel import export_spans

exporters = pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")

PROTOBUF = "application/x-protobuf"


@pytest.fixture
async def store() -> AsyncIterator[LocalStore]:
    async with LocalStore() as local:
        yield local


def json_span(number: int = 1, **changes: object) -> dict[str, object]:
    return {
        "traceId": "0af7651916cd43dd8448eb211c80319c",
        "spanId": f"{number:016x}",
        "name": "chat",
        "startTimeUnixNano": "1500000000",
        "endTimeUnixNano": "2500000000",
        **changes,
    }


def attributes(**values: str) -> list[dict[str, object]]:
    return [{"key": key, "value": {"stringValue": value}} for key, value in values.items()]


def ids(started: AttemptedRollout, prefix: str = "raybolt") -> list[dict[str, object]]:
    return attributes(
        **{f"{prefix}.rollout_id": started.rollout_id, f"{prefix}.attempt_id": started.attempt.attempt_id}
    )


def traces(spans: list[object], resource: list[dict[str, object]] | None = None) -> dict[str, object]:
    return {"resourceSpans": [{"resource": {"attributes": resource or []}, "scopeSpans": [{"spans": spans}]}]}


async def send(server: StoreServer, body: object, content_type: str = "application/json") -> Reply:
    return await asyncio.to_thread(request, server, "POST", "/v1/traces", body, content_type=content_type)


async def kept(store: LocalStore, started: AttemptedRollout) -> list[Span]:
    return await store.query_spans(started.rollout_id)


@pytest.mark.parametrize("compression", ["NoCompression", "Gzip"])
async def test_the_real_exporter_brings_spans_of_its_process_to_the_attempt(
    store: LocalStore, compression: str
) -> None:
    started = await store.start_rollout("x")
    about = {"raybolt.rollout_id": started.rollout_id, "raybolt.attempt_id": started.attempt.attempt_id}
    with served(store, tokens=["secret"]) as server:
        provider = TracerProvider(resource=Resource(about))
        provider.add_span_processor(
            SimpleSpanProcessor(
                exporters.OTLPSpanExporter(
                    f"{server.url}/v1/traces",
                    headers={"Authorization": "Bearer secret"},
                    compression=getattr(exporters.Compression, compression),
                )
            )
        )

        def work() -> None:
            tracer = provider.get_tracer("test")
            with tracer.start_as_current_span("invoke_agent", attributes={"n": 1, "l": ["a", "b"]}) as outer:
                outer.add_event("noticed", {"what": "it"})
                with pytest.raises(ValueError, match="oh"), tracer.start_as_current_span("chat"):
                    raise ValueError("oh")
            provider.shutdown()

        await asyncio.to_thread(work)
    chat, agent = await kept(store, started)
    assert (chat.name, chat.status, chat.status_message) == ("chat", "error", "ValueError: oh")
    assert (agent.name, agent.status, agent.sequence_id) == ("invoke_agent", "unset", 2)
    assert chat.parent_id == agent.span_id
    assert agent.attributes == {"n": 1, "l": ["a", "b"], "otel.scope.name": "test"}
    assert [(event.name, event.attributes) for event in agent.events] == [("noticed", {"what": "it"})]
    assert agent.start_time <= chat.start_time <= chat.end_time <= agent.end_time


async def test_our_own_spans_come_back_as_they_were(store: LocalStore) -> None:
    started = await store.start_rollout("x")
    span = make_call_span(started.attempt, 7)
    object.__setattr__(span, "trace_id", "a" * 32)
    object.__setattr__(span, "span_id", "b" * 16)
    with served(store) as server:
        exporter = exporters.OTLPSpanExporter(f"{server.url}/v1/traces")
        assert await asyncio.to_thread(export_spans, [span], exporter) == 1
        exporter.shutdown()
    (back,) = await kept(store, started)
    assert (back.span_id, back.sequence_id, back.status) == ("b" * 16, 7, "ok")
    assert set(back.attributes) == set(span.attributes)
    assert back.attributes[names.PROMPT_IDS].dtype == np.int32
    assert back.attributes[names.PROMPT_IDS].tolist() == [5, 6, 7]
    assert back.attributes[names.LOGPROBS].dtype == np.float32


@pytest.mark.parametrize("prefix", ["raybolt", "agentlightning"])
@pytest.mark.parametrize("on_resource", [True, False])
async def test_ids_stand_on_span_or_resource_under_either_name(
    store: LocalStore, prefix: str, on_resource: bool
) -> None:
    started = await store.start_rollout("x")
    own = ids(started, prefix)
    if on_resource:
        body = traces([json_span()], own)
    else:
        body = traces([json_span(attributes=own)], attributes(**{f"{prefix}.rollout_id": "another"}))
    with served(store) as server:
        answer = await send(server, body)
    assert (answer.status, answer.json) == (200, {})
    (span,) = await kept(store, started)
    assert (span.trace_id, span.span_id) == ("0af7651916cd43dd8448eb211c80319c", "0000000000000001")
    assert (span.start_time, span.end_time, span.attributes) == (1.5, 2.5, {})


async def test_json_values_of_every_kind_are_kept(store: LocalStore) -> None:
    started = await store.start_rollout("x")
    values = {
        "bool": {"boolValue": True},
        "int": {"intValue": "12"},
        "double": {"doubleValue": 0.5},
        "list": {"arrayValue": {"values": [{"intValue": 1}, {"stringValue": "a"}]}},
        "map": {"kvlistValue": {"values": [{"key": "k", "value": {"stringValue": "v"}}]}},
        "bytes": {"bytesValue": "AAE="},
        "nothing": {},
    }
    own = [*ids(started), *({"key": key, "value": value} for key, value in values.items())]
    number = {"key": "agentlightning.span_sequence_id", "value": {"intValue": "41"}}
    with served(store) as server:
        status = {"code": 2, "message": "no"}
        answer = await send(server, traces([json_span(attributes=[*own, number], status=status, unknown=1)]))
        assert answer.json == {}
    (span,) = await kept(store, started)
    assert span.attributes == {
        "bool": True,
        "int": 12,
        "double": 0.5,
        "list": [1, "a"],
        "map": {"k": "v"},
        "bytes": "AAE=",
        "nothing": None,
    }
    assert (span.sequence_id, span.status, span.status_message) == (41, "error", "no")


async def test_spans_that_cannot_be_placed_are_counted_and_the_others_kept(store: LocalStore) -> None:
    started = await store.start_rollout("x")
    stranger = attributes(**{"raybolt.rollout_id": "nobody", "raybolt.attempt_id": "nobody"})
    unknown_attempt = attributes(**{"raybolt.rollout_id": started.rollout_id, "raybolt.attempt_id": "nobody"})
    token_ids = {"key": names.PROMPT_IDS, "value": {"arrayValue": {"values": [{"intValue": str(2**40)}]}}}
    spans: list[object] = [
        json_span(1, attributes=ids(started)),
        json_span(2),
        json_span(3, attributes=stranger),
        json_span(4, attributes=unknown_attempt),
        json_span(5, attributes=ids(started), spanId="00"),
        json_span(6, attributes=ids(started), endTimeUnixNano="0"),
        json_span(7, attributes=[*ids(started), token_ids]),
        json_span(8, attributes=ids(started)),
    ]
    with served(store) as server:
        answer = await send(server, traces(spans))
    partial = answer.json["partialSuccess"]
    assert (answer.status, partial["rejectedSpans"]) == (200, "6")
    assert "spans without the attributes raybolt.rollout_id and raybolt.attempt_id" in partial["errorMessage"]
    assert [span.span_id[-1] for span in await kept(store, started)] == ["1", "8"]


async def test_one_span_that_cannot_be_kept_costs_its_batch_nothing(store: LocalStore) -> None:
    started = await store.start_rollout("x")
    last = {"key": names.SEQUENCE_ID, "value": {"intValue": str(2**63 - 1)}}
    with served(store) as server:
        await send(server, traces([json_span(1, attributes=[last])], ids(started)))
        given = {"key": names.SEQUENCE_ID, "value": {"intValue": "3"}}
        spans: list[object] = [
            json_span(2, attributes=[given], name="", events=[{}]),
            json_span(3),
            json_span(4, attributes=[given, *attributes(**{"raybolt.rollout_id": ""})]),
        ]
        answer = await send(server, traces(spans, ids(started)))
    partial = answer.json["partialSuccess"]
    assert partial["rejectedSpans"] == "2"
    assert "has the number 9223372036854775807; there is none above it" in partial["errorMessage"]
    assert "rollout_id is ''; give a text that is not empty" in partial["errorMessage"]
    first, _ = await kept(store, started)
    assert (first.span_id[-1], first.name, first.events[0].name) == ("2", "unnamed", "unnamed")


async def test_a_large_resource_counts_with_every_span_that_is_kept_with_it(store: LocalStore) -> None:
    started = await store.start_rollout("x")
    large = attributes(text="x" * 10_000)
    with served(store, max_body_bytes=100_000) as server:
        some = await send(
            server, traces([json_span(number) for number in range(1, 10)], ids(started) + large)
        )
        many = await send(
            server, traces([json_span(number) for number in range(1, 100)], ids(started) + large)
        )
        scope = {"scope": {"name": "s", "attributes": large}, "spans": [json_span(n) for n in range(1, 100)]}
        of_scope = {"resourceSpans": [{"resource": {"attributes": ids(started)}, "scopeSpans": [scope]}]}
        refused = await send(server, of_scope)
    assert (some.status, many.status, refused.status) == (200, 413, 413)
    assert (
        "100000 bytes together with the resource and scope that each is kept with"
        in many.json["error"]["message"]
    )
    assert len(await kept(store, started)) == 9


@pytest.mark.parametrize(
    ("name", "number", "kept_as"),
    [
        (names.PROMPT_IDS, {"intValue": "7"}, [7]),
        (names.PROMPT_IDS, {"doubleValue": 7.0}, [7]),
        (names.PROMPT_IDS, {"doubleValue": 7.5}, None),
        (names.PROMPT_IDS, {"doubleValue": "NaN"}, None),
        (names.PROMPT_IDS, {"intValue": str(2**40)}, None),
        (names.LOGPROBS, {"doubleValue": "-Infinity"}, [float("-inf")]),
        (names.LOGPROBS, {"doubleValue": 1e308}, None),
        (names.LOGPROBS, {"boolValue": True}, None),
    ],
)
async def test_token_arrays_are_kept_if_their_numbers_are_those_of_tokens(
    store: LocalStore, name: str, number: dict[str, object], kept_as: list[float] | None
) -> None:
    started = await store.start_rollout("x")
    array = {"key": name, "value": {"arrayValue": {"values": [number]}}}
    with served(store) as server:
        answer = await send(server, traces([json_span(1, attributes=[array])], ids(started)))
    spans = await kept(store, started)
    if kept_as is None:
        assert (answer.status, answer.json["partialSuccess"]["rejectedSpans"]) == (200, "1")
        assert name in answer.json["partialSuccess"]["errorMessage"]
        assert spans == []
    else:
        assert (answer.json, [span.attributes[name].tolist() for span in spans]) == ({}, [kept_as])


async def test_a_batch_that_is_sent_again_changes_nothing(store: LocalStore) -> None:
    started = await store.start_rollout("x")
    with served(store) as server:
        for _ in range(2):
            late = json_span(1, startTimeUnixNano="1600000000")
            assert (await send(server, traces([late, json_span(2)], ids(started)))).json == {}
    found = [(span.sequence_id, span.span_id[-1]) for span in await kept(store, started)]
    assert found == [(1, "2"), (2, "1")]  # numbered as they began


async def test_a_protobuf_sender_is_answered_in_protobuf(store: LocalStore) -> None:
    with served(store, max_body_bytes=500) as server:
        body = ExportTraceServiceRequest()
        span = body.resource_spans.add().scope_spans.add().spans.add()
        answer = await send(server, body.SerializeToString(), PROTOBUF)
        response = ExportTraceServiceResponse.FromString(answer.body)
        assert (answer.headers["Content-Type"], response.partial_success.rejected_spans) == (PROTOBUF, 1)
        span.name = "n" * 1000
        too_large = await send(server, body.SerializeToString(), PROTOBUF)
        assert (too_large.status, too_large.headers["Content-Type"]) == (413, PROTOBUF)
        wrong = await send(server, b"\xff\xff", PROTOBUF)
    assert wrong.status == 400
    assert wrong.body[0] == 0x12  # google.rpc.Status: field 2, a string
    assert b"the body is no OTLP trace request" in wrong.body


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b'{"resourceSpans": 3}', 400),
        (b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": 3}]}]}]}', 400),
        (b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "xyz"}]}]}]}', 400),
        (b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"name": "\\ud800"}]}]}]}', 400),
        (b"{}", 200),
    ],
)
async def test_json_that_is_no_trace_is_refused(store: LocalStore, body: bytes, status: int) -> None:
    with served(store) as server:
        assert (await send(server, body)).status == status
        assert (await send(server, gzip.compress(body), "application/x-ndjson")).status == 415


AUTOGEN = """
import asyncio
from autogen_agentchat.agents import AssistantAgent
from autogen_core import FunctionCall
from autogen_core.models import CreateResult, ModelInfo, RequestUsage
from autogen_ext.models.replay import ReplayChatCompletionClient

def add(a: int, b: int) -> int:
    "Adds."
    return a + b

call = CreateResult(
    finish_reason="function_calls",
    content=[FunctionCall(id="c1", name="add", arguments='{"a": 2, "b": 3}')],
    usage=RequestUsage(prompt_tokens=1, completion_tokens=1), cached=False,
)
info = ModelInfo(
    vision=False, function_calling=True, json_output=False, family="any", structured_output=False
)
model = ReplayChatCompletionClient([call, "5"], model_info=info)
agent = AssistantAgent("adder", model, tools=[add], reflect_on_tool_use=True)
asyncio.run(agent.run(task="2 + 3?"))
"""

AGENTSCOPE = """
import asyncio
from agentscope.agent import Agent, InjectionConfig
from agentscope.credential import OpenAICredential
from agentscope.message import TextBlock, ToolCallBlock, UserMsg
from agentscope.middleware import TracingMiddleware
from agentscope.model import ChatResponse, ChatUsage, OpenAIChatModel
from agentscope.permission import PermissionContext, PermissionMode
from agentscope.state import AgentState
from agentscope.tool import FunctionTool, Toolkit

def add(a: int, b: int) -> str:
    "Adds."
    return str(a + b)

class Scripted(OpenAIChatModel):
    replies = [
        [ToolCallBlock(id="c1", name="add", input='{"a": 2, "b": 3}')],
        [TextBlock(text="5", id="t")],
    ]

    async def _call_api(self, *args, **kwargs):
        usage = ChatUsage(input_tokens=1, output_tokens=1, time=0.0)
        return ChatResponse(self.replies.pop(0), True, usage=usage)

agent = Agent(
    name="adder", system_prompt="You add.", model=Scripted(OpenAICredential(api_key="x"), "m", stream=False),
    toolkit=Toolkit(tools=[FunctionTool(add)]),
    state=AgentState(permission_context=PermissionContext(mode=PermissionMode.BYPASS)),
    injection_config=InjectionConfig(inject_runtime_state=False),
    middlewares=[TracingMiddleware()],
)
asyncio.run(agent.reply(UserMsg("user", "2 + 3?")))
"""

EXPORT = """
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
"""


@pytest.mark.parametrize(
    ("framework", "script", "operations"),
    [
        ("autogen_agentchat", AUTOGEN, {"invoke_agent", "execute_tool"}),
        ("agentscope", AGENTSCOPE, {"invoke_agent", "execute_tool", "chat"}),
    ],
)
async def test_a_frameworks_own_genai_spans_arrive_from_another_process(
    store: LocalStore, framework: str, script: str, operations: set[str]
) -> None:
    pytest.importorskip(framework)
    started = await store.start_rollout("x")
    with served(store) as server:
        environment = {
            **os.environ,
            "OTEL_EXPORTER_OTLP_ENDPOINT": server.url,
            "OTEL_RESOURCE_ATTRIBUTES": f"raybolt.rollout_id={started.rollout_id},"
            f"raybolt.attempt_id={started.attempt.attempt_id}",
        }
        process = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", EXPORT + script + "\nprovider.shutdown()"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
        )
    assert process.returncode == 0, process.stderr[-3000:]
    spans = await kept(store, started)
    found = {span.attributes.get(names.OPERATION) for span in spans}
    assert operations <= found, [(span.name, dict(span.attributes)) for span in spans]
    (tool,) = (span for span in spans if span.attributes.get(names.OPERATION) == names.EXECUTE_TOOL)
    assert tool.attributes[names.TOOL_NAME] == "add"
    parents = {span.span_id for span in spans}
    assert tool.parent_id in parents
    rollout = await store.get_rollout_by_id(started.rollout_id)
    assert rollout is not None
    assert rollout.status == "running"


@pytest.mark.parametrize(
    ("code", "status"), [(-1, "unset"), (0, "unset"), (1, "ok"), (2, "error"), (9, "unset")]
)
async def test_a_status_that_there_is_none_of_is_unset(store: LocalStore, code: int, status: str) -> None:
    started = await store.start_rollout("x")
    with served(store) as server:
        answer = await send(server, traces([json_span(1, status={"code": code})], ids(started)))
    assert (answer.status, answer.json) == (200, {})
    assert [span.status for span in await kept(store, started)] == [status]

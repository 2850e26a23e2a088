"""Malformed requests by the hundred: none is answered by a 5xx, and no acknowledged span is lost or doubled.

The slow test sends ten thousand of each kind; RAYBOLT_FUZZ sets another number.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import reduce
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from store_samples import make_call_span, make_span

from raybolt.store import LocalStore, StoreServer, blocking, names, serve
from raybolt.store.routes import BLOCK_PATH, ROUTES, Route
from raybolt.store.row_frames import ROWS_TYPE, pack_rows
from raybolt.store.rows import pack_span

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

FEW = 150
MANY = int(os.environ.get("RAYBOLT_FUZZ", "10000"))


class Target:
    """A served store with a journal, one good attempt whose spans are counted, and one that is fair game."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._store = LocalStore(folder)
        self._server: StoreServer = serve(self._store, port=0)
        self.good = blocking(self._store.start_rollout("good", rollout_id="good"))
        self.game = blocking(self._store.start_rollout("game", rollout_id="game", group_id="game"))
        self._connection = HTTPConnection(self._server.url.removeprefix("http://"), timeout=60)
        self.num_requests = 0
        self._num_spans = 0

    def send(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
        """Sends, on one connection as long as it lasts; returns status and body."""
        self.num_requests += 1
        for _ in range(2):
            with suppress(ConnectionError, HTTPException):
                self._connection.request(method, path, body, headers)
                response = self._connection.getresponse()
                return response.status, response.read()
            self._connection.close()
        raise AssertionError(f"{method} {path} got no answer twice")

    def attack(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> None:
        """Sends what may be wrong; the server must say so, and go on taking spans."""
        status, answer = self.send(method, path, body, headers)
        assert status < 500, (method, path, body, headers, answer)
        if self.num_requests % 20 == 0:
            self._num_spans += 1
            frame = pack_rows([pack_span(make_call_span(self.good.attempt, self._num_spans))])
            assert self.send("POST", "/v1/spans", frame, {"Content-Type": ROWS_TYPE}) == (200, b"[]")

    def close(self) -> None:
        """Opens the journal again, and counts."""
        self._connection.close()
        self._server.close()
        blocking(self._store.close())
        again = LocalStore(self._folder)
        spans = blocking(again.query_spans("good"))
        for rollout in blocking(again.query_rollouts()):  # whatever was accepted can be read
            blocking(again.query_spans(rollout.rollout_id))
        for group in blocking(again.query_groups()):
            blocking(again.get_group(group.group_id))
        blocking(again.close())
        assert [span.span_id for span in spans] == [f"span-{i + 1}" for i in range(self._num_spans)]


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    attacked = Target(tmp_path)
    yield attacked
    attacked.close()


def fuzz(strategy: Any, attack: Callable[[Any], None], num_examples: int) -> None:
    options = hypothesis.settings(
        max_examples=num_examples,
        deadline=None,
        database=None,
        derandomize=num_examples == FEW,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    options(hypothesis.given(strategy)(attack))()


texts = st.one_of(
    st.sampled_from(["game", "latest", "train", "queuing", "succeeded", "0", "sequence_id", "", "desc"]),
    st.text(st.characters(exclude_categories=[]), max_size=6),  # halves of characters, too
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 3),
    st.integers(),
    st.sampled_from([2**31, 2**63 - 1, -(2**63), 2**63, 10**40]),
    st.floats(),
    texts,
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.sampled_from(["input", "rollout_id", "config", "max_attempts", "name"]), texts),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=8,
)
requests = st.fixed_dictionaries(
    {"input": values},
    optional={
        "rollout_id": texts,
        "group_id": texts,
        "task_id": texts,
        "metadata": values,
        "mode": texts,
        "config": st.fixed_dictionaries(
            {},
            optional={
                "max_attempts": scalars,
                "timeout_seconds": scalars,
                "unresponsive_seconds": scalars,
                "retry_condition": values,
            },
        ),
    },
)
likely = {
    "requests": st.lists(requests, max_size=3),
    "request": requests,
    "rollout_ids": st.lists(texts, max_size=3),
    "group_ids": st.lists(texts, max_size=3),
    "pairs": st.lists(st.tuples(texts, texts), max_size=3),
    "timeout": st.one_of(st.sampled_from([0, 0.001, -1]), st.none(), texts),
    "limit": st.one_of(st.integers(-2, 9), scalars),
    "resources": st.dictionaries(texts, values, max_size=3),
    "num_rollouts": st.one_of(st.integers(0, 3), scalars),
}


@st.composite
def rest_calls(draw: Any) -> tuple[str, str, bytes | None]:
    route: Route = draw(st.sampled_from(ROUTES))
    given = {
        name: draw(st.one_of(likely.get(name, texts), likely.get(name, texts), values))
        for name in route.takes
        if draw(st.integers(0, 3)) or name == "timeout"
    }
    if "timeout" in given and given["timeout"] is None:
        given["timeout"] = 0.001  # nobody has the time to wait for nothing
    ids = {name: draw(texts) for name in route.takes if route.in_path(name)}
    path = route.path.format(**{name: quote(id, safe="", errors="replace") for name, id in ids.items()})
    others = {name: value for name, value in given.items() if name not in ids}
    if route.method == "GET" and draw(st.booleans()):
        query = urlencode(others, doseq=True, errors="replace")
        return "GET", f"{path}?{query}", None
    body = json.dumps(others).encode()
    if not draw(st.integers(0, 9)):
        body = body[: draw(st.integers(0, len(body)))]
    method = draw(st.sampled_from([route.method] * 4 + ["POST", "PUT", "DELETE"]))
    return method, path + ("/search" if route.search and method == "POST" else ""), body


def attack_rest(target: Target, call: tuple[str, str, bytes | None]) -> None:
    method, path, body = call
    target.attack(method, path, body, {"Content-Type": "application/json"} if body is not None else {})


@st.composite
def changed(draw: Any, whole: bytes) -> bytes:
    """The bytes, some of which were changed, left out, or doubled."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, max(len(content) - 1, 0)))
        length = draw(st.sampled_from([0, 1, 1, 2, 8, 60]))
        content[start : start + length] = draw(st.binary(max_size=length + 2))
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)


def a_frame(target: Target) -> bytes:
    rows = [pack_span(make_call_span(target.game.attempt, i)) for i in (1, 2)]
    return pack_rows([*rows, pack_span(make_span(target.game.attempt, 3, text="é", n=1.5))])


def odd_rows(target: Target) -> Any:
    row = pack_span(make_call_span(target.game.attempt, 1))
    odd = st.one_of(scalars, texts, values.map(json.dumps))
    fields = list(row._fields[2:-1])
    changes = st.dictionaries(st.sampled_from(fields), odd, min_size=1, max_size=2)
    return changes.map(lambda change: pack_rows([row._replace(**change)]))


def a_trace(target: Target) -> bytes:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    message = ExportTraceServiceRequest()
    scope = message.resource_spans.add(schema_url="https://schema.example/1")
    for key, value in (
        (names.ROLLOUT_ID, target.game.rollout_id),
        (names.ATTEMPT_ID, target.game.attempt.attempt_id),
    ):
        scope.resource.attributes.add(key=key).value.string_value = value
    host = scope.resource.attributes.add(key="host").value.kvlist_value.values
    host.add(key="cores").value.array_value.values.add().int_value = 2
    spans = scope.scope_spans.add().spans
    for number in (1, 2):
        span = spans.add(name="chat", trace_id=b"t" * 16, span_id=bytes([number] * 8), end_time_unix_nano=9)
        span.attributes.add(key=names.PROMPT_IDS).value.array_value.values.add().int_value = 7
        span.attributes.add(key="map").value.kvlist_value.values.add(key="k").value.double_value = 0.5
        span.events.add(name="event").attributes.add(key="bytes").value.bytes_value = b"\0\xff"
    return message.SerializeToString()


def a_json_trace(target: Target) -> bytes:
    from google.protobuf.json_format import MessageToDict
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    content = MessageToDict(ExportTraceServiceRequest.FromString(a_trace(target)))
    for span in content["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        span.update(traceId="ab" * 16, spanId="cd" * 8)
    return json.dumps(content).encode()


def json_traces(target: Target) -> Any:
    """The trace, with a value somewhere in it replaced."""

    def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        yield path
        pairs = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        )
        for key, each in pairs:
            yield from paths(each, (*path, key))

    whole = a_json_trace(target)

    def replaced(path: tuple[Any, ...], value: Any) -> bytes:
        content = json.loads(whole)
        if not path:
            return json.dumps(value).encode()
        inner = content
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        return json.dumps(content).encode()

    return st.builds(replaced, st.sampled_from(list(paths(json.loads(whole)))), values)


def odd_resources(target: Target) -> Any:
    """The trace, with a resource that holds anything: wrong types, known names, deep nests, much of it."""
    any_value = st.recursive(
        st.one_of(
            st.just({}),
            st.builds(lambda value: {"stringValue": value}, st.one_of(texts, st.just("x" * 2**14))),
            st.builds(lambda value: {"intValue": value}, st.one_of(st.integers(-3, 2**63 - 1), scalars)),
            st.builds(
                lambda value: {"doubleValue": value}, st.sampled_from(["NaN", "-Infinity", 1e308, "x"])
            ),
            st.just({"bytesValue": "AP8="}),
            values,
        ),
        lambda inner: st.one_of(
            st.builds(lambda some: {"arrayValue": {"values": some}}, st.lists(inner, max_size=3)),
            st.builds(
                lambda key, value, depth: reduce(
                    lambda outer, _: {"kvlistValue": {"values": [{"key": key, "value": outer}]}},
                    range(depth),
                    value,
                ),
                texts,
                inner,
                st.sampled_from([1, 2, 40, 120]),
            ),
        ),
        max_leaves=6,
    )
    keys = st.one_of(texts, st.sampled_from([names.ROLLOUT_ID, names.SEQUENCE_ID, names.RESOURCE_ATTRIBUTES]))
    pairs = st.lists(st.builds(lambda key, value: {"key": key, "value": value}, keys, any_value), max_size=4)

    def with_resource(attributes: Any, schema_url: Any, are_more: bool) -> bytes:
        content = json.loads(a_json_trace(target))
        (of_resource,) = content["resourceSpans"]
        known = of_resource["resource"]["attributes"] if are_more else []
        of_resource["resource"]["attributes"] = [*known, *attributes]
        of_resource["schemaUrl"] = schema_url
        return json.dumps(content).encode()

    urls = st.one_of(st.just("https://schema.example/1"), texts, values)
    return st.builds(with_resource, pairs, urls, st.sampled_from([True, True, True, False]))


KINDS = ["rest", "frames", "rows", "spans", "protobuf", "json", "resources", "blocks"]


def fuzz_kind(target: Target, kind: str, num_examples: int) -> None:
    def post(path: str, content_type: str) -> Callable[[bytes], None]:
        return lambda body: target.attack("POST", path, body, {"Content-Type": content_type})

    span = st.fixed_dictionaries(
        {}, optional={"arrays": values, "attributes": values, "events": values, "name": texts}
    )
    plain = {"rollout_id": "game", "attempt_id": target.game.attempt.attempt_id, "sequence_id": 1}
    plain |= {"trace_id": "t", "span_id": "s", "name": "n", "start_time": 0, "end_time": 1}  # type: ignore[dict-item]
    spans = span.map(lambda some: json.dumps({"spans": [{**plain, **some}]}).encode())
    block = texts.map(lambda id: BLOCK_PATH.format(group_id=quote(id, safe="", errors="replace")))
    attacks: dict[str, tuple[Any, Callable[[Any], None]]] = {
        "rest": (rest_calls(), lambda call: attack_rest(target, call)),
        "frames": (changed(a_frame(target)), post("/v1/spans", ROWS_TYPE)),
        "rows": (odd_rows(target), post("/v1/spans", ROWS_TYPE)),
        "spans": (spans, post("/v1/spans", "application/json")),
        "protobuf": (changed(a_trace(target)), post("/v1/traces", "application/x-protobuf")),
        "json": (
            st.one_of(json_traces(target), changed(a_json_trace(target))),
            post("/v1/traces", "application/json"),
        ),
        "resources": (odd_resources(target), post("/v1/traces", "application/json")),
        "blocks": (block, lambda path: target.attack("GET", path, None, {})),
    }
    strategy, attack = attacks[kind]
    fuzz(strategy, attack, num_examples)


@pytest.mark.parametrize("kind", KINDS)
def test_malformed_requests_break_nothing(target: Target, kind: str) -> None:
    fuzz_kind(target, kind, FEW)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["rest", "protobuf", "json"])
def test_ten_thousand_malformed_requests_break_nothing(target: Target, kind: str) -> None:
    fuzz_kind(target, kind, MANY)

"""The server as curl sees it: paths, verbs, limits, tokens, errors."""

import asyncio
import gc
import gzip
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from store_http import request, served
from store_samples import fill_group, make_call_span

from raybolt.store import (
    AttemptedRollout,
    HttpStore,
    InvalidValue,
    LocalStore,
    StoreError,
    StoreServer,
    blocking,
    names,
    serve,
)
from raybolt.store import client as client_module
from raybolt.store.routes import BY_OPERATION
from raybolt.store.server.openapi import document


@pytest.fixture
def server() -> Iterator[StoreServer]:
    with served() as running:
        yield running


def started(server: StoreServer) -> tuple[str, str]:
    answer = request(server, "POST", "/v1/rollouts/start", {"request": {"input": "x"}}).json
    return answer["rollout_id"], answer["attempt"]["attempt_id"]


def test_a_rollout_goes_from_queue_to_success_by_plain_requests(server: StoreServer) -> None:
    (queued,) = request(server, "POST", "/v1/rollouts", {"requests": [{"input": {"q": 1}}]}).json
    assert (queued["status"], queued["input"]) == ("queuing", {"q": 1})
    (taken,) = request(server, "POST", "/v1/rollouts/dequeue", {"worker_id": "w"}).json
    assert taken["rollout_id"] == queued["rollout_id"]
    path = f"/v1/rollouts/{queued['rollout_id']}"
    ended = request(server, "PATCH", f"{path}/attempts/latest", {"status": "succeeded"})
    assert (ended.status, ended.json["status"]) == (200, "succeeded")
    assert request(server, "GET", path).json["status"] == "succeeded"
    found = request(server, "GET", "/v1/rollouts?status_in=succeeded&status_in=failed&limit=5").json
    assert [rollout["rollout_id"] for rollout in found["items"]] == [queued["rollout_id"]]
    assert request(server, "GET", "/v1/rollouts?status_in=failed").json == {"items": [], "next_offset": None}


def test_spans_can_be_written_and_read_as_json(server: StoreServer) -> None:
    rollout_id, attempt_id = started(server)
    span = {
        "rollout_id": rollout_id,
        "attempt_id": attempt_id,
        "sequence_id": 1,
        "trace_id": "t",
        "span_id": "s",
        "name": "chat",
        "start_time": 1,
        "end_time": 2.5,
        "attributes": {"plain": ["é", None]},
        "arrays": {"raybolt.prompt_ids": {"dtype": "int32", "values": [5, 6, 7]}},
        "events": [{"name": "retry", "time": 1.5, "attributes": {"n": 1}}],
    }
    assert request(server, "POST", "/v1/spans", {"spans": [span]}).json == []
    assert request(server, "POST", "/v1/spans", {"spans": [span]}).json == [0]
    (back,) = request(server, "GET", f"/v1/rollouts/{rollout_id}/spans").json["items"]
    assert back == {**span, "start_time": 1.0, "parent_id": None, "status": "ok", "status_message": None}
    assert request(server, "GET", f"/v1/rollouts/{rollout_id}/spans?name=tool").json["items"] == []


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind", "message"),
    [
        ("GET", "/v1/rollouts/nobody/spans", None, 404, "UnknownRollout", "nobody"),
        ("GET", "/v1/groups/nobody", None, 404, "UnknownGroup", "nobody"),
        ("GET", "/v1/rollouts/nobody", None, 404, "Missing", "there is none with rollout_id 'nobody'"),
        ("GET", "/v1/nothing", None, 404, "InvalidValue", "/docs lists what there is"),
        ("DELETE", "/v1/rollouts", None, 405, "InvalidValue", "Method Not Allowed"),
        ("GET", "/v1/rollouts?lmit=3", None, 400, "InvalidValue", "'lmit' is no argument; GET /v1/rollouts"),
        ("GET", "/v1/rollouts?limit=many", None, 400, "InvalidValue", "limit is 'many'; give a number"),
        ("GET", "/v1/rollouts?limit=-2", None, 400, "InvalidValue", "limit is -2"),
        ("GET", "/v1/rollouts?mode=a&mode=b", None, 400, "InvalidValue", "mode is given 2 times"),
        ("POST", "/v1/rollouts", {}, 400, "InvalidValue", "requests is missing; POST /v1/rollouts takes"),
        ("POST", "/v1/rollouts", b"{", 400, "InvalidValue", "the body is no JSON"),
        ("POST", "/v1/rollouts", b"[" * 100_000, 400, "InvalidValue", "the body is no JSON"),
        ("POST", "/v1/rollouts", [], 400, "InvalidValue", "the body is no object"),
        (
            "POST", "/v1/rollouts", {"requests": [{"input": 1, "tsk": 2}]}, 400, "InvalidValue",
            "requests[0] has no field 'tsk'",
        ),
        (
            "POST", "/v1/rollouts", {"requests": [{"input": 1, "mode": "x"}]}, 400, "InvalidValue",
            "requests[0].mode is 'x'; give one of train, val, test, demo",
        ),
        (
            "POST", "/v1/rollouts", {"requests": [{"input": 1, "task_id": "\ud800"}]}, 400, "InvalidValue",
            "half of a character",
        ),
        ("POST", "/v1/rollouts/dequeue", {"limit": 10**9}, 400, "InvalidValue", "give 10000 or less"),
        ("POST", "/v1/rollouts/dequeue", {"limit": 10**99}, 400, "InvalidValue", "at most 64 bits"),
        ("POST", "/v1/rollouts/wait", {"rollout_ids": "r"}, 400, "InvalidValue", "give a list"),
        ("POST", "/v1/rollouts/wait", {"rollout_ids": ["r"]}, 404, "UnknownRollout", "r"),
    ],
)  # fmt: skip
def test_a_wrong_request_gets_a_status_a_type_and_a_remedy(
    server: StoreServer, method: str, path: str, body: object, status: int, kind: str, message: str
) -> None:
    answer = request(server, method, path, body)
    assert (answer.status, answer.error[0]) == (status, kind)
    assert message in answer.error[1]


def test_a_step_that_cannot_follow_is_a_conflict(server: StoreServer) -> None:
    rollout_id, _ = started(server)
    path = f"/v1/rollouts/{rollout_id}"
    request(server, "PATCH", path, {"status": "cancelled"})
    answer = request(server, "PATCH", path, {"status": "queuing"})
    assert (answer.status, answer.error[0]) == (409, "InvalidTransition")


def test_an_update_tells_null_from_absent(server: StoreServer) -> None:
    (queued,) = request(server, "POST", "/v1/rollouts", {"requests": [{"input": 1, "mode": "val"}]}).json
    path = f"/v1/rollouts/{queued['rollout_id']}"
    assert request(server, "PATCH", path, {"metadata": {"a": 1}}).json["mode"] == "val"
    assert request(server, "PATCH", path, {"mode": None}).json["mode"] is None


def test_an_attempts_id_names_one_attempt_of_one_rollout(server: StoreServer) -> None:
    for rollout_id in ("r1", "r2"):
        request(server, "POST", "/v1/rollouts", {"requests": [{"input": 1, "rollout_id": rollout_id}]})
    start = {"request": {"input": 1, "rollout_id": "r3"}}
    first = request(server, "POST", "/v1/rollouts/r1/attempts", {"attempt_id": "mine"})
    again = request(server, "POST", "/v1/rollouts/r1/attempts", {"attempt_id": "mine"})
    assert (first.status, again.json["attempt"]) == (200, first.json["attempt"])
    for attempt_id, reason in [
        ("mine", "'mine' is another rollout's"),
        ("latest", "'latest', which names none"),
        ("", "'', which names none"),
    ]:
        for path, body in [("/v1/rollouts/r2/attempts", {}), ("/v1/rollouts/start", start)]:
            refused = request(server, "POST", path, {**body, "attempt_id": attempt_id})
            assert (refused.status, refused.json["error"]["type"]) == (400, "InvalidValue")
            assert reason in refused.json["error"]["message"]
    kept = request(server, "GET", "/v1/rollouts").json["items"]
    assert [(each["rollout_id"], each["status"]) for each in kept] == [("r1", "preparing"), ("r2", "queuing")]


def test_a_closed_store_is_unavailable() -> None:
    store = LocalStore()
    with served(store) as server:
        blocking(store.close())
        answer = request(server, "GET", "/v1/statistics")
    assert (answer.status, answer.error[0]) == (503, "StoreError")


def test_a_form_of_another_site_is_refused(server: StoreServer) -> None:
    answer = request(server, "POST", "/v1/rollouts/prune", b"{}", content_type="text/plain")
    assert answer.status == 415
    assert "Content-Type is 'text/plain'; send application/json" in answer.error[1]


@pytest.mark.parametrize("packed", [False, True])
def test_a_body_beyond_the_limit_is_refused_packed_or_not(packed: bool) -> None:
    with served(max_body_bytes=1000) as server:
        body = b'{"requests": [{"input": "' + b"a" * 5000 + b'"}]}'
        headers = {"Content-Encoding": "gzip"} if packed else {}
        answer = request(
            server, "POST", "/v1/rollouts", gzip.compress(body) if packed else body, headers=headers
        )
        assert answer.status == 413
        assert "more than 1000 bytes" in answer.error[1]
        assert request(server, "GET", "/v1/statistics").json["total_rollouts"] == 0


def test_bodies_may_be_gzip_and_answers_are_on_request(server: StoreServer) -> None:
    body = gzip.compress(b'{"requests": [{"input": "' + b"a" * 5000 + b'"}]}')
    answer = request(server, "POST", "/v1/rollouts", body, headers={"Content-Encoding": "gzip"})
    assert answer.status == 200
    listed = request(server, "GET", "/v1/rollouts", headers={"Accept-Encoding": "gzip"})
    assert listed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(listed.body).count(b"a") > 5000
    torn = request(server, "POST", "/v1/rollouts", body[:-9], headers={"Content-Encoding": "gzip"})
    assert (torn.status, torn.error) == (400, ("InvalidValue", "the body is gzip that ends too early"))
    other = request(server, "POST", "/v1/rollouts", body, headers={"Content-Encoding": "br"})
    assert other.status == 415


def test_only_a_token_opens_the_store_and_the_description_is_open() -> None:
    with served(tokens=["one", "two"]) as server:
        for headers in ({}, {"Authorization": "Bearer three"}, {"Authorization": "Basic one"}):
            answer = request(server, "GET", "/v1/statistics", headers=headers)
            assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert request(server, "GET", "/v1/statistics", headers={"Authorization": "Bearer two"}).status == 200
        for path in ("/docs", "/openapi.json", "/healthz"):
            assert request(server, "GET", path).status == 200


def test_without_a_token_only_this_machine_is_served() -> None:
    with pytest.raises(InvalidValue, match=r"host is '0\.0\.0\.0' and there are no tokens; give a token"):
        serve(LocalStore(), host="0.0.0.0", port=0)
    with pytest.raises(InvalidValue, match="a token is empty"):
        serve(LocalStore(), host="0.0.0.0", port=0, tokens=[""])


def test_a_taken_port_is_an_error_that_says_so(server: StoreServer) -> None:
    port = int(server.url.rsplit(":", 1)[1])
    with pytest.raises(StoreError, match=f"cannot serve 127.0.0.1:{port}: .*; give another port"):
        serve(LocalStore(), port=port)


def test_a_wait_ends_when_its_time_is_up_and_when_the_rollout_has_ended(server: StoreServer) -> None:
    rollout_id, _ = started(server)
    body = {"rollout_ids": [rollout_id], "timeout": 0.2}
    begin = time.monotonic()
    assert request(server, "POST", "/v1/rollouts/wait", body).json == []
    assert time.monotonic() - begin >= 0.2
    end = threading.Timer(
        0.2, lambda: request(server, "PATCH", f"/v1/rollouts/{rollout_id}", {"status": "cancelled"})
    )
    end.start()
    (ended,) = request(server, "POST", "/v1/rollouts/wait", {**body, "timeout": 30}).json
    assert ended["status"] == "cancelled"
    end.join()


class Telling(LocalStore):
    """Says when it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Semaphore(0)

    async def _ask(self, operation: str, **arguments: Any) -> Any:
        self.asked.release()
        return await super()._ask(operation, **arguments)


def test_closing_the_server_does_not_wait_for_those_that_wait(caplog: pytest.LogCaptureFixture) -> None:
    store = Telling()
    with served(store) as server:
        rollout_id, _ = started(server)
        store.asked.acquire()
        body = {"rollout_ids": [rollout_id], "timeout": 30}
        waiting = [threading.Thread(target=lambda: _cut(server, body)) for _ in range(5)]
        for each in waiting:
            each.start()
        for _ in waiting:
            assert store.asked.acquire(timeout=60)
        begin = time.monotonic()
    assert time.monotonic() - begin < 15
    for each in waiting:
        each.join()
    gc.collect()
    assert not caplog.records  # as of a task that was destroyed
    server.close()  # once more, which does nothing


def _cut(server: StoreServer, body: object) -> None:
    with pytest.raises(ConnectionError):
        request(server, "POST", "/v1/rollouts/wait", body)


def test_changes_are_read_from_a_cursor_on(server: StoreServer) -> None:
    started(server)
    first, second = request(server, "GET", "/v1/changes?limit=2").json
    assert (first["kind"], first["status"]) == ("rollout", "queuing")
    rest = request(server, "GET", f"/v1/changes?cursor={second['cursor']}&timeout=0").json
    assert first["cursor"] not in [change["cursor"] for change in rest]


async def test_a_groups_block_is_an_arrow_stream() -> None:
    import pyarrow as pa

    async with LocalStore() as store:
        await fill_group(store, "g/1", num_rollouts=2)
        with served(store) as server:
            answer = await asyncio.to_thread(request, server, "GET", "/v1/groups/g%2F1/block")
    table = pa.ipc.open_stream(answer.body).read_all()
    assert answer.headers["Content-Type"] == "application/vnd.apache.arrow.stream"
    assert table.column("raybolt.response_ids:int32").to_pylist() == [[8, 9], [8, 9]]


def test_the_openapi_page_names_every_operation_and_nothing_from_elsewhere(server: StoreServer) -> None:
    described = request(server, "GET", "/openapi.json").json
    ids = {each["operationId"] for path in described["paths"].values() for each in path.values()}
    assert set(BY_OPERATION) <= ids
    assert described["openapi"] == "3.1.0"
    page = request(server, "GET", "/docs")
    assert page.headers["Content-Type"].startswith("text/html")
    assert b"http" not in page.body.replace(b"over HTTP", b"")
    assert b"/v1/rollouts/{rollout_id}" in page.body


def test_every_reference_of_the_openapi_page_leads_somewhere() -> None:
    described = document()
    schemas = described["components"]["schemas"]
    found = set()

    def look(value: object) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                found.add(value["$ref"].rsplit("/", 1)[1])
            for each in value.values():
                look(each)
        elif isinstance(value, list):
            for each in value:
                look(each)

    look(described)
    assert {"Rollout", "Attempt", "Span", "Error"} <= found <= set(schemas)


def test_every_question_of_the_client_has_a_route() -> None:
    import ast
    import inspect

    asked = {
        node.args[0].value
        for node in ast.walk(ast.parse(inspect.getsource(client_module)))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "_ask"
        and isinstance(node.args[0], ast.Constant)
    }
    assert asked == set(BY_OPERATION)


async def test_a_packed_row_that_no_client_would_send_is_refused() -> None:
    from raybolt.store.row_frames import ROWS_TYPE, pack_rows
    from raybolt.store.rows import pack_span

    async with LocalStore() as store:
        attempt: AttemptedRollout = await store.start_rollout("x")
        row = pack_span(make_call_span(attempt.attempt))
        wrong = [
            row._replace(attributes="[]"),
            row._replace(attributes="{"),
            row._replace(events='[["a"]]'),
            row._replace(arrays=row.arrays[:-1]),
            row._replace(layout='[["a","int32",-1]]'),
            row._replace(sequence_id=2**63),
            row._replace(start_time=float("nan")),
            row._replace(name="\udc00"),
            row._replace(status="fine"),  # type: ignore[arg-type]  # that is the point
        ]
        with served(store) as server:
            for each in wrong:
                frame = pack_rows([row, each])
                answer = await asyncio.to_thread(
                    request, server, "POST", "/v1/spans", frame, content_type=ROWS_TYPE
                )
                assert (answer.status, answer.error[0]) == (400, "InvalidValue"), each
            torn = pack_rows([row])[:-1]
            answer = await asyncio.to_thread(
                request, server, "POST", "/v1/spans", torn, content_type=ROWS_TYPE
            )
            assert answer.status == 400
            async with HttpStore(server.url) as client:
                assert await client.query_spans(attempt.rollout_id) == []


async def test_a_packed_row_with_spaces_around_its_json_is_read_like_any_other() -> None:
    from raybolt.store.row_frames import ROWS_TYPE, pack_rows
    from raybolt.store.rows import pack_span

    async with LocalStore() as store:
        started: AttemptedRollout = await store.start_rollout("x")
        row = pack_span(make_call_span(started.attempt))
        spaced = row._replace(attributes=f" {row.attributes}\n", layout=f"\t{row.layout} ")
        with served(store) as server:
            answer = await asyncio.to_thread(
                request, server, "POST", "/v1/spans", pack_rows([spaced]), content_type=ROWS_TYPE
            )
            assert answer.status == 200
        (span,) = await store.query_spans(started.rollout_id)
        assert span.attributes[names.RESPONSE_IDS].tolist() == [8, 9]  # type: ignore[union-attr]

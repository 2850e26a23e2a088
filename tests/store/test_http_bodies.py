"""Bodies of requests that come in parts, and requests that come again while the first is at work."""

import asyncio
import gzip
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from store_http import request, served

from raybolt.store import LocalStore, StoreServer, blocking
from raybolt.store.errors import InvalidValue
from raybolt.store.server import bodies
from raybolt.store.server.repeats import Repeats

MAX_BYTES = 1000
HEAD = b"POST /v1/rollouts HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.fixture
def server() -> Iterator[StoreServer]:
    with served(max_body_bytes=MAX_BYTES) as running:
        yield running


def answer_to_parts(server: StoreServer, *parts: bytes) -> tuple[int, bytes]:
    """Sends the parts one after the other, each once the one before has arrived; returns status and body."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            connection.sendall(part)
            blocking(_turns(server))
        head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
    return int(head.split()[1]), body


async def _turns(server: StoreServer) -> None:
    """Lets the server's loop take its turns, in which it reads what was sent."""

    async def turns() -> None:
        for _ in range(20):
            await asyncio.sleep(0.001)

    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(turns(), server._loop))


def rollouts(size: int) -> bytes:
    body = b'{"requests":[{"input":"%s"}]}'
    return body % (b"x" * (size - len(body) + 2))


def chunked(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(body), body)


def test_a_body_may_come_in_parts(server: StoreServer) -> None:
    body = rollouts(MAX_BYTES)
    head = HEAD + b"Content-Length: 1000\r\n\r\n"
    status, answer = answer_to_parts(server, head, body[:1], body[1:600], body[600:])
    assert (status, answer[:6]) == (200, b'[{"rol')
    status, answer = answer_to_parts(server, head + body[:999], body[999:])
    assert (status, answer[:6]) == (200, b'[{"rol')


def test_a_body_may_be_chunked(server: StoreServer) -> None:
    body = rollouts(MAX_BYTES)
    head = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    parts = [head + chunked(body[:1]), chunked(body[1:600]) + chunked(body[600:]), b"0\r\n\r\n"]
    status, answer = answer_to_parts(server, *parts)
    assert (status, answer[:6]) == (200, b'[{"rol')
    status, answer = answer_to_parts(server, b"".join(parts))
    assert (status, answer[:6]) == (200, b'[{"rol')


def test_a_body_that_outgrows_the_limit_part_by_part_is_refused(server: StoreServer) -> None:
    body = rollouts(MAX_BYTES + 1)
    for parts in (
        [HEAD + b"Content-Length: 1001\r\n\r\n" + body[:500], body[500:]],
        [HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body[:500]), chunked(body[500:])],
    ):
        status, answer = answer_to_parts(server, *parts)
        assert status == 413
        assert b"the body has more than 1000 bytes" in answer


async def repeated(repeats: Repeats, name: str, *answers: str | Exception | asyncio.Future[str]) -> list[str]:
    """Answers, in order, of requests with one name that come at once; a handler gives the answers given."""
    left = list(answers)

    async def handle(request: web.Request) -> web.StreamResponse:
        answer = left.pop(0)
        if isinstance(answer, asyncio.Future):
            answer = await answer
        if isinstance(answer, Exception):
            raise answer
        return web.Response(body=answer.encode(), content_type="text/plain")

    async def send() -> str:
        request = make_mocked_request("POST", "/v1/rollouts", headers={"Idempotency-Key": name})
        try:
            response = await repeats.answer(request, handle)
        except InvalidValue as error:
            return str(error)
        assert isinstance(response, web.Response)
        assert isinstance(response.body, bytes)
        return response.body.decode()

    return await asyncio.gather(*(send() for _ in range(3)))


async def test_those_that_come_while_the_first_is_at_work_get_its_answer() -> None:
    first: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.01, first.set_result, "done")
    repeats = Repeats(10_000, MAX_BYTES)
    assert await repeated(repeats, "n", first) == ["done", "done", "done"]
    assert await repeated(repeats, "n") == ["done", "done", "done"]
    assert not repeats._under_way


async def test_when_the_first_fails_the_next_one_is_carried_out_and_the_rest_get_its_answer() -> None:
    loop = asyncio.get_running_loop()
    first: asyncio.Future[str] = loop.create_future()
    second: asyncio.Future[str] = loop.create_future()
    loop.call_later(0.01, first.set_exception, InvalidValue("refused"))
    first.add_done_callback(lambda _: loop.call_later(0.01, second.set_result, "second"))
    repeats = Repeats(10_000, MAX_BYTES)
    assert await repeated(repeats, "n", first, second) == ["refused", "second", "second"]
    assert not repeats._under_way


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("POST", 404)])
async def test_what_changes_nothing_is_answered_anew(method: str, status: int) -> None:
    repeats, answers = Repeats(10_000, MAX_BYTES), [b"first", b"second"]

    async def handle(request: web.Request) -> web.StreamResponse:
        return web.Response(body=answers.pop(0), content_type="text/plain", status=status)

    request = make_mocked_request(method, "/v1/rollouts/r", headers={"Idempotency-Key": "n"})
    bodies = []
    for _ in range(2):
        response = await repeats.answer(request, handle)
        assert isinstance(response, web.Response)
        bodies.append(response.body)
    assert bodies == [b"first", b"second"]


async def test_one_that_gives_up_waiting_leaves_the_others_waiting() -> None:
    repeats, over = Repeats(10_000, MAX_BYTES), asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        await over.wait()
        return web.Response(body=b"done", content_type="text/plain")

    def send() -> asyncio.Task[web.StreamResponse]:
        request = make_mocked_request("POST", "/v1/rollouts", headers={"Idempotency-Key": "n"})
        return asyncio.create_task(repeats.answer(request, handle))

    first, second, third = send(), send(), send()
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait([second])
    over.set()
    assert {(await each).status for each in (first, third)} == {200}
    assert second.cancelled()


async def test_answers_are_forgotten_oldest_first_when_there_are_too_many_bytes() -> None:
    repeats = Repeats(1000, MAX_BYTES)  # each counts as 300 bytes and its own
    for name in "abc":
        await repeated(repeats, name, name * 100)
    assert await repeated(repeats, "b") == ["b" * 100] * 3
    assert await repeated(repeats, "a", "again") == ["again"] * 3


def test_a_store_that_is_closed_answers_repetitions_it_knows() -> None:
    store = LocalStore()
    with served(store) as running:
        named = HEAD + b"Idempotency-Key: n\r\nContent-Length: 1000\r\n\r\n" + rollouts(1000)
        first = answer_to_parts(running, named)
        blocking(store.close())
        assert answer_to_parts(running, named) == first
        assert first[0] == 200


def test_gzip_may_have_several_members() -> None:
    body = rollouts(200_000)
    packed = gzip.compress(body[:7]) + gzip.compress(b"") + gzip.compress(body[7:], 0)  # more than one part
    with served() as running:
        answer = request(running, "POST", "/v1/rollouts", packed, headers={"Content-Encoding": "gzip"})
        assert answer.status == 200
        assert len(answer.json[0]["input"]) == len(body) - len(rollouts(0))


@pytest.mark.parametrize(
    ("rest", "status", "message"),
    [
        (gzip.compress(b"x" * MAX_BYTES), 413, "the body has more than 1000 bytes"),
        (gzip.compress(b"}")[:-1], 400, "the body is gzip that ends too early"),
        (gzip.compress(b"}")[:3], 400, "the body is gzip that ends too early"),
        (b"more", 400, "the body is not gzip"),
        (gzip.compress(b" ") * 10_000, 400, "the body is gzip of more than 10000 members; send fewer"),
    ],
)
def test_what_follows_the_first_member_of_gzip_is_not_passed_over(
    rest: bytes, status: int, message: str
) -> None:
    with served(max_body_bytes=1000 if status == 413 else 10**6) as running:
        packed = gzip.compress(rollouts(100)) + rest
        answer = request(running, "POST", "/v1/rollouts", packed, headers={"Content-Encoding": "gzip"})
        assert (answer.status, message in answer.error[1]) == (status, True)
        assert request(running, "GET", "/v1/statistics").json["total_rollouts"] == 0


def test_a_body_that_stops_coming_is_not_waited_for(
    server: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.2)
    status, body = answer_to_parts(server, HEAD + b"Content-Length: 500\r\n\r\n", b'{"requests":[')
    assert status == 408
    assert b"too slowly: 13 bytes so far" in body


def test_a_client_that_hangs_up_in_the_middle_of_a_body_is_no_fault_of_the_server(
    server: StoreServer, caplog: pytest.LogCaptureFixture
) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    for linger in (b"", struct.pack("ii", 1, 0)):  # an end, and a reset
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(HEAD + b"Content-Length: 500\r\n\r\n")
            blocking(_turns(server))
            connection.sendall(b'{"requests":[')
            blocking(_turns(server))
            if linger:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        blocking(_turns(server))
    assert answer_to_parts(server, HEAD + b"Content-Length: 2\r\n\r\n{}")[0] == 400
    assert [record.getMessage() for record in caplog.records] == []


@pytest.mark.parametrize("limit", [0, -1, 2**28 + 1, 1.5, "1"])
def test_a_limit_that_no_body_can_have_is_refused(limit: Any) -> None:
    with pytest.raises(InvalidValue, match="max_body_bytes is"):
        served(max_body_bytes=limit).__enter__()


def test_a_name_stands_for_one_request(server: StoreServer) -> None:
    def enqueue(text: str, name: str) -> Any:
        body = b'{"requests":[{"input":"%s"}]}' % text.encode()
        return request(server, "POST", "/v1/rollouts", body, headers={"Idempotency-Key": name})

    first, again, other = enqueue("a", "n"), enqueue("a", "n"), enqueue("b", "n")
    assert (first.status, again.status, again.body) == (200, 200, first.body)
    assert other.status == 422
    assert b"Idempotency-Key 'n' named another body before" in other.body
    assert enqueue("b", "m").status == 200
    found = request(server, "GET", "/v1/rollouts").body
    assert (found.count(b'"input":"a"'), found.count(b'"input":"b"')) == (1, 1)

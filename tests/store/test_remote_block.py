"""A group's block and what may come instead of it, from a server that does as it is told."""

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pyarrow as pa
import pytest

from raybolt.store import InvalidTransition, StoreError, StoreFull, remote_block
from raybolt.store.refusals import refusal
from raybolt.store.remote_block import RemoteBlock
from raybolt.store.wire import Missing

TABLE = pa.table({"n": [1, 2, 3]})


def stream_of(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


Handle = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def answering(*answers: Handle) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Gives one answer after the other, the last one again and again; yields the address and what was sent.

    Of HTTP 1.0, so that an answer ends where its connection does.
    """
    seen: list[dict[str, str]] = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(dict(self.headers))
            answers[min(len(seen), len(answers)) - 1](self)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with HTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/block", seen
        finally:
            server.shutdown()
            thread.join()


def answer(content: bytes, status: int = 200, **headers: str) -> Handle:
    def send(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(content)

    return send


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_block, "_PAUSE_SECONDS", 0.01)


def block(
    url: str, *, token: str | None = "secret", compress: bool = False, seconds: float = 60.0
) -> RemoteBlock:
    return RemoteBlock(url, token, None, compress, seconds)


@pytest.mark.parametrize(
    "instead",
    [
        answer(stream_of(TABLE)[:-8]),  # cut off, as if that were all
        answer(b""),
        answer(stream_of(TABLE)[:50], Content_Length="9999"),
        answer(gzip.compress(stream_of(TABLE))[:-20], Content_Encoding="gzip"),
        answer(b"<h1>Bad Gateway</h1>", 502),
        answer(b'{"error": {"type": "overloaded", "message": "later"}}', 503),
        answer(b"slowly", 429),
    ],
)
def test_what_a_proxy_says_while_the_server_is_away_is_asked_again(instead: Handle) -> None:
    with answering(instead, instead, answer(stream_of(TABLE))) as (url, seen):
        assert block(url).table() == TABLE
    assert len(seen) == 3


def test_a_block_may_come_compressed() -> None:
    packed = answer(gzip.compress(stream_of(TABLE)), Content_Encoding="gzip")
    with answering(packed) as (url, seen):
        assert block(url, compress=True).table() == TABLE
        assert block(url).table() == TABLE
    assert [each["Accept-Encoding"] for each in seen] == ["gzip", "identity"]


def test_the_token_goes_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(answer(stream_of(TABLE))) as (other, seen_there):
        monkeypatch.setenv("http_proxy", other)
        with (
            answering(answer(b"", 302, Location=other)) as (url, seen),
            pytest.raises(StoreError, match="302"),
        ):
            block(url).table()
    assert seen[0]["Authorization"] == "Bearer secret"
    assert seen_there == []


def test_a_server_that_stays_away_is_an_error_that_says_so() -> None:
    with answering(answer(b"", 502)) as (url, _):
        pass
    with pytest.raises(StoreError, match=r"cannot be reached: .*refused"):
        block(url, seconds=0.05).table()


def sent(kind: str) -> bytes:
    return json.dumps({"error": {"type": kind, "message": "why"}}).encode()


@pytest.mark.parametrize(
    ("status", "content", "kind"),
    [
        (503, sent("StoreFull"), StoreFull),
        (503, sent("StoreError"), StoreError),
        (503, sent("overloaded"), None),
        (503, b"<h1>Service Unavailable</h1>", None),
        (502, sent("StoreError"), None),
        (504, b"", None),
        (409, sent("InvalidTransition"), InvalidTransition),
        (404, sent("Missing"), Missing),
        (404, b"<h1>no such page</h1>", StoreError),
        (200, b"<h1>Log in</h1>", StoreError),
    ],
)
def test_a_proxys_answer_is_told_from_the_servers(status: int, content: bytes, kind: type | None) -> None:
    error = refusal("http://x", status, content)
    assert (None if error is None else type(error)) is kind

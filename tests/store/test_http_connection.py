"""HttpStore's connections, with servers that answer in every way that servers and proxies have."""

import asyncio
import gc
import gzip
import socket
import ssl
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from raybolt.store import http_connection, http_pool
from raybolt.store.http_connection import LineBroken
from raybolt.store.http_pool import HttpPool

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 4\r\n\r\n[42]"
MIB = 2**20
SOON = 8.0  # seconds: long before an idle connection is closed


class Scripted:
    """A server that has something of its own to say to each request."""

    def __init__(self, *answers: bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]) -> None:
        self._answers = iter(answers)
        self.num_connections = 0
        self.bodies: list[bytes] = []
        self.over = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.append(task)
        self.num_connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await self.hear(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async def hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0])
            self.bodies.append(await reader.readexactly(length))
            answer = next(self._answers)
            if isinstance(answer, bytes):
                writer.write(answer)
            else:
                await answer(writer)

    async def end(self) -> None:
        """Waits until all clients have gone."""
        self.over.set()
        await asyncio.gather(*self._tasks)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()


def closing(answer: bytes) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    async def answer_and_close(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    return answer_and_close


@asynccontextmanager
async def pool_at(server: Scripted) -> AsyncIterator[HttpPool]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    pool = HttpPool(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", None)
    try:
        yield pool
    finally:
        await pool.close()
        listening.close()
        await server.end()


async def ask(pool: HttpPool, body: bytes = b"", sink: Callable[[bytes], object] | None = None):
    return await pool.ask(f"POST / HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode(), body, sink)


async def test_requests_one_after_another_share_a_connection():
    async with pool_at(server := Scripted(OK, OK, OK)) as pool:
        for body in (b"a", b"", b"c"):
            assert await ask(pool, body) == (200, "application/json", b"[42]")
        assert (server.num_connections, server.bodies) == (1, [b"a", b"", b"c"])


async def test_requests_at_a_time_have_a_connection_each_and_leave_them_to_the_next():
    async with pool_at(server := Scripted(*[OK] * 12)) as pool:
        for _ in range(3):
            await asyncio.gather(*(ask(pool) for _ in range(4)))
        assert server.num_connections == 4


CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n"
    b"2\r\n[4\r\n2\r\n2]\r\n0\r\n\r\n"
)
UNTIL_THE_END = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n[42]"
GZIPPED = gzip.compress(b"[42]")
PACKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: "
    + f"{len(GZIPPED)}\r\n\r\n".encode()
    + GZIPPED
)


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        CHUNKED,
        PACKED,
        PACKED.replace(b"gzip", b"GZIP"),
        b"HTTP/1.1 102 Processing\r\n\r\n" + OK,
        b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\nContent-Type: text/html\r\n\r\n" + OK,
        closing(UNTIL_THE_END),
        closing(OK.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)),
    ],
)
async def test_an_answer_is_read_however_it_is_framed(answer):
    async with pool_at(Scripted(answer, OK)) as pool:
        for _ in range(2):
            assert await ask(pool) == (200, "application/json", b"[42]")


@pytest.mark.parametrize("answer", [CHUNKED, OK, PACKED])
async def test_an_answer_may_come_byte_by_byte(answer):
    async def slowly(writer: asyncio.StreamWriter) -> None:
        for byte in answer:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.001)

    async with pool_at(server := Scripted(slowly, OK)) as pool:
        for _ in range(2):
            assert await ask(pool) == (200, "application/json", b"[42]")
        assert server.num_connections == 1


async def test_an_answer_without_a_body_or_a_type_is_one():
    async with pool_at(server := Scripted(b"HTTP/1.1 204 No Content\r\n\r\n", OK)) as pool:
        assert await ask(pool) == (204, "", b"")
        assert (await ask(pool)).body == b"[42]"
        assert server.num_connections == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (hang_up, "the server hung up"),
        (closing(OK[:-2]), "the server hung up"),
        (closing(OK[:30]), "the server hung up"),
        (closing(CHUNKED[:-5]), "the server hung up"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "the answer is no HTTP"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            "the answer is no HTTP",
        ),
        (OK + OK, "more came than was asked for"),
        (PACKED.replace(GZIPPED, b"x" * len(GZIPPED)), "the answer is not gzip"),
        (PACKED.replace(GZIPPED, GZIPPED[:-4] + b"HTTP"), "the answer is not gzip"),
    ],
)
async def test_what_is_no_whole_answer_is_an_error_and_the_next_request_has_a_connection(answer, error):
    async with pool_at(Scripted(answer, OK)) as pool:
        with pytest.raises(LineBroken, match=error):
            await ask(pool)
        assert (await ask(pool)).body == b"[42]"


@pytest.mark.parametrize("unasked", [b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", b"junk"])
async def test_what_comes_when_nothing_was_asked_is_no_answer(unasked):
    async def more_than_asked(writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        await asyncio.sleep(0.05)
        writer.write(unasked)

    async with pool_at(server := Scripted(more_than_asked, OK)) as pool:
        await ask(pool)
        await asyncio.sleep(0.2)
        assert await ask(pool) == (200, "application/json", b"[42]")
        assert server.num_connections == 2


async def test_a_server_that_hangs_up_between_requests_is_not_noticed():
    async with pool_at(server := Scripted(closing(OK), closing(OK), OK)) as pool:
        for _ in range(3):
            assert (await ask(pool)).body == b"[42]"
            await asyncio.sleep(0.05)
        assert server.num_connections == 3


async def test_a_connection_that_nobody_needs_is_closed(monkeypatch):
    monkeypatch.setattr(http_connection, "_IDLE_SECONDS", 0.05)
    over = asyncio.Event()

    class Noticing(Scripted):
        async def hear(self, reader, writer):
            with suppress(asyncio.IncompleteReadError):
                await super().hear(reader, writer)
            over.set()

    async def late(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.2)
        writer.write(OK)

    async with pool_at(Noticing(late)) as pool:
        await ask(pool)
        async with asyncio.timeout(SOON):
            await over.wait()


async def test_a_server_has_its_time_from_when_it_was_asked(monkeypatch):
    monkeypatch.setattr(http_connection, "_SILENCE_SECONDS", 3.2)
    monkeypatch.setattr(http_connection, "_IDLE_SECONDS", 4.0)

    async def late(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2.0)
        writer.write(OK)

    async with pool_at(server := Scripted(OK, late)) as pool:
        await ask(pool)
        await asyncio.sleep(2.8)
        assert (await ask(pool)).body == b"[42]"
        assert server.num_connections == 1


async def test_a_server_that_says_nothing_is_given_up_and_one_that_goes_on_is_not(monkeypatch):
    monkeypatch.setattr(http_connection, "_SILENCE_SECONDS", 1.6)
    monkeypatch.setattr(http_connection, "_IDLE_SECONDS", 0.5)

    async def slowly(writer: asyncio.StreamWriter) -> None:
        for part in (OK[:20], OK[20:40], OK[40:]):
            await asyncio.sleep(0.8)
            writer.write(part)

    async def nothing(writer: asyncio.StreamWriter) -> None:
        await server.over.wait()

    async with pool_at(server := Scripted(slowly, nothing)) as pool:
        assert (await ask(pool)).body == b"[42]"
        with pytest.raises(LineBroken, match="the server said nothing for"):
            await ask(pool)


async def test_large_bodies_pass_both_ways_and_the_loop_goes_on_meanwhile():
    async def echo(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(server.bodies[-1])}\r\n\r\n".encode())
        writer.write(server.bodies[-1])

    num_turns = 0

    async def count() -> None:
        nonlocal num_turns
        while True:
            await asyncio.sleep(0)
            num_turns += 1

    body = bytes(range(256)) * (32 * MIB // 256)
    async with pool_at(server := Scripted(echo, OK)) as pool:
        counting = asyncio.create_task(count())
        assert (await ask(pool, body)).body == body
        counting.cancel()
        assert num_turns > 100
        await ask(pool)
        assert server.num_connections == 1


async def test_a_body_that_is_refused_before_its_end_is_not_sent_to_its_end():
    gone = asyncio.Event()
    num_received = 0

    class Refusing(Scripted):
        async def hear(self, reader, writer):
            nonlocal num_received
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.1)  # by which the client waits for room to write
            writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
            await answered.wait()
            with suppress(ConnectionError):
                while data := await reader.read(MIB):
                    num_received += len(data)
            gone.set()

    answered = asyncio.Event()
    body = bytes(256 * MIB)
    tracemalloc.start()
    try:
        async with pool_at(Refusing()) as pool, asyncio.timeout(SOON):
            assert await ask(pool, body) == (413, "", b"no")
            answered.set()
            await gone.wait()
        assert tracemalloc.get_traced_memory()[1] < 32 * MIB
    finally:
        tracemalloc.stop()
    assert num_received < 64 * MIB


async def test_after_a_body_that_was_not_sent_to_its_end_nothing_is_asked_over_the_connection():
    class Refusing(Scripted):
        async def hear(self, reader, writer):
            if self.num_connections == 1:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
                while await reader.read(MIB):
                    pass
            else:
                await super().hear(reader, writer)

    async with pool_at(server := Refusing(OK)) as pool, asyncio.timeout(SOON):
        assert await ask(pool, bytes(256 * MIB)) == (413, "", b"no")
        assert (await ask(pool)).body == b"[42]"
        assert server.num_connections == 2


async def test_a_sink_gets_the_body_while_it_comes_and_only_that_of_an_answer_that_is_right():
    parts: list[bytes] = []
    go_on = asyncio.Event()

    async def in_parts(writer: asyncio.StreamWriter) -> None:
        writer.write(OK[:-2])
        await go_on.wait()
        writer.write(OK[-2:])

    def take(part: bytes) -> None:
        parts.append(part)
        go_on.set()

    async with pool_at(Scripted(in_parts, OK.replace(b"200 OK", b"404 No"))) as pool:
        assert (await ask(pool, sink=take)).body == b""
        assert b"".join(parts) == b"[42]"
        assert (await ask(pool, sink=take)).body == b"[42]"
        assert len(parts) == 2


async def test_a_sink_that_fails_fails_its_request():
    def full(part: bytes) -> None:
        raise OSError("no space left")

    async with pool_at(server := Scripted(OK, OK)) as pool:
        with pytest.raises(OSError, match="no space left"):
            await ask(pool, sink=full)
        assert (await ask(pool)).body == b"[42]"
        assert server.num_connections == 2


@pytest.mark.parametrize("body", [b"", bytes(64 * MIB)])
async def test_a_request_that_is_cancelled_takes_its_connection_with_it(body):
    heard = asyncio.Event()
    gone = asyncio.Event()

    class Waiting(Scripted):
        async def hear(self, reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            heard.set()
            await asyncio.sleep(0.1)  # by which a writer has to wait, too
            with suppress(ConnectionError):
                while await reader.read(MIB):
                    pass
            gone.set()

    async with pool_at(Waiting()) as pool:
        asking = asyncio.create_task(ask(pool, body))
        await heard.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        async with asyncio.timeout(SOON):
            await gone.wait()


async def test_a_host_is_found_by_its_name():
    async with pool_at(Scripted(OK)) as pool:
        named = HttpPool(f"http://localhost:{pool.authority.rpartition(':')[2]}/store/", None)
        assert (named.authority.split(":")[0], named.prefix) == ("localhost", "/store")
        assert (await ask(named)).body == b"[42]"
        await named.close()


async def test_a_host_that_there_is_none_of_is_an_error(monkeypatch):
    def unknown(*arguments: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(LineBroken, match="not known"):
        await ask(HttpPool("http://no-such-host.example:1", None))


async def test_a_host_whose_name_cannot_be_one_is_an_error():
    with pytest.raises(LineBroken, match="label"):
        await ask(HttpPool(f"http://{'a' * 64}.example:1", None))


async def test_a_server_that_does_not_shake_hands_is_given_up(monkeypatch):
    monkeypatch.setattr(http_pool, "_CONNECT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        pool = HttpPool(f"https://127.0.0.1:{mute.getsockname()[1]}", ssl.create_default_context())
        with pytest.raises(LineBroken, match="no connection in 0 seconds"):
            await ask(pool)
        await pool.close()
    gc.collect()

"""One connection to a store's server: a request, its answer, then the next request.

The answers are read by httptools, which is the parser of Node.js. A client of all that HTTP can do would be a
quarter of what a span over HTTP costs.
"""

import asyncio
import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, cast

import httptools

_IDLE_SECONDS: Final = 15.0
"""How long a connection without a request is kept: less than servers and proxies keep it."""
_SILENCE_SECONDS: Final = 90.0
"""How long a server may say nothing; it answers requests that wait much sooner."""
AT_ONCE_BYTES: Final = 256 * 1024
"""How much is written, packed or unpacked without giving the event loop a turn."""
_READ_BYTES: Final = 64 * 1024
"""How much is read at once, into a buffer that is kept: to make one each time takes four times as long."""
_INFORMATIONAL: Final = frozenset(range(100, 200))
_BODILESS: Final = _INFORMATIONAL | {204, 304}


class LineBroken(Exception):
    """No answer came, or only a part of one."""


class Response(NamedTuple):
    """What came back."""

    status: int
    media_type: str
    """In lower case, without parameters; empty if none is named."""
    body: bytes


class HttpConnection(asyncio.BufferedProtocol):
    """Asks one thing at a time. Belongs to the event loop on which it was made."""

    def __init__(self, on_lost: Callable[["HttpConnection"], None]) -> None:
        """Will call ``on_lost`` with itself once it is no longer open."""
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self._answered: asyncio.Future[_Received | Exception] | None = None
        """What who asks waits for."""
        self._unblocked: asyncio.Future[None] | None = None
        """What who writes waits for, while the transport has enough."""
        self._sink: Callable[[bytes], object] | None = None
        self._is_kept = True
        self._is_surplus = False
        self._heard = self._loop.time()
        self._received = _Received()

    @property
    def is_free(self) -> bool:
        """Whether it can be asked: it is open, and whole requests and answers have gone over it."""
        is_at_rest = self._is_kept and self._answered is None and not self._transport.is_closing()
        return is_at_rest and self._transport.get_write_buffer_size() == 0

    async def ask(self, head: bytes, body: bytes, sink: Callable[[bytes], object] | None = None) -> Response:
        """Sends a request and returns its answer; the body of one with status 200 goes to the sink, if any.

        Raises LineBroken, or what the sink raises. Whoever finds it not free then is to ``abort`` it.
        """
        if not self.is_free:
            raise LineBroken("the server hung up")
        self._answered, self._sink = self._loop.create_future(), sink
        self._heard = self._loop.time()
        self._received = _Received()
        try:
            if len(body) <= AT_ONCE_BYTES:
                self._transport.write(head + body)
            else:
                await self._write(head, body, self._answered)
            received = await self._answered
            if isinstance(received, Exception):
                raise received
        except BaseException:
            self._is_kept = False
            raise
        finally:
            self._answered = self._sink = None
        body = b"".join(received.parts)
        if received.encoding == b"gzip":
            body = await _unzipped(body)
        media_type = received.media_type.partition(b";")[0].strip().lower().decode("latin-1")
        return Response(received.status, media_type, body)

    def abort(self) -> None:
        """Closes it now, whatever is under way."""
        self._transport.abort()

    async def _write(self, head: bytes, body: bytes, answered: "asyncio.Future[Any]") -> None:
        self._transport.write(head)
        view = memoryview(body)
        for start in range(0, len(view), AT_ONCE_BYTES):
            self._transport.write(view[start : start + AT_ONCE_BYTES])
            await (self._unblocked or asyncio.sleep(0))
            self._heard = self._loop.time()
            if answered.done():  # as when it is refused for its size
                self._is_kept = False
                return

    def _look(self) -> None:
        """Looks whether anybody still needs the connection, or has waited too long."""
        limit = _IDLE_SECONDS if self._answered is None else _SILENCE_SECONDS
        left = self._heard + limit - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(min(left, _IDLE_SECONDS), self._look)
        else:
            self._end(LineBroken(f"the server said nothing for {limit:.0f} seconds"))

    def _end(self, error: Exception) -> None:
        self._answer(error)
        self.abort()

    def _answer(self, received: "_Received | Exception") -> None:
        """Lets who asked go on."""
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(received)
        self.resume_writing()

    def _pass_on(self) -> None:
        """Hands on what has come of the answer."""
        received = self._received
        if self._sink is not None and received.parts and received.status == 200:
            try:
                self._sink(b"".join(received.parts))
            except Exception as error:
                self._end(error)
                return
            received.parts.clear()
        if received.is_whole:
            self._answer(received)

    # For the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are like it, but no subclass
        self._timer = self._loop.call_later(_IDLE_SECONDS, self._look)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._heard = self._loop.time()
        try:
            self._parser.feed_data(self._buffer[:nbytes])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._end(LineBroken(f"the answer is no HTTP: {error}"))
            return
        if self._is_surplus:
            self._end(LineBroken("more came than was asked for"))
            return
        self._pass_on()

    def eof_received(self) -> None:
        if self._received.is_until_eof:
            self.on_message_complete()
            self._pass_on()

    def connection_lost(self, error: Exception | None) -> None:
        self._on_lost(self)
        self._timer.cancel()
        self._answer(LineBroken(f"the connection broke: {error}" if error else "the server hung up"))

    def pause_writing(self) -> None:
        self._unblocked = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._unblocked is not None and not self._unblocked.done():
            self._unblocked.set_result(None)
        self._unblocked = None

    # For the parser

    def on_message_begin(self) -> None:
        self._is_surplus = self._answered is None or self._received.is_whole
        self._received = _Received()

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"content-type":
            self._received.media_type = value
        elif name == b"content-encoding":
            self._received.encoding = value.lower()
        elif name in (b"content-length", b"transfer-encoding"):
            self._received.has_end = True

    def on_headers_complete(self) -> None:
        self._received.status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        self._received.parts.append(data)

    def on_message_complete(self) -> None:
        if self._received.status not in _INFORMATIONAL:
            self._received.is_whole = True
            self._is_kept = self._is_kept and self._parser.should_keep_alive()


@dataclass(slots=True)
class _Received:
    """What has come of an answer."""

    status: int = 0
    media_type: bytes = b""
    encoding: bytes = b""
    parts: list[bytes] = field(default_factory=list)
    has_end: bool = False
    is_whole: bool = False

    @property
    def is_until_eof(self) -> bool:
        """Whether it ends with the connection."""
        return self.status != 0 and self.status not in _BODILESS and not self.has_end


async def _unzipped(packed: bytes) -> bytes:
    try:
        if len(packed) <= AT_ONCE_BYTES:
            return gzip.decompress(packed)
        return await asyncio.to_thread(gzip.decompress, packed)
    except (EOFError, OSError, zlib.error) as error:
        raise LineBroken(f"the answer is not gzip: {error}") from None

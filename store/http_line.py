"""One event loop's way to a store's server: its connections, and the requests under way on them."""

import asyncio
import itertools
import os
import ssl
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, NamedTuple

from .errors import StoreError
from .http_connection import AT_ONCE_BYTES, LineBroken
from .http_pool import HttpPool, Untrusted
from .refusals import refusal
from .routes import BY_OPERATION, REPEAT_HEADER
from .row_frames import ROWS_TYPE, pack_rows
from .rows import SpanRow
from .span_mailbox import SpanMailbox
from .wire import Missing, load

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.05, 2.0
_LAST_SECONDS = 5.0
"""How long the end of an event loop waits for spans whose callers were cancelled."""
_ELSEWHERE_SECONDS = 2.0
"""How long ``close`` waits for another event loop, which may be busy for much longer."""
_OURS = frozenset({"application/json", ROWS_TYPE})
"""Media types of a server's answers."""
_INHERITED: list["HttpLine"] = []
"""Lines of the process that this one was forked from, which alone may end them: held on to for ever."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a store's server is, and how it is asked."""

    url: str
    token: str | None
    tls: ssl.SSLContext | None
    compress: bool
    retry_seconds: float


class Answer(NamedTuple):
    """What the server said."""

    body: bytes
    media_type: str
    missing: bool
    """Whether there is no such thing, which is no error."""


class HttpLine:
    """Sends requests, again and again for ``retry_seconds`` while there is no connection.

    Make it and await its methods on one event loop; ``close`` and ``discard`` belong to any.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        """Belongs to the running event loop, which ends it before itself."""
        self.ended = False
        self.spans = SpanMailbox(self._add_rows)
        self.loop = asyncio.get_running_loop()
        self._endpoint = endpoint
        self._pid = os.getpid()
        self._under_way: set[_UnderWay] = set()
        self._names = map(f"{uuid.uuid4().hex}-{{}}".format, itertools.count())
        self._ending: asyncio.Task[None] | None = None
        self._pool = HttpPool(endpoint.url, endpoint.tls)
        self._headers = f"Host: {self._pool.authority}\r\nUser-Agent: raybolt\r\n"
        if endpoint.token is not None:
            self._headers += f"Authorization: Bearer {endpoint.token}\r\n"
        self._until_the_end = _until_the_loop_ends(self)
        with suppress(StopIteration):  # it waits for nothing
            anext(self._until_the_end).send(None)

    async def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        media_type: str = "application/json",
        accept: str | None = None,
        named: bool = False,
        anew: Callable[[], tuple[str, bytes | None]] | None = None,
    ) -> Answer:
        """Returns the answer to a request that may arrive twice; raises the error that the server names.

        ``named`` is one that changes something: sent again, it gets the answer of the first. ``anew`` gives
        the path and body of further tries, if they are to be others.
        """
        headers = f"Accept-Encoding: {'gzip' if self._endpoint.compress else 'identity'}\r\n"
        if accept is not None:
            headers += f"Accept: {accept}\r\n"
        if named:
            headers += f"{REPEAT_HEADER}: {next(self._names)}\r\n"
        if body is not None:
            headers += f"Content-Type: {media_type}\r\n"
            if self._endpoint.compress:
                headers += "Content-Encoding: gzip\r\n"

        async def packed(path: str, body: bytes | None) -> tuple[bytes, bytes]:
            if body is None:
                return self._head(method, path, headers), b""
            if self._endpoint.compress:
                body = await _zipped(body)
            return self._head(method, path, f"{headers}Content-Length: {len(body)}\r\n"), body

        with _UnderWay(self._under_way, self._endpoint.url):
            head, sent = await packed(path, body)
            return await self._answer(path, head, sent, None if anew is None else lambda: packed(*anew()))

    async def download(self, path: str, file: IO[bytes], on_bytes: Callable[[int], None]) -> None:
        """Writes an answer to a file while it comes, saying how many bytes there are; asks only once.

        Raises the error that the server names, or StoreError for an answer that did not come to its end.
        """
        if self.ended:
            raise closed(self._endpoint.url)
        with _UnderWay(self._under_way, self._endpoint.url):
            await self._fetch(path, file, on_bytes)

    async def close(self) -> None:
        """Ends the line on its own event loop; another one that is busy does so later, without a wait."""
        if self.loop is asyncio.get_running_loop():
            await self._end()
        elif self._is_at_work():
            over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            with suppress(RuntimeError):  # it has just been closed
                self.loop.call_soon_threadsafe(self._end_for, over)
                await asyncio.wait([over], timeout=_ELSEWHERE_SECONDS)
        else:
            self.discard()

    def discard(self) -> None:
        """Ends the line at once, or soon if its event loop runs; on any thread, and without a warning."""
        if self.ended:
            return
        if self._is_at_work():
            with suppress(RuntimeError):  # it has just been closed
                self.loop.call_soon_threadsafe(self._finish_soon)
                return
        self.ended = True
        if self._pid != os.getpid():
            _INHERITED.append(self)
            return
        if not self.loop.is_closed():
            self._pool.abort()

    async def finish(self) -> None:
        """Ends the line once what cancelled callers left behind was sent, or a few seconds are over."""
        if self.ended:
            return
        with suppress(TimeoutError, StoreError):
            async with asyncio.timeout(_LAST_SECONDS):
                await self.spans.sent()
        await self._end()

    async def _end(self) -> None:
        if self.ended:
            return
        self.ended = True
        for request in self._under_way:
            request.cut()
        await self._pool.close()

    def _end_for(self, over: "asyncio.Future[None]") -> None:
        """Ends the line, and says so on another event loop."""
        self._ending = self.loop.create_task(self._end())
        self._ending.add_done_callback(lambda _: _tell(over))

    def _finish_soon(self) -> None:
        self._ending = self.loop.create_task(self.finish())

    def _is_at_work(self) -> bool:
        return self._pid == os.getpid() and self.loop.is_running()

    def _head(self, method: str, path: str, headers: str) -> bytes:
        return f"{method} {self._pool.prefix}{path} HTTP/1.1\r\n{self._headers}{headers}\r\n".encode()

    async def _answer(
        self,
        path: str,
        head: bytes,
        body: bytes,
        anew: Callable[[], Awaitable[tuple[bytes, bytes]]] | None,
    ) -> Answer:
        deadline: float | None = None  # from the first failure on: a silent server alone takes longer to fail
        pause = _FIRST_PAUSE_SECONDS
        while True:
            if self.ended:
                raise closed(self._endpoint.url)
            try:
                return await self._ask(path, head, body)
            except Untrusted as error:
                raise StoreError(
                    f"{self._endpoint.url} cannot be trusted: {error}; give ca, or mend it"
                ) from None
            except LineBroken as error:
                if deadline is None:
                    deadline = self.loop.time() + self._endpoint.retry_seconds
                if self.loop.time() + pause > deadline:
                    raise StoreError(
                        f"the store at {self._endpoint.url} cannot be reached ({error}); is `raybolt store "
                        "serve` running there?"
                    ) from None
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            if anew is not None:
                head, body = await anew()

    async def _ask(self, path: str, head: bytes, body: bytes) -> Answer:
        status, media_type, content = await self._pool.ask(head, body)
        if status == 200 and media_type in _OURS:
            return Answer(content, media_type, missing=False)
        error = refusal(f"{self._endpoint.url}{path}", status, content)
        if error is None:
            raise LineBroken(f"status {status}")
        if isinstance(error, Missing):
            return Answer(b"", media_type, missing=True)
        raise error

    async def _fetch(self, path: str, file: IO[bytes], on_bytes: Callable[[int], None]) -> None:
        url = f"{self._endpoint.url}{path}"
        num_bytes = 0

        def write(chunk: bytes) -> None:
            nonlocal num_bytes
            num_bytes += file.write(chunk)
            on_bytes(num_bytes)

        head = self._head("GET", path, "Accept-Encoding: identity\r\n")
        try:
            status, _, content = await self._pool.ask(head, b"", write)
        except LineBroken as error:
            raise StoreError(
                f"the answer of {url} ended after {num_bytes} bytes ({error}); its log may say why"
            ) from None
        if status != 200:
            refused = refusal(url, status, content)
            raise refused or StoreError(f"{url} answers with status {status}; ask again later")

    async def _add_rows(self, rows: list[SpanRow]) -> list[int]:
        route = BY_OPERATION["add_rows"]
        answer = await self.send(route.method, route.path, pack_rows(rows), media_type=ROWS_TYPE, named=True)
        if answer.body == b"[]":  # as nearly always
            return []
        repeated: list[int] = load(answer.body, "the answer")
        return repeated


class _UnderWay:
    """A request that can be cut: its caller then gets StoreError, as if it had timed out."""

    __slots__ = ("_all", "_is_cut", "_num_cancelled", "_task", "_url")

    def __init__(self, all: "set[_UnderWay]", url: str) -> None:
        self._all = all
        self._url = url
        self._is_cut = False

    def cut(self) -> None:
        self._is_cut = True
        self._task.cancel()

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._num_cancelled = task.cancelling()
        self._all.add(self)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._all.discard(self)
        if not self._is_cut:
            return
        others_too = self._task.uncancel() > self._num_cancelled
        if kind is asyncio.CancelledError and not others_too:
            raise closed(self._url) from None


def closed(url: str) -> StoreError:
    """Returns the error of whoever asks a store that is closed."""
    return StoreError(f"the store at {url} is closed; make a new HttpStore")


async def _until_the_loop_ends(line: HttpLine) -> AsyncGenerator[None, None]:
    """Yields once. Event loops end such generators before themselves (``asyncio.run`` does it, and whoever
    calls ``loop.shutdown_asyncgens``), after their tasks; and so this ends the line in time."""
    try:
        yield
    finally:
        await line.finish()


async def _zipped(body: bytes) -> bytes:
    import gzip

    if len(body) <= AT_ONCE_BYTES:
        return gzip.compress(body, 1)
    return await asyncio.to_thread(gzip.compress, body, 1)


def _tell(over: "asyncio.Future[None]") -> None:
    def tell() -> None:
        if not over.done():
            over.set_result(None)

    with suppress(RuntimeError):  # who waits has gone with its event loop
        over.get_loop().call_soon_threadsafe(tell)

"""One way to a store's server: a thread with an event loop, whose connections every caller shares."""

import asyncio
import ssl
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from typing import IO, Any, TypeVar

import aiohttp
from yarl import URL

from .errors import InvalidValue, StoreError
from .refusals import refusal
from .row_frames import ROWS_TYPE
from .wire import Missing

T = TypeVar("T")
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.05, 2.0
_SILENCE_SECONDS = 90.0
"""How long a server may say nothing; it answers requests that wait much sooner."""
_CHUNK_BYTES = 256 * 1024
_OURS = frozenset({"application/json", ROWS_TYPE})
"""Media types of a server's answers."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said."""

    body: bytes
    media_type: str
    missing: bool
    """Whether there is no such thing, which is no error."""


class HttpLink:
    """Sends requests, again and again for ``retry_seconds`` while there is no connection. Thread-safe."""

    def __init__(
        self, url: str, *, token: str | None, ca: str | None, compress: bool, retry_seconds: float
    ) -> None:
        self._base = checked_url(url)
        self._tls = _trusting(ca) if ca is not None else True
        self._headers = {"Accept-Encoding": "gzip" if compress else "identity"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._retry_seconds = retry_seconds
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    def start(self, call: Coroutine[Any, Any, T]) -> "Future[T]":
        """Runs the coroutine on the link's own loop; StoreError when the link is closed."""
        with self._lock:
            if self._closed:
                call.close()
                raise StoreError(f"the store at {self._base} is closed; make a new HttpStore")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="raybolt-http-store", daemon=True
                )
                self._thread.start()
            return asyncio.run_coroutine_threadsafe(call, self._loop)

    async def send(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        """Returns the answer to a request that may arrive twice; raises the error that the server names."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._retry_seconds
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return await self._send_once(method, path, body, headers)
            except aiohttp.ClientSSLError as error:
                raise StoreError(f"{self._base} cannot be trusted: {error}; give ca, or mend it") from None
            except (aiohttp.ClientError, TimeoutError) as error:
                if loop.time() + pause > deadline:
                    raise StoreError(
                        f"the store at {self._base} cannot be reached ({error or type(error).__name__}); "
                        "is `raybolt store serve` running there?"
                    ) from None
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def download(self, path: str, file: IO[bytes], on_bytes: Callable[[int], None]) -> None:
        """Writes an answer to a file while it comes, saying how many bytes there are; asks only once.

        Raises the error that the server names, or StoreError for an answer that did not come to its end.
        """
        url = URL(f"{self._base}{path}", encoded=True)
        num_bytes = 0
        try:
            async with self._open_session().get(url, allow_redirects=False) as response:
                if response.status != 200:
                    error = refusal(str(url), response.status, await response.read())
                    raise error or StoreError(f"{url} answers with status {response.status}; ask again later")
                async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                    num_bytes += file.write(chunk)
                    on_bytes(num_bytes)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise StoreError(
                f"the answer of {url} ended after {num_bytes} bytes ({error or type(error).__name__}); its "
                "log may say why"
            ) from None

    def close(self) -> None:
        """Ends the connections and the thread; closing twice does nothing."""
        with self._lock:
            self._closed = True
            loop, self._loop = self._loop, None
        if loop is None or self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._end(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()
        loop.close()

    async def _send_once(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        session = self._open_session()
        url = URL(f"{self._base}{path}", encoded=True)
        async with session.request(
            method, url, data=body, headers=headers, allow_redirects=False
        ) as response:
            content = await response.read()
            status, media_type = response.status, response.content_type
        if status == 200 and media_type in _OURS:
            return Answer(content, media_type, missing=False)
        error = refusal(str(url), status, content)
        if error is None:
            raise aiohttp.ClientError(f"status {status}")
        if isinstance(error, Missing):
            return Answer(b"", media_type, missing=True)
        raise error

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers=self._headers,
                connector=aiohttp.TCPConnector(ssl=self._tls, limit=0, keepalive_timeout=15.0),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=_SILENCE_SECONDS),
            )
        return self._session

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if self._session is not None:
            await self._session.close()


def checked_url(url: str) -> str:
    """Returns the address less its last slash; InvalidValue for what is none, or is more than that."""
    try:
        parts = URL(url)
        known = parts.scheme in ("http", "https") and parts.host
    except (TypeError, ValueError):
        known = None
    if not known:
        raise InvalidValue(f"url is {url!r}; give one such as http://127.0.0.1:4747")
    if parts.user is not None or parts.password is not None:
        raise InvalidValue("url has a user or a password in it, which no store's server asks for; give token")
    if "?" in url or "#" in url:
        raise InvalidValue(f"url is {url!r}; give it without what begins with ? or #")
    return url.rstrip("/")


def _trusting(ca: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise InvalidValue(f"ca is {ca!r}, which cannot be used ({error}); give a PEM file") from None

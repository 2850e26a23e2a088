"""A reverse proxy before stores' servers, with the ways of several that people use."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

import aiohttp
from aiohttp import web
from yarl import URL

from raybolt.store.answering import answering

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "te", "upgrade"}


@dataclass
class Ways:
    """What the proxy does with what passes."""

    prefix: str = "/store"
    """The path that it takes off before it asks a server."""
    buffers: bool = True
    """Whether it reads requests and answers whole before it passes them on."""
    zips: bool = False
    """Whether it compresses answers for those that accept it."""
    rewrites_paths: bool = False
    """Whether it resolves percent signs and writes the path anew, as nginx does that takes a prefix off."""
    cuts_every: int = 0
    """Each so many-th answer breaks off: by turns before it has begun and in its middle. 0 is none."""


@dataclass
class Proxy:
    """A running proxy."""

    url: str
    ways: Ways
    num_cut: int = 0
    num_unavailable: int = 0
    num_by_server: dict[str, int] = field(default_factory=dict)


@contextmanager
def proxied(servers: Sequence[str], ways: Ways) -> Iterator[Proxy]:
    """Passes requests on to the servers in turn, from a free port, in a thread of its own."""
    proxy = Proxy("", ways)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="proxy")
    thread.start()
    over = asyncio.Event()
    started: Future[None] = Future()
    running = asyncio.run_coroutine_threadsafe(_run(proxy, list(servers), started, over), loop)
    try:
        started.result(60)
        yield proxy
    finally:
        loop.call_soon_threadsafe(over.set)
        running.result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _run(proxy: Proxy, servers: list[str], started: "Future[None]", over: asyncio.Event) -> None:
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
        handler = _Handler(proxy, servers, session)
        runner = web.ServerRunner(web.Server(handler.handle, auto_decompress=False), shutdown_timeout=1.0)
        async with answering(runner, host="127.0.0.1", port=0) as (host, port):
            proxy.url = f"http://{host}:{port}{proxy.ways.prefix}"
            started.set_result(None)
            await over.wait()


class _Handler:
    def __init__(self, proxy: Proxy, servers: list[str], session: aiohttp.ClientSession) -> None:
        self._proxy = proxy
        self._servers = servers
        self._session = session
        self._num_asked = 0

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        ways = self._proxy.ways
        if not request.path.startswith(f"{ways.prefix}/"):
            return web.Response(status=404, text="<h1>no such site</h1>", content_type="text/html")
        self._num_asked += 1
        server = self._servers[self._num_asked % len(self._servers)]
        self._proxy.num_by_server[server] = self._proxy.num_by_server.get(server, 0) + 1
        cut = self._num_asked // ways.cuts_every % 2 if self._is_cut() else None
        headers = {name: each for name, each in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        body = await request.read() if ways.buffers else request.content
        try:
            asked = self._session.request(
                request.method, self._address(server, request), headers=headers, data=body,
                allow_redirects=False,
            )  # fmt: skip
            async with asked as answer:
                return await self._pass_on(request, answer, cut)
        except aiohttp.ClientConnectionError:
            self._proxy.num_unavailable += 1
            return web.Response(status=502, text="<h1>502 Bad Gateway</h1>", content_type="text/html")

    def _is_cut(self) -> bool:
        every = self._proxy.ways.cuts_every
        return every > 0 and self._num_asked % every == 0

    def _address(self, server: str, request: web.BaseRequest) -> URL:
        path, _, query = request.raw_path.partition("?")
        if self._proxy.ways.rewrites_paths:
            path = quote(unquote(path))
        path = path.removeprefix(self._proxy.ways.prefix)
        return URL(f"{server}{path}{'?' if query else ''}{query}", encoded=True)

    async def _pass_on(
        self, request: web.BaseRequest, answer: aiohttp.ClientResponse, cut: int | None
    ) -> web.StreamResponse:
        """Answers with what the server did, which has thus carried the request out, cut or not."""
        headers = {name: each for name, each in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
        response = web.StreamResponse(status=answer.status, headers=headers)
        if cut is not None:
            return await self._broken_off(request, response, await answer.read(), cut)
        if self._zips_for(request, answer):
            response.enable_compression(web.ContentCoding.gzip)
        if self._proxy.ways.buffers:
            content = await answer.read()
            await response.prepare(request)
            await response.write(content)
        else:
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
        await response.write_eof()
        return response

    def _zips_for(self, request: web.BaseRequest, answer: aiohttp.ClientResponse) -> bool:
        accepted = "gzip" in request.headers.get("Accept-Encoding", "")
        return self._proxy.ways.zips and accepted and "Content-Encoding" not in answer.headers

    async def _broken_off(
        self, request: web.BaseRequest, response: web.StreamResponse, content: bytes, in_the_middle: int
    ) -> web.StreamResponse:
        self._proxy.num_cut += 1
        if in_the_middle:
            response.content_length = len(content)
            await response.prepare(request)
            await response.write(content[: len(content) // 2])
        assert request.transport is not None
        request.transport.close()
        raise asyncio.CancelledError  # nothing more is to be written

"""Requests that are sent again because their answer was lost: they get the answer of the first."""

import asyncio
from collections import OrderedDict

from aiohttp import hdrs, web

from raybolt.store.routes import REPEAT_HEADER

from .bodies import reply
from .problems import Handler

MAX_BYTES = 16 * 2**20
"""How much of answers is kept: those of the last minute, say, of a server that is asked a thousand times a
second."""
_OVERHEAD_BYTES = 300

_Key = tuple[str, str, str]
"""The header's value, method, path and query."""


class Repeats:
    """Answers to requests that named themselves, the latest ones. All methods belong to one event loop.

    The ids in a request keep its repetition from doubling anything, also when the server was killed before
    it could answer. This adds that the answer is the same: that a span which was new is called new.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._nbytes = 0
        self._answers: OrderedDict[_Key, tuple[bytes, str]] = OrderedDict()
        self._under_way: dict[_Key, asyncio.Event | None] = {}
        """With an event for those who wait, once there are any."""

    async def answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Returns the handler's answer, or the one that the request got before."""
        name = request.headers.get(REPEAT_HEADER)
        if name is None or request.method == "GET":
            return await handler(request)
        key = name, request.method, request.raw_path
        while key in self._under_way:
            await self._end_of(key)
        known = self._answers.get(key)
        if known is not None:
            return reply(request, *known)
        self._under_way[key] = None
        try:
            response = await handler(request)  # errors are not kept: what raised them may have passed
        finally:
            over = self._under_way.pop(key)
            if over is not None:
                over.set()
        if isinstance(response, web.Response) and response.status == 200:
            assert isinstance(response.body, bytes)
            self._keep(key, response.body, response.headers[hdrs.CONTENT_TYPE])
        return response

    async def _end_of(self, key: _Key) -> None:
        over = self._under_way[key] or asyncio.Event()
        self._under_way[key] = over
        await over.wait()

    def _keep(self, key: _Key, body: bytes, content_type: str) -> None:
        self._answers[key] = body, content_type
        self._nbytes += len(body) + _OVERHEAD_BYTES
        while self._nbytes > self._max_bytes:
            _, (oldest, _) = self._answers.popitem(last=False)
            self._nbytes -= len(oldest) + _OVERHEAD_BYTES

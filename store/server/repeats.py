"""Requests that are sent again because their answer was lost: they get the answer of the first."""

import asyncio
from collections import OrderedDict

from aiohttp import hdrs, web

from raybolt.store.errors import InvalidValue
from raybolt.store.routes import REPEAT_HEADER

from .bodies import FINGERPRINT, note_body, read_body, reply
from .problems import Handler, HttpProblem

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

    def __init__(self, max_bytes: int, max_body_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._max_body_bytes = max_body_bytes
        self._nbytes = 0
        self._answers: OrderedDict[_Key, tuple[bytes, str, int | None]] = OrderedDict()
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
            body, content_type, fingerprint = known
            await self._check_same(request, fingerprint)
            return reply(request, body, content_type)
        self._under_way[key] = None
        try:
            response = await handler(request)  # errors are not kept: what raised them may have passed
        finally:
            over = self._under_way.pop(key)
            if over is not None:
                over.set()
        if isinstance(response, web.Response) and response.status == 200:
            assert isinstance(response.body, bytes)
            fingerprint = request.get(FINGERPRINT)
            self._keep(key, response.body, response.headers[hdrs.CONTENT_TYPE], fingerprint)
        return response

    async def _check_same(self, request: web.Request, fingerprint: int | None) -> None:
        """Refuses another request under the name of an earlier one; of spans, their ids tell anyway."""
        if fingerprint is None:
            return
        note_body(request, await read_body(request, self._max_body_bytes))
        if request[FINGERPRINT] != fingerprint:
            name = request.headers[REPEAT_HEADER]
            raise HttpProblem(
                422, InvalidValue(f"{REPEAT_HEADER} {name!a} named another body before; give each its own")
            )

    async def _end_of(self, key: _Key) -> None:
        over = self._under_way[key] or asyncio.Event()
        self._under_way[key] = over
        await over.wait()

    def _keep(self, key: _Key, body: bytes, content_type: str, fingerprint: int | None) -> None:
        self._answers[key] = body, content_type, fingerprint
        self._nbytes += len(body) + _OVERHEAD_BYTES
        while self._nbytes > self._max_bytes:
            _, (oldest, *_) = self._answers.popitem(last=False)
            self._nbytes -= len(oldest) + _OVERHEAD_BYTES

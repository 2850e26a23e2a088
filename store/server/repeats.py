"""Requests that are sent again because their answer was lost: they get the answer of the first."""

import asyncio
from collections import OrderedDict
from typing import Any
from weakref import WeakValueDictionary

from aiohttp import web

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
        self._turns: WeakValueDictionary[_Key, asyncio.Lock] = WeakValueDictionary()

    def middleware(self) -> Any:
        """Returns what puts this before an application's handlers."""

        @web.middleware
        async def answer_once(request: web.Request, handler: Handler) -> web.StreamResponse:
            name = request.headers.get(REPEAT_HEADER)
            if name is None or request.method == "GET":
                return await handler(request)
            return await self._once((name, request.method, request.raw_path), request, handler)

        return answer_once

    async def _once(self, key: _Key, request: web.Request, handler: Handler) -> web.StreamResponse:
        turn = self._turns.setdefault(key, asyncio.Lock())
        async with turn:  # the first may still be at it
            known = self._answers.get(key)
            if known is not None:
                return reply(request, *known)
            response = await handler(request)  # errors are not kept: what raised them may have passed
            if isinstance(response, web.Response) and response.status == 200:
                assert isinstance(response.body, bytes)
                self._keep(key, response.body, response.content_type)
            return response

    def _keep(self, key: _Key, body: bytes, content_type: str) -> None:
        self._answers[key] = body, content_type
        self._nbytes += len(body) + _OVERHEAD_BYTES
        while self._nbytes > self._max_bytes:
            _, (oldest, _) = self._answers.popitem(last=False)
            self._nbytes -= len(oldest) + _OVERHEAD_BYTES

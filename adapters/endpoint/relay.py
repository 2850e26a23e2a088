"""Hand a request on to another server, and its response back, piece by piece and unchanged."""

from __future__ import annotations

import re

from aiohttp import ClientError, ClientSession, web

from raybolt.adapters.endpoint.upstream import Upstream

# What tells a client that a stream is over: of chats, and of Responses.
_END = re.compile(rb"\[DONE\]|response\.(completed|incomplete|failed)")
_END_LENGTH = len(b"response.incomplete")
_BACK = ("content-type", "x-request-id", "x-should-retry", "retry-after")


class UpstreamFailed(Exception):
    """The other server could not be reached, or answered with an error; never leaves this package."""


class Relay:
    """One request on its way through."""

    def __init__(
        self, request: web.Request, session: ClientSession, upstream: Upstream, operation: str
    ) -> None:
        self.upstream = upstream
        self.started: web.StreamResponse | None = None
        """The response, once the agent has begun to get it."""
        self._request = request
        self._session = session
        self._operation = operation
        self._held = bytearray()
        self._broken = False

    @property
    def response(self) -> web.StreamResponse:
        """The response that was handed back."""
        assert self.started is not None
        return self.started

    @property
    def is_stream(self) -> bool:
        """Whether the response comes as events."""
        return "text/event-stream" in self.response.headers.get("content-type", "")

    async def send(self, payload: bytes) -> bytes:
        """The whole response, of which the agent then has all but the end: that is `finish`'s.

        An agent that has the end may be gone in the next moment, and its run with it, so whatever is to be
        noted of the response comes before.

        Raises:
            UpstreamFailed: there is none, or it is an error; `started` says whether the agent gets it.
        """
        headers = {"authorization": self.upstream.authorization}
        if "content-type" in self._request.headers:
            headers["content-type"] = self._request.headers["content-type"]
        url = self.upstream.url(self._operation)
        if self._request.query_string:
            url += f"?{self._request.query_string}"
        try:
            return await self._send(url, payload, headers)
        except ClientError as error:
            if self.started is not None and self._request.transport is not None:
                self._request.transport.close()  # half a response must not look whole
            self._broken = True
            raise UpstreamFailed(f"{type(error).__name__}: {error}") from error

    async def _send(self, url: str, payload: bytes, headers: dict[str, str]) -> bytes:
        content = bytearray()
        async with self._session.request(self._request.method, url, data=payload, headers=headers) as answer:
            kept = {name: answer.headers[name] for name in _BACK if name in answer.headers}
            self.started = web.StreamResponse(status=answer.status, headers=kept)
            await self.started.prepare(self._request)
            async for piece in answer.content.iter_any():
                content += piece
                self._held += piece
                begin = max(0, len(content) - len(self._held) - _END_LENGTH)
                if self.is_stream and _END.search(content, begin) is None:
                    await self._hand_over()
            if answer.status >= 400:
                raise UpstreamFailed(f"HTTP {answer.status}: {content[:500].decode(errors='replace')}")
        return bytes(content)

    async def finish(self) -> None:
        """Gives the agent the end of the response; nothing if it broke off, or never began."""
        if self.started is None or self._broken:
            return
        await self._hand_over()
        await self.started.write_eof()

    async def _hand_over(self) -> None:
        assert self.started is not None
        held, self._held = bytes(self._held), bytearray()
        await self.started.write(held)

"""Hand a request on to another server, and its response back, piece by piece and unchanged."""

from __future__ import annotations

from aiohttp import ClientError, ClientSession, web

from raybolt.adapters.endpoint.upstream import Upstream

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

    @property
    def response(self) -> web.StreamResponse:
        """The response that was handed back."""
        assert self.started is not None
        return self.started

    async def send(self, payload: bytes) -> bytes:
        """The whole response, which the agent has by then.

        Raises:
            UpstreamFailed: there is none, or it is an error; `started` says whether the agent has it.
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
            raise UpstreamFailed(f"{type(error).__name__}: {error}") from error

    async def _send(self, url: str, payload: bytes, headers: dict[str, str]) -> bytes:
        content = bytearray()
        async with self._session.request(self._request.method, url, data=payload, headers=headers) as answer:
            kept = {name: answer.headers[name] for name in _BACK if name in answer.headers}
            self.started = web.StreamResponse(status=answer.status, headers=kept)
            await self.started.prepare(self._request)
            async for piece in answer.content.iter_any():
                content += piece
                await self.started.write(piece)
            await self.started.write_eof()
            if answer.status >= 400:
                raise UpstreamFailed(f"HTTP {answer.status}: {content[:500].decode(errors='replace')}")
        return bytes(content)

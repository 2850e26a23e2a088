"""Let a chat request out to the agent's own model and record what comes back, whole or as a stream.

A stream is handed on piece by piece, unchanged; its reply is read when it ends or the consumer leaves it.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from raybolt.adapters.openai_python.exchange import Exchange
from raybolt.adapters.openai_python.replies import body_from_events
from raybolt.env.observed import ObservedCall
from raybolt.env.policy import PolicyPort


class OwnModelFailed(Exception):
    """The agent's own model answered with an HTTP error; ends the call's span, never leaves this room."""

    def __init__(self, response: Any) -> None:
        super().__init__(f"HTTP {response.status_code} from {response.request.url}")
        self.response = response


def pass_on(library: Any, policy: PolicyPort, exchange: Exchange, send: Callable[[], Any]) -> Any:
    """The real response to the request; a blocking client's."""
    observation = _Observation(policy.observe(exchange.request), exchange)
    try:
        with observation.until_streaming():
            response = _checked(send())
            if not observation.takes_over(library, response):
                response.read()
                observation.tell(response)
    except OwnModelFailed as failure:
        return failure.response
    return response


async def pass_on_async(
    library: Any, policy: PolicyPort, exchange: Exchange, send: Callable[[], Awaitable[Any]]
) -> Any:
    """The real response to the request; an async client's."""
    observation = _Observation(policy.observe(exchange.request), exchange)
    try:
        with observation.until_streaming():
            response = _checked(await send())
            if not observation.takes_over(library, response):
                await response.aread()
                observation.tell(response)
    except OwnModelFailed as failure:
        return failure.response
    return response


def _checked(response: Any) -> Any:
    if response.is_error:
        raise OwnModelFailed(response)
    return response


class _Observation:
    """The open span of one call, for as long as its response lasts."""

    def __init__(self, span: AbstractContextManager[ObservedCall], exchange: Exchange) -> None:
        self._exchange = exchange
        self._stack = ExitStack()
        self._call = self._stack.enter_context(span)

    def until_streaming(self) -> ExitStack:
        """Closes the span at the end of the block, unless a stream has taken it over by then."""
        return self._stack

    def takes_over(self, library: Any, response: Any) -> bool:
        """Whether the response is an unread stream, which then closes the span when it has been used."""
        if response.is_closed or not self._exchange.streams:
            return False
        stream, span, headers = response.stream, self._stack.pop_all(), response.headers

        def heard(raw: bytes) -> None:
            with span:
                self.tell(library.Response(200, headers=headers, content=raw))  # which undoes a compression

        def failed(error: BaseException) -> None:
            span.__exit__(type(error), error, error.__traceback__)

        blocking, asynchronous = _stream_types(library)
        kind = blocking if isinstance(stream, library.SyncByteStream) else asynchronous
        response.stream = kind(stream, heard, failed)
        return True

    def tell(self, response: Any) -> None:
        """Records the reply of a response that was read."""
        try:
            body = body_from_events(response.content) if self._exchange.streams else response.json()
        except ValueError:  # no JSON, so no reply that anybody could read
            return
        reply = self._exchange.own_reply(body)
        if reply is not None:
            reply.tell(self._call)


class _Heard:
    """A stream as it is, listened to: `heard` gets all its bytes once it is closed, `failed` its error."""

    def __init__(
        self, stream: Any, heard: Callable[[bytes], None], failed: Callable[[BaseException], None]
    ) -> None:
        self._stream = stream
        self._heard = heard
        self._failed = failed
        self._bytes = bytearray()

    @contextmanager
    def _listening(self) -> Iterator[None]:
        try:
            yield
        except GeneratorExit:  # the consumer has enough; it will close the stream
            raise
        except BaseException as error:
            self._failed(error)
            raise


@functools.cache
def _stream_types(library: Any) -> tuple[type[_Heard], type[_Heard]]:
    """The library's own kinds of stream, for blocking and for async clients."""

    class Blocking(_Heard, library.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            with self._listening():
                for piece in self._stream:
                    self._bytes += piece
                    yield piece

        def close(self) -> None:
            self._stream.close()
            self._heard(bytes(self._bytes))

    class Async(_Heard, library.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            with self._listening():
                async for piece in self._stream:
                    self._bytes += piece
                    yield piece

        async def aclose(self) -> None:
            await self._stream.aclose()
            self._heard(bytes(self._bytes))

    return Blocking, Async

"""Streams whose producer and consumer stand at different places.

A generator runs in the context of whoever asks it for the next item, so a context variable that it sets while
it works would stay set for its consumer. Here it is set for the length of each step only.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from raybolt.adapters.capture import captured_policy

T = TypeVar("T")
Place = Callable[[], AbstractContextManager[object]]
"""Opens, for one step, what the producer is to find around it."""


@contextmanager
def not_captured() -> Iterator[None]:
    """LLM calls made in this block go where the agent sends them."""
    token = captured_policy.set(None)
    try:
        yield
    finally:
        captured_policy.reset(token)


async def stepped(stream: AsyncIterator[T], place: Place) -> AsyncGenerator[T]:
    """The items of `stream`, each made inside `place()` and consumed outside of it."""
    try:
        while True:
            with place():
                try:
                    item = await anext(stream)
                except StopAsyncIteration:
                    return
            yield item
    finally:
        if isinstance(stream, AsyncGenerator):
            with place():
                await stream.aclose()


def stepped_sync(stream: Iterator[T], place: Place) -> Generator[T]:
    """The same for a stream that is not asynchronous."""
    try:
        while True:
            with place():
                try:
                    item = next(stream)
                except StopIteration:
                    return
            yield item
    finally:
        if isinstance(stream, Generator):
            with place():
                stream.close()

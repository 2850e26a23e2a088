"""Spans on their way to a server: those that are added while others are under way share a request."""

import asyncio
from collections.abc import Awaitable, Callable

from .errors import StoreError
from .rows import SpanRow

MAX_BYTES = 8 * 2**20
"""About how much one request carries; servers refuse bodies that are much larger."""

_Letter = tuple[list[SpanRow], "asyncio.Future[list[int]]"]


class SpanMailbox:
    """Sends rows in the order in which they were added, on one event loop.

    Who adds rows while nothing is under way sends them itself. What is added meanwhile waits, and goes
    together. Rows that were added are sent, whether or not their caller is cancelled.
    """

    def __init__(self, send: Callable[[list[SpanRow]], Awaitable[list[int]]]) -> None:
        self._send = send
        self._waiting: list[_Letter] = []  # also what is under way, until it is answered
        self._sender: asyncio.Task[None] | None = None

    async def add(self, rows: list[SpanRow]) -> list[int]:
        """Returns, once the server has the rows, the places of those that it had already."""
        answer: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self._waiting.append((rows, answer))
        if len(self._waiting) == 1:
            await self._send_own(rows, answer)
        return await answer

    async def sent(self) -> None:
        """Returns when all that was added before has been answered."""
        if self._waiting:
            await self.add([])

    async def _send_own(self, rows: list[SpanRow], answer: "asyncio.Future[list[int]]") -> None:
        try:
            answer.set_result(await self._send_parts(rows))
        except asyncio.CancelledError:
            answer.cancel()  # nobody waits for it
            self._go_on()
            raise
        except Exception as error:
            answer.set_exception(error)
        if answer.done():
            del self._waiting[0]
        self._go_on()

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                letters = self._next()
                await self._send_some(letters)
                del self._waiting[: len(letters)]
        except asyncio.CancelledError:  # an event loop that ends cancels all tasks
            self._go_on()
            raise
        self._go_on()

    def _go_on(self) -> None:
        """Leaves what waits to a task."""
        self._sender = asyncio.create_task(self._send_all()) if self._waiting else None

    def _next(self) -> list[_Letter]:
        size = count = 0
        for rows, _ in self._waiting:
            size += sum(map(_num_bytes, rows))
            if count and size > MAX_BYTES:
                break
            count += 1
        return self._waiting[:count]

    async def _send_some(self, letters: list[_Letter]) -> None:
        together = [row for rows, _ in letters for row in rows]
        try:
            repeated = await self._send_parts(together)
        except Exception as error:
            await self._settle(letters, error)
            return
        start = 0
        for rows, future in letters:
            end = start + len(rows)
            own = [index - start for index in repeated if start <= index < end]
            if not future.done():  # its caller may have been cancelled
                future.set_result(own)
            start = end

    async def _send_parts(self, rows: list[SpanRow]) -> list[int]:
        """Sends what one caller added at once in as many requests as it takes."""
        repeated: list[int] = []
        start = size = 0
        for end, row in enumerate(rows, 1):
            size += _num_bytes(row)
            if size > MAX_BYTES or end == len(rows):
                repeated += [start + index for index in await self._send(rows[start:end])]
                start, size = end, 0
        return repeated

    async def _settle(self, letters: list[_Letter], error: Exception) -> None:
        """Tells the one caller, or finds out whose rows were refused by asking for each alone."""
        if len(letters) > 1 and type(error) is not StoreError:
            for letter in letters:
                await self._send_some([letter])
            return
        for _, future in letters:
            if not future.done():
                future.set_exception(error)


def _num_bytes(row: SpanRow) -> int:
    return 200 + len(row.arrays) + len(row.attributes) + len(row.events)

"""Callers that wait, each on its own event loop, for something to happen in a store."""

import asyncio


class Waiter:
    """One caller waiting until nothing is pending any more."""

    def __init__(self, pending: set[str]) -> None:
        self.pending = pending
        self._loop = asyncio.get_running_loop()
        self._done = asyncio.Event()
        if not pending:
            self._done.set()

    async def wait(self, timeout: float | None) -> None:
        """Returns when nothing is pending, or after ``timeout`` seconds."""
        try:
            await asyncio.wait_for(self._done.wait(), timeout)
        except TimeoutError:
            return  # the caller sees for itself how far things have come

    def note(self, id: str) -> None:
        """Pends for the id no more; callable from any thread."""
        self.pending.discard(id)
        if not self.pending and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._done.set)


class Waiters:
    """Waiting callers by what they wait for."""

    def __init__(self) -> None:
        self._waiters: dict[str, list[Waiter]] = {}

    def add(self, waiter: Waiter) -> None:
        for id in waiter.pending:
            self._waiters.setdefault(id, []).append(waiter)

    def remove(self, waiter: Waiter) -> None:
        """Forgets a waiter, whatever it still pends for."""
        for id in waiter.pending:
            waiting = self._waiters[id]
            waiting.remove(waiter)
            if not waiting:
                del self._waiters[id]

    def release(self) -> None:
        """Lets all go on who wait for anything: nothing will happen any more."""
        for id in list(self._waiters):
            self.notify(id)

    def notify(self, id: str) -> None:
        """Tells those who wait for the id that it has happened."""
        for waiter in self._waiters.pop(id, ()):
            waiter.note(id)

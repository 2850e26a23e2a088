"""Runs that wait for a process of the user to take them."""

from __future__ import annotations

import asyncio
import hmac
from collections import deque

from raybolt.adapters.endpoint.served import ServedRun


class Offers:
    """The runs on offer, by token, first come first served. Belongs to the endpoint's event loop."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[ServedRun]] = {}
        self._num_users: dict[str, int] = {}
        self._changed = asyncio.Condition()

    async def add(self, run: ServedRun, token: str) -> None:
        """Puts a run on offer."""
        async with self._changed:
            self._waiting.setdefault(token, deque()).append(run)
            self._num_users[token] = self._num_users.get(token, 0) + 1
            self._changed.notify_all()

    async def withdraw(self, run: ServedRun, token: str) -> None:
        """The run is over, whether it was taken or not."""
        if run in self._waiting[token]:
            self._waiting[token].remove(run)
        self._num_users[token] -= 1
        if not self._num_users[token]:
            del self._waiting[token], self._num_users[token]

    def knows(self, token: str) -> bool:
        """Whether runs are offered under this token."""
        return any(hmac.compare_digest(token.encode(), known.encode()) for known in self._waiting)

    async def take(self, token: str, seconds: float) -> ServedRun | None:
        """The run that has waited longest; None if none comes within `seconds`."""
        async with self._changed:
            try:
                async with asyncio.timeout(seconds):
                    await self._changed.wait_for(lambda: self._waiting.get(token))
            except TimeoutError:
                return None
            return self._waiting[token].popleft()

"""Measures the agent's own time in a run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class AgentClock:
    """Calls `on_timeout` once the agent has had `seconds` of its own.

    The clock stands still from `pause` to `resume`, while the agent waits for its policy. It belongs to one
    event loop's thread.
    """

    def __init__(self, seconds: float, on_timeout: Callable[[], None]) -> None:
        self._seconds = seconds
        self._left = seconds
        self._on_timeout = on_timeout
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins to count."""
        self._loop = loop
        self.resume()

    def pause(self) -> None:
        """Stands still; nothing if it does already."""
        if self._timer is not None and self._loop is not None:
            self._left = self._timer.when() - self._loop.time()
            self._timer.cancel()
            self._timer = None

    def resume(self) -> None:
        """Counts on; nothing if it does already."""
        if self._timer is None and self._loop is not None:
            self._timer = self._loop.call_later(self._left, self._on_timeout)

    def restart(self) -> None:
        """Counts from the beginning again."""
        self.pause()
        self._left = self._seconds
        self.resume()

    def stop(self) -> None:
        """Counts no more."""
        self.pause()
        self._loop = None

"""The time a store goes by, and what makes it act when nobody calls it."""

import logging
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

_log = logging.getLogger(__name__)


class SteadyClock:
    """Seconds since the epoch that never jump: the wall clock is read once, and then time passes."""

    def __init__(self) -> None:
        self._offset = min(_reading() for _ in range(5))[1]

    def __call__(self) -> float:
        return self._offset + time.monotonic()


def _reading() -> tuple[float, float]:
    """How long it took to read both clocks, and how far the wall clock is ahead of the monotonic one.

    The quickest of several is exact to a microsecond, so that the shards of a store agree on the time.
    """
    before = time.monotonic()
    wall = time.time()
    after = time.monotonic()
    return after - before, wall - (before + after) / 2


class Ticker:
    """Calls a method of an object in a thread of its own when the time it was told has come.

    The thread starts when it is first needed, and does not keep the object alive.
    """

    def __init__(self, tick: Callable[[], None], clock: Callable[[], float]) -> None:
        self._tick: Any = weakref.WeakMethod(tick)
        self._clock = clock
        self._condition = threading.Condition()
        self._when: float | None = None
        self._closed = False
        self._thread: threading.Thread | None = None

    def wake_at(self, when: float | None) -> None:
        """Ticks at this time, and not before; None for never. Replaces what was said before."""
        if when == self._when:  # as most of the many times that it is told; who ticks now asks again
            return
        with self._condition:
            earlier = when is not None and (self._when is None or when < self._when)
            self._when = when
            if self._thread is None and when is not None:
                self._thread = threading.Thread(target=self._run, name="raybolt-store-clock", daemon=True)
                self._thread.start()
            elif earlier:
                self._condition.notify()

    def close(self) -> None:
        """Ticks no more; waits for a tick that is under way, unless that is what calls."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while self._wait():
            tick = self._tick()
            if tick is None:
                return
            try:
                tick()
            except Exception:  # whatever it was, all else that has its time goes on
                _log.exception("What a store had to do at its time failed")

    def _wait(self) -> bool:
        """Waits for the time that was told; False when it is over."""
        with self._condition:
            while not self._closed and self._tick() is not None:
                left = None if self._when is None else self._when - self._clock()
                if left is not None and left <= 0:
                    self._when = None
                    return True
                # Not for ever: the object may be gone by then.
                self._condition.wait(min(left, _PATIENCE_SECONDS) if left is not None else _PATIENCE_SECONDS)
        return False


_PATIENCE_SECONDS = 60.0

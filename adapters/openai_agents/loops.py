"""Event loops that `Runner.run_sync` leaves open in an agent's thread, closed when the run is over.

The SDK keeps a thread's loop for the next call, since sessions and connections are bound to it. The threads
of agent runs come and go, and an abandoned loop keeps its sockets until it is collected.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from agents.run import AgentRunner

from raybolt.adapters.patching import patched
from raybolt.env.executor import widen

_loops: ContextVar[RunLoops | None] = ContextVar("raybolt_openai_agents_loops", default=None)


class RunLoops:
    """The loops of one run's threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_thread: dict[int, asyncio.AbstractEventLoop] = {}
        self._over = False

    @contextmanager
    def current(self) -> Iterator[None]:
        """Inside the block, this thread has a loop, the same for the whole run."""
        thread = threading.get_ident()
        with self._lock:
            loop = self._by_thread.get(thread)
            if loop is None:
                loop = self._by_thread[thread] = asyncio.new_event_loop()
                widen(loop)
        asyncio.set_event_loop(loop)
        try:
            yield
        finally:
            asyncio.set_event_loop(None)
            with self._lock:
                if self._over:
                    loop.close()

    def close(self) -> None:
        """Closes all loops; one still at work is woken to notice its end, and its thread closes it."""
        with self._lock:
            self._over = True
            for loop in self._by_thread.values():
                if loop.is_running():
                    loop.call_soon_threadsafe(lambda: None)
                else:
                    loop.close()


@contextmanager
def closing_loops() -> Iterator[None]:
    """Closes, at the end of the block, the loops that `run_sync` needed in it."""
    loops = RunLoops()
    token = _loops.set(loops)
    try:
        with patched(AgentRunner, {"run_sync": _in_own_loop}):
            yield
    finally:
        _loops.reset(token)
        loops.close()


def _in_own_loop(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def guarded(self: AgentRunner, *args: Any, **kwargs: Any) -> Any:
        loops = _loops.get()
        if loops is None or threading.current_thread() is threading.main_thread() or _has_loop():
            return original(self, *args, **kwargs)
        with loops.current():
            return original(self, *args, **kwargs)

    return guarded


def _has_loop() -> bool:
    """Whether this thread has a loop of the user's, at work or not."""
    try:
        asyncio.get_event_loop()
    except RuntimeError:
        return False
    return True

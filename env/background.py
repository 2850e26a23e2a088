"""One event loop in a thread of its own, for environments that are stepped by code which is not async."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """The result of asynchronous work, done in the loop that all synchronous use of a process shares.

    It works where a loop is already running (a notebook), too.
    """
    return asyncio.run_coroutine_threadsafe(work, _loop()).result()


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="raybolt-env", daemon=True).start()
    return loop

"""The store's asynchronous calls, for code that runs no event loop."""

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from functools import cache
from typing import Any, TypeVar

from .errors import InvalidValue, StoreError

T = TypeVar("T")


def blocking(call: Coroutine[Any, Any, T]) -> T:
    """Returns the result of an asynchronous store call, for threads that run no event loop.

    A call that is interrupted (Ctrl-C) ends. Raises StoreError inside a running event loop, which it would
    stall: await the call there. Raises InvalidValue for what is no call.
    """
    if not asyncio.iscoroutine(call):
        raise InvalidValue(f"call is {call!r}; give a call, such as blocking(store.statistics())")
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        answer = asyncio.run_coroutine_threadsafe(call, _background_loop())
        try:
            return answer.result()
        finally:
            answer.cancel()  # what waits on, if this thread was interrupted; else it has ended
    call.close()
    raise StoreError("blocking() was called inside a running event loop; await the store's method instead")


def in_own_loop(call: Coroutine[Any, Any, T]) -> T:
    """Returns the call's result, from an event loop and a thread made for it; blocks.

    It works wherever it is called, also in a running event loop, which stands still meanwhile.
    """
    answer: Future[T] = Future()

    def work() -> None:
        try:
            answer.set_result(asyncio.run(call))
        except BaseException as error:  # whatever it is, the other thread waits for it
            answer.set_exception(error)

    threading.Thread(target=work, name="raybolt-store-call", daemon=True).start()
    return answer.result()


@cache
def _background_loop() -> asyncio.AbstractEventLoop:
    """One loop in one daemon thread per process, shared by all blocking calls."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="raybolt-store", daemon=True).start()
    return loop


if hasattr(os, "register_at_fork"):  # as Windows lacks it
    os.register_at_fork(after_in_child=_background_loop.cache_clear)  # its thread stayed with the parent

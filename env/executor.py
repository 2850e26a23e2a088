"""Threads for blocking agent code: as many as it needs, each working in its caller's context.

A run may block a thread for as long as its LLM call takes, and a batch of calls may wait for one another, so
a bounded pool would deadlock. Context variables follow every job (see `env.context`).
"""

from __future__ import annotations

import asyncio
import ctypes
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from raybolt.env.policy import PolicyAbort

T = TypeVar("T")

IDLE_SECONDS = 2.0
"""How long a thread without work stays."""


class Interrupted(PolicyAbort):
    """Raised in the middle of blocking code whose run has ended."""

    def __init__(self) -> None:
        super().__init__("the run has ended")


@dataclass(slots=True, eq=False)
class _Job:
    future: Future[Any]
    context: Context
    work: Callable[[], Any]


class ContextThreads:
    """Daemon threads that are made when no idle one is left and end after a while without work."""

    def __init__(self, name: str = "raybolt-agent", idle_seconds: float = IDLE_SECONDS) -> None:
        self._name = name
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._workers: dict[Future[Any], _Worker] = {}

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Runs the call in a thread, in a copy of the caller's context."""
        job = _Job(Future(), copy_context(), partial(function, *args, **kwargs))
        with self._lock:
            worker = self._idle.pop() if self._idle else _Worker(self)
            self._workers[job.future] = worker
        worker.give(job)
        return job.future

    def interrupt(self, future: Future[Any]) -> None:
        """Raises `Interrupted` in the job's thread, at its next Python instruction; nothing if it ended.

        Code that is inside a C call (a sleep, a query) gets it when that call returns.
        """
        with self._lock:
            worker = self._workers.get(future)
            if worker is not None:
                worker.interrupt()

    @property
    def num_busy(self) -> int:
        """How many threads have a job at this moment."""
        with self._lock:
            return len(self._workers)

    def _next_job(self, worker: _Worker) -> _Job | None:
        """The worker's next job; None if it has idled for too long and must end."""
        try:
            return worker.jobs.get(timeout=self._idle_seconds)
        except Empty:
            with self._lock:
                if worker in self._idle:
                    self._idle.remove(worker)
                    return None
        return worker.jobs.get()  # given in the moment of giving up

    def _done(self, worker: _Worker, future: Future[Any]) -> bool:
        """Puts the worker back; False if it was interrupted and must end instead."""
        with self._lock:
            self._workers.pop(future, None)
            if not worker.interrupted:
                self._idle.append(worker)
            return not worker.interrupted


class _Worker:
    """One thread. An interrupted one is not used again, as the exception may reach it late."""

    def __init__(self, pool: ContextThreads) -> None:
        self.jobs: SimpleQueue[_Job] = SimpleQueue()
        self.interrupted = False
        self._pool = pool
        self._thread = threading.Thread(target=self._run, name=pool._name, daemon=True)
        self._started = False

    def give(self, job: _Job) -> None:
        self.jobs.put(job)
        if not self._started:
            self._started = True
            self._thread.start()

    def interrupt(self) -> None:
        self.interrupted = True
        thread_id = ctypes.c_ulong(self._thread.ident or 0)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(thread_id, ctypes.py_object(Interrupted))

    def _run(self) -> None:
        future: Future[Any] | None = None
        try:
            while (job := self._pool._next_job(self)) is not None:
                future = job.future
                _perform(job)
                del job
                if not self._pool._done(self, future):
                    return
        except Interrupted as late:  # it came after the job's own code had ended
            if future is not None:
                self._pool._done(self, future)
                if not future.done():
                    future.set_exception(late)


def _perform(job: _Job) -> None:
    if not job.future.set_running_or_notify_cancel():
        return
    try:
        result = job.context.run(job.work)
    except StopIteration as error:  # asyncio's futures take none, and whoever waits would never wake
        told = RuntimeError("blocking code raised StopIteration")
        told.__cause__ = error
        job.future.set_exception(told)
    except BaseException as error:  # whatever foreign code raises belongs to whoever waits for it
        job.future.set_exception(error)
    else:
        job.future.set_result(result)


class LoopExecutor(ThreadPoolExecutor):
    """The shared threads as an event loop's default executor.

    asyncio's own has a few threads more than cores: too few for frameworks that run blocking LLM calls and
    tools through it, and it does not hand the context on.
    """

    def __init__(self, threads: ContextThreads) -> None:
        super().__init__(max_workers=1)  # never starts a thread of its own
        self._shared = threads

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        return self._shared.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing: the threads are shared, and they end by themselves."""


threads = ContextThreads()
"""The process's threads for blocking agent code."""


async def run_in_thread(function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """The result of blocking code run in one of the shared threads; cancelling it interrupts the code."""
    future = threads.submit(function, *args, **kwargs)
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        threads.interrupt(future)
        raise


def widen(loop: asyncio.AbstractEventLoop) -> None:
    """Makes the loop's `run_in_executor(None, …)` and `to_thread` use the shared threads."""
    if not isinstance(getattr(loop, "_default_executor", None), LoopExecutor):
        loop.set_default_executor(LoopExecutor(threads))


def is_cancelled() -> bool:
    """Whether somebody cancelled this task, as opposed to what it awaits, which may say so by itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0

"""`raybolt.trace`: record an agent that talks to its own LLM, with nothing wrapped and nothing trained.

::

    with raybolt.trace("runs/traces", input=question) as run:
        run.result = agent.invoke(...)["answer"]

    @raybolt.trace("runs/traces")
    async def answer(question): ...
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias, TypeVar, cast

from raybolt.adapters.base import UnsupportedAgent, describe
from raybolt.adapters.capture import FRAMEWORK_LIBRARIES, captured_by
from raybolt.adapters.evidence import library_roots
from raybolt.env.context import DEFAULT_ROLE
from raybolt.env.executor import widen
from raybolt.env.recorder import SpanRecorder, as_attribute
from raybolt.env.report import report
from raybolt.env.traced import TracedRun
from raybolt.store.base import LightningStore
from raybolt.store.blocking import blocking
from raybolt.store.errors import InvalidValue, StoreError
from raybolt.store.local import LocalStore
from raybolt.store.types import AttemptedRollout

_log = logging.getLogger(__name__)
_Function = TypeVar("_Function", bound=Callable[..., Any])
StoreOrFolder: TypeAlias = LightningStore | str | os.PathLike[str]
_ROOM_SECONDS = 60.0
"""How long a block's end waits for a store that is full: it is somebody's real work that stands still."""


def trace(
    store: StoreOrFolder,
    *,
    name: str | None = None,
    input: Any = None,
    task_id: str | None = None,
) -> Trace:
    """A context manager (sync and async) and decorator that records the agent's code as a rollout.

    LLM calls, tools, agents and hand-offs become spans, by the same hooks as in a wrapped agent's runs; the
    calls themselves go where the agent sends them. What `raybolt.emit_reward` and its like say is kept, too,
    and so is the result, if it is small JSON: what a decorated function returns, or what a block assigns to
    `run.result`. An exception passes through and makes the rollout a failed one.

    Args:
        store: Where the spans go: a store, or the folder of one. A folder is opened for each block and
            closed after it (blocks at the same time share it); opening reads what it holds, so pass a store
            to trace many calls.
        name: What to call the agent: the role of calls about which the framework says nothing. By default
            the decorated function's name, or "agent".
        input: What the run was asked, as JSON; a decorated function's arguments by default.
        task_id: Ties the rollout to a task of a data set.
    """
    if not isinstance(store, LightningStore | str | os.PathLike):
        raise InvalidValue(f"trace({store!r}): expected a store or the folder of one")
    return Trace(store, name, input, task_id)


class Trace:
    """What `trace` makes. One `with` block uses it once; as a decorator it records every call."""

    def __init__(
        self,
        store: LightningStore | str | os.PathLike[str],
        name: str | None,
        input: Any,
        task_id: str | None,
    ) -> None:
        self._given = store
        self._name = name
        self._input = input
        self._task_id = task_id
        self._folder: Path | None = None
        self._block: Any = None
        self._run: TracedRun | None = None

    def __enter__(self) -> TracedRun:
        try:
            return self._begin(blocking(self._start()))
        except StoreError as error:
            raise StoreError(f"{error} In async code, write `async with raybolt.trace(…)`.") from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._leave(kind, error, trace)
        finally:
            blocking(self._report())

    async def __aenter__(self) -> TracedRun:
        loop = asyncio.get_running_loop()
        if getattr(loop, "_default_executor", None) is None:  # one of the user's own stays
            widen(loop)  # asyncio's does not hand the context on to blocking tools
        return self._begin(await self._start())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._leave(kind, error, trace)
        finally:
            await self._report()

    def __call__(self, function: _Function) -> _Function:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise UnsupportedAgent(
                f"{describe(function)} is a generator, which ends when its consumer likes; put "
                "`with raybolt.trace(…)` around the code that consumes it"
            )
        signature = inspect.signature(function)

        def block(args: Any, kwargs: Any) -> Trace:
            for library in library_roots(function) & FRAMEWORK_LIBRARIES:
                importlib.import_module(library)  # so that the first call is recorded like the next ones
            given = self._input
            if given is None:
                given = _input(signature.bind(*args, **kwargs))
            return Trace(self._given, self._name or function.__name__, given, self._task_id)

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def wrapper(*args: Any, **kwargs: Any) -> Any:
                async with block(args, kwargs) as run:
                    run.result = await function(*args, **kwargs)
                    return run.result

        else:

            @functools.wraps(function)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                with block(args, kwargs) as run:
                    run.result = function(*args, **kwargs)
                    return run.result

        return cast(_Function, wrapper)

    async def _start(self) -> AttemptedRollout:
        if self._run is not None:
            raise InvalidValue("a trace records one block; write raybolt.trace(…) anew for each")
        if isinstance(self._given, LightningStore):
            self._store = self._given
        else:
            self._folder = Path(self._given).resolve()
            self._store = _acquire(self._folder)
        return await self._store.start_rollout(
            as_attribute(self._input), task_id=self._task_id, metadata={"traced": True}
        )

    def _begin(self, started: AttemptedRollout) -> TracedRun:
        recorder = SpanRecorder(started.rollout_id, started.attempt.attempt_id)
        self._run = TracedRun(self._name or DEFAULT_ROLE, recorder)
        self._block = _tracing(self._run)
        self._block.__enter__()
        return self._run

    def _leave(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._block.__exit__(kind, error, trace)

    async def _report(self) -> None:
        run = self._run
        assert run is not None
        if run.num_calls == 0:
            _log.warning(
                "trace %s saw no LLM call; those made in threads or processes started without its context "
                "are out of its sight, and so are clients that bypass httpx and the supported frameworks",
                run.rollout_id,
            )
        summary: dict[str, Any] = {"num_calls": run.num_calls}
        if run.error is None:
            summary["reward"] = run.trajectory.total_reward if run.trajectory.rewards else None
        else:
            summary |= {"error": run.error, "error_type": run.error_type, "origin": run.origin}
        recorder = run.recorder
        try:
            await report(
                self._store, run.rollout_id, recorder.attempt_id, recorder.drain(), summary,
                limit_seconds=_ROOM_SECONDS,
            )  # fmt: skip
        finally:
            if self._folder is not None:
                await _release(self._folder)


@contextmanager
def _tracing(run: TracedRun) -> Iterator[None]:
    with run.going_on(), captured_by(run):
        yield


def _input(bound: inspect.BoundArguments) -> Any:
    """What a function was called with: the value of its one parameter, or all of them by name."""
    bound.apply_defaults()
    values = {name: value for name, value in bound.arguments.items() if name != "self"}
    return next(iter(values.values())) if len(values) == 1 else values


class _Shared:
    """The store of a folder, open while blocks of this process trace into it."""

    def __init__(self, folder: Path) -> None:
        self.store = LocalStore(folder)
        self.users = 0


_shared: dict[Path, _Shared] = {}
_lock = threading.Lock()


def _acquire(folder: Path) -> LocalStore:
    with _lock:
        shared = _shared.get(folder)
        if shared is None:
            shared = _shared[folder] = _Shared(folder)
        shared.users += 1
        return shared.store


async def _release(folder: Path) -> None:
    with _lock:
        shared = _shared[folder]
        shared.users -= 1
        if shared.users:
            return
        del _shared[folder]
        await shared.store.close()  # never yields: the next block must find the folder free

"""Runs in CrewAI's threads: the end of a run reaches all of them, and its patches outlast them.

CrewAI works in threads that cannot be cancelled. One that sits in a tool when its run is given up goes on for
a while; it must not find the user's own models in place again when it next asks one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any, TypeVar

import crewai.crew
import crewai.flow.runtime
import crewai.llms.base_llm
from crewai.task import Task

from raybolt.adapters.capture import captured_policy
from raybolt.adapters.crewai.quiet import contained, is_contained
from raybolt.adapters.crewai.swap import models_answered_by_policy, usage_of_own_calls
from raybolt.adapters.crewai.tracing import traced
from raybolt.adapters.patching import patched
from raybolt.env.policy import PolicyAbort

_Function = TypeVar("_Function", bound=Callable[..., Any])

_STREAMS: dict[ModuleType, str] = {
    crewai.crew: "create_chunk_generator",
    crewai.flow.runtime: "create_frame_generator",
    crewai.llms.base_llm: "create_frame_generator",
}


def lasting(function: _Function) -> _Function:
    """The same blocking function; the patches of the run that calls it stay until it has returned."""

    @functools.wraps(function)
    def with_patches(*args: Any, **kwargs: Any) -> Any:
        with ExitStack() as stack:
            if is_contained():
                stack.enter_context(contained())
            if captured_policy.get() is not None:
                stack.enter_context(models_answered_by_policy())
            for patches in (traced, aborts_cross_threads, usage_of_own_calls):
                stack.enter_context(patches())
            return function(*args, **kwargs)

    return with_patches  # type: ignore[return-value]


@contextmanager
def aborts_cross_threads() -> Iterator[None]:
    """In the block, a `PolicyAbort` in a thread of CrewAI's reaches whoever waits for that thread."""
    with ExitStack() as stack:
        stack.enter_context(patched(Task, {"_execute_task_async": _to_future}))
        for module, name in _STREAMS.items():
            stack.enter_context(patched(module, {name: _to_consumer}))
        yield


def _to_future(original: Callable[..., None]) -> Callable[..., None]:
    """For tasks with `async_execution`: their future would never be done, and the crew would wait for it."""

    @functools.wraps(original)
    def guarded(self: Task, agent: Any, context: Any, tools: Any, future: Future[Any]) -> None:
        try:
            lasting(original)(self, agent, context, tools, future)
        except PolicyAbort as abort:
            future.set_exception(abort)

    return guarded


def _to_consumer(original: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """For streams: the thread behind one would die of the abort, and the stream end as if all were well."""

    @functools.wraps(original)
    def guarded(state: Any, run: Callable[[], Any], output_holder: Any) -> Iterator[Any]:
        aborts: list[PolicyAbort] = []

        def run_until_abort() -> Any:
            try:
                return run()
            except PolicyAbort as abort:
                aborts.append(abort)
                return None

        yield from original(state, run_until_abort, output_holder)
        if aborts:
            raise aborts[0]

    return guarded

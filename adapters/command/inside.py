"""In the process of an agent: its framework says whose calls are made, and its tools become spans.

The endpoint sees every call, but only as HTTP. Where the agent's environment has raybolt, the hook has the
framework's own capture say the rest: it meets a policy that takes no call, and notes the role while the
agent's own model makes its request, for `hook/sitecustomize.py` to put into a header.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import NoReturn

from raybolt.adapters.capture import capture_of, captured_policy
from raybolt.adapters.openai_python.memory import ResponseMemory, run_memory
from raybolt.env.chat import ChatRequest
from raybolt.env.context import current_run
from raybolt.env.observed import ObservedCall
from raybolt.env.outside import outside_context
from raybolt.env.recorder import SpanRecorder
from raybolt.store.errors import RayboltError

_kept: list[AbstractContextManager[None]] = []  # entered for as long as the process lives


def listen(library: str) -> None:
    """From now on the framework in this package reports to the run. Call it in the program's main context."""
    if outside_context() is None:
        return
    captured_policy.set(_Elsewhere())
    current_run.set(outside_context())
    run_memory.set(ResponseMemory())
    capture = capture_of(library)
    capture.__enter__()
    _kept.append(capture)


class _Elsewhere:
    """A policy that takes no call, and records none: the endpoint does, where they all arrive."""

    def takes(self, request: ChatRequest) -> bool:
        return False

    @contextmanager
    def observe(self, request: ChatRequest) -> Iterator[ObservedCall]:
        """Notes the role for the length of the block."""
        before = current_run.get()
        if before is not None:
            current_run.set(replace(before, role=request.role))
        try:
            yield ObservedCall(SpanRecorder("", "").begin("unrecorded"))
        finally:
            # Not by its token: a stream may be left in another context than it was begun in.
            current_run.set(before)

    async def complete(self, request: ChatRequest) -> NoReturn:
        self._no_model(request)

    def complete_sync(self, request: ChatRequest) -> NoReturn:
        self._no_model(request)

    def _no_model(self, request: ChatRequest) -> NoReturn:
        raise RayboltError(f"role {request.role!r} has no model of its own in this process; give it one")

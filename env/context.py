"""Which run the present code belongs to: the one context variable that emitters, tracers and clients read.

Context variables follow tasks by themselves and threads through `env.executor`, so agents running at the
same time never see each other's run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from raybolt.env.recorder import SpanRecorder

DEFAULT_ROLE = "agent"


class RecordedRun(Protocol):
    """What code inside a run can reach of it."""

    @property
    def recorder(self) -> SpanRecorder: ...

    def reject_reward(self, reason: str) -> None:
        """Notes that an emitted reward was none, which makes the run fail when it ends."""


@dataclass(frozen=True, slots=True)
class RunContext:
    """A place inside a run."""

    run: RecordedRun
    span_id: str
    """The innermost open span: the parent of whatever happens here."""
    role: str = DEFAULT_ROLE
    """The agent at work, as the framework names it."""


current_run: ContextVar[RunContext | None] = ContextVar("raybolt_current_run", default=None)
"""None outside a run."""


@contextmanager
def entering(*, role: str | None = None, span_id: str | None = None) -> Iterator[None]:
    """Inside the block, the present run works in this role or below this span; outside a run, nothing."""
    context = current_run.get()
    if context is None:
        yield
        return
    inner = replace(context, role=role or context.role, span_id=span_id or context.span_id)
    token = current_run.set(inner)
    try:
        yield
    finally:
        current_run.reset(token)

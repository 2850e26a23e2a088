"""A run as the endpoint serves it: its address, its key, and what it remembers between requests."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from raybolt.adapters.endpoint.upstream import Upstream
from raybolt.adapters.openai_python.memory import ResponseMemory
from raybolt.env.context import RunContext, current_run
from raybolt.env.policy import PolicyPort
from raybolt.env.recorded_tools import RecordedTools, recorded_tools
from raybolt.env.recorder import OpenSpan
from raybolt.env.task import Task


@dataclass(eq=False)
class ServedRun:
    """One run whose agent lives in another process."""

    policy: PolicyPort
    context: RunContext
    """The place in the run below which everything from outside is recorded."""
    task: Task
    given: Any
    """What the agent is called with: JSON."""
    upstream: Upstream | None = None
    """The user's server for the calls that the policy does not take."""
    natural: Upstream | None = None
    """Where such calls go otherwise, unless they were aimed elsewhere; None: the policy answers them, too."""
    key: str = field(default_factory=lambda: f"rb-{secrets.token_urlsafe(24)}", repr=False)
    """Opens this run's paths and no other's."""
    responses: ResponseMemory = field(default_factory=ResponseMemory)
    spans: dict[str, OpenSpan] = field(default_factory=dict)
    """Those begun from outside, by the ids they have there."""
    tools: RecordedTools | None = field(default_factory=recorded_tools.get)
    """What its tools are to answer; None but in a replay."""
    outcome: Future[Any] = field(default_factory=Future)
    """The result that an agent started by the user reports, or the failure."""

    @property
    def ids(self) -> tuple[str, str]:
        """Rollout and attempt."""
        recorder = self.context.run.recorder
        return recorder.rollout_id, recorder.attempt_id

    @property
    def path(self) -> str:
        """Where the run lies on its server."""
        rollout_id, attempt_id = self.ids
        return f"/rollout/{quote(rollout_id, safe='')}/attempt/{quote(attempt_id, safe='')}"

    @property
    def role(self) -> str:
        """Whose calls those are about which the agent says nothing."""
        return self.context.role

    @contextmanager
    def entered(self, role: str, parent_id: str | None = None) -> Iterator[None]:
        """Inside the block, the present code belongs to the run: in this role, below this span of theirs."""
        parent = self.spans.get(parent_id or "")
        inner = replace(self.context, role=role, span_id=parent.span_id if parent else self.context.span_id)
        token = current_run.set(inner)
        try:
            yield
        finally:
            current_run.reset(token)

    def wire_task(self) -> dict[str, Any]:
        """The task as the agent may see it: never the reference, and `given` for its input."""
        return {"task_id": self.task.task_id, "input": self.given, "metadata": dict(self.task.metadata)}

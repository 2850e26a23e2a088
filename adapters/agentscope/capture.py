"""AgentScope code that names no policy itself: its models answered, its agents traced and kept apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from raybolt.adapters.agentscope.memory import kept_apart
from raybolt.adapters.agentscope.swap import models_answered_by_policy
from raybolt.adapters.agentscope.tracing import traced


@contextmanager
def capture(library_name: str) -> Iterator[None]:
    """For runs captured by a policy, every chat model of AgentScope answers by it."""
    with models_answered_by_policy(), kept_apart(), traced():
        yield

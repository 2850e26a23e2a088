"""CrewAI code that names no policy itself: its models answered, its tools and agents traced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from raybolt.adapters.crewai.quiet import not_reported
from raybolt.adapters.crewai.swap import models_answered_by_policy
from raybolt.adapters.crewai.threads import aborts_cross_threads
from raybolt.adapters.crewai.tracing import traced


@contextmanager
def capture(library_name: str) -> Iterator[None]:
    """For runs captured by a policy, every model of CrewAI answers by it."""
    not_reported()
    with models_answered_by_policy(), traced(), aborts_cross_threads():
        yield

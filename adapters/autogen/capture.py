"""AutoGen code that names no policy itself: its late clients answered, its agents and tools traced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from raybolt.adapters.autogen.swap import clients_answered_by_policy
from raybolt.adapters.autogen.tracing import traced


@contextmanager
def capture(library_name: str) -> Iterator[None]:
    """For runs captured by a policy, every model client of AutoGen answers by it."""
    with clients_answered_by_policy(), traced():
        yield

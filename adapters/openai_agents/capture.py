"""Code on the OpenAI Agents SDK that names no policy itself: its models answered, its runs traced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from raybolt.adapters.openai_agents.adapter import is_the_sdk


@contextmanager
def capture(library_name: str) -> Iterator[None]:
    """For runs captured by a policy, every model of the SDK answers by it."""
    if not is_the_sdk():  # somebody's own package of the same name
        yield
        return
    from raybolt.adapters.openai_agents.loops import closing_loops
    from raybolt.adapters.openai_agents.swap import models_answered_by_policy
    from raybolt.adapters.openai_agents.tracing import traced

    with models_answered_by_policy(), traced(), closing_loops():
        yield

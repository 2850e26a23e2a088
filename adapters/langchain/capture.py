"""LangChain code that names no policy itself: its late models answered, its tools traced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from raybolt.adapters.langchain.swap import models_answered_by_policy
from raybolt.adapters.langchain.tracing import traced


@contextmanager
def capture(library_name: str) -> Iterator[None]:
    """For runs captured by a policy, every chat model of LangChain answers by it."""
    with models_answered_by_policy(), traced():
        yield

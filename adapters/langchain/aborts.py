"""Bring an abort out of LangChain's `agenerate`, which trips over it.

`agenerate` gathers its calls with their exceptions and then takes whatever is no `Exception` for a result, so
that a PolicyAbort comes out as an AttributeError, which the next fallback or retry would swallow.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from raybolt.env.policy import PolicyAbort

_noted: ContextVar[list[PolicyAbort] | None] = ContextVar("raybolt_langchain_aborts", default=None)


@contextmanager
def noted() -> Iterator[None]:
    """Around each call: remembers the abort that leaves it."""
    try:
        yield
    except PolicyAbort as abort:
        aborts = _noted.get()
        if aborts is not None:
            aborts.append(abort)
        raise


@contextmanager
def raised_again() -> Iterator[None]:
    """Around `agenerate`: what came of an abort inside becomes the abort again."""
    aborts: list[PolicyAbort] = []
    token = _noted.set(aborts)
    try:
        yield
    except Exception:
        if aborts:
            raise aborts[0] from None
        raise
    finally:
        _noted.reset(token)

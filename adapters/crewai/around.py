"""Spans around CrewAI's own methods, in the run that their caller belongs to."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias

from raybolt.adapters.patching import Replace
from raybolt.env.context import current_run, entering
from raybolt.env.recorder import OpenSpan
from raybolt.store import names

Note: TypeAlias = Callable[[Any], None]
"""Told what the traced method returned, before its span ends."""
Opened: TypeAlias = Callable[..., AbstractContextManager[Note]]
"""Opens the span of a method called with these arguments."""

at_work: ContextVar[Any] = ContextVar("raybolt_crewai_at_work", default=None)
"""What the innermost span is about: CrewAI's methods call themselves to try again."""


def inside(opened: Opened) -> Replace:
    """Makes a method run inside the span that `opened` gives, with the same arguments."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.iscoroutinefunction(original):

            @functools.wraps(original)
            async def guarded_async(*args: Any, **kwargs: Any) -> Any:
                if current_run.get() is None:
                    return await original(*args, **kwargs)
                with opened(*args, **kwargs) as note:
                    result = await original(*args, **kwargs)
                    note(result)
                    return result

            return guarded_async

        @functools.wraps(original)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if current_run.get() is None:
                return original(*args, **kwargs)
            with opened(*args, **kwargs) as note:
                result = original(*args, **kwargs)
                note(result)
                return result

        return guarded

    return make


@contextmanager
def span_around(name: str, attributes: Mapping[str, Any], *, role: str | None = None) -> Iterator[OpenSpan]:
    """A span around the block, in `role` if one is given; an exception fails it and passes."""
    context = current_run.get()
    assert context is not None
    values = {**attributes, names.AGENT_NAME: role or context.role}
    span = context.run.recorder.begin(name, parent_id=context.span_id, attributes=values)
    with entering(role=role, span_id=span.span_id):
        try:
            yield span
        except BaseException as error:
            span.fail(error, {names.ERROR_TYPE: type(error).__name__})
            raise
    span.end()

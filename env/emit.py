"""What agent code may say about itself while it runs: events, rewards, messages, objects, exceptions.

Outside a run all of these do nothing and return None, so the same code works in production. In a process that
works for a run elsewhere (see `env.outside`) they report to that run.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from contextvars import Token
from dataclasses import replace
from types import TracebackType
from typing import Any, TypeVar, cast, overload

from raybolt.env.chat import ChatMessage, message_to_dict
from raybolt.env.context import RunContext, current_run
from raybolt.env.outside import outside_context
from raybolt.env.raised import raised_attribute
from raybolt.env.recorded_tools import (
    ARGUMENTS,
    OPERATION,
    RETURNED,
    ToolAnswer,
)
from raybolt.env.recorder import OpenSpan, as_attribute, describe, exception_event
from raybolt.env.replayed import recorded_answer, replaying
from raybolt.env.results import missing_attribute
from raybolt.env.rewards import as_reward
from raybolt.env.trajectory import EMITTED_REWARD
from raybolt.store import names
from raybolt.store.errors import InvalidValue
from raybolt.store.types import Span

_log = logging.getLogger(__name__)
_Function = TypeVar("_Function", bound=Callable[..., Any])


def emit(name: str, /, **attributes: Any) -> Span | None:
    """Records an event under a name of your choice: `emit("tool_call", tool_name="run_sql", args={…})`.

    Attributes may be JSON values, 1-D NumPy arrays, dataclasses; of anything else its `repr` is kept.
    """
    return _record(name, "emit", attributes)


def emit_reward(value: Any, /, **attributes: Any) -> Span | None:
    """Gives the run a reward for what it has done since its last call; several add up.

    A value that is no finite number does not disturb the agent: it makes the rollout fail, with origin
    "reward".
    """
    try:
        reward = as_reward(value)
    except InvalidValue as error:
        context = _context("reward")
        if context is not None:
            context.run.reject_reward(f"emit_reward: {error}")
        return None
    return _record("reward", EMITTED_REWARD, attributes, {names.REWARD: reward})


def emit_message(message: str | ChatMessage, /, **attributes: Any) -> Span | None:
    """Records a message: a text, or one in canonical form."""
    content = message_to_dict(message) if isinstance(message, ChatMessage) else str(message)
    return _record("message", "message", {**attributes, "message": content})


def emit_object(value: Any, /, **attributes: Any) -> Span | None:
    """Records a value as JSON."""
    return _record("object", "object", {**attributes, "object": value})


def emit_exception(error: BaseException, /, **attributes: Any) -> Span | None:
    """Records an exception that the agent dealt with; the run goes on."""
    context = _context("exception")
    if context is None:
        return None
    span = _begin(context, "exception", "exception", attributes)
    span.events.append(exception_event(error, context.run.recorder.now()))
    return span.end("error", describe(error), {names.ERROR_TYPE: type(error).__name__})


@overload
def operation(function: _Function, /) -> _Function: ...
@overload
def operation(name: str | None = None, /, *, role: str | None = None, **attributes: Any) -> Operation: ...
def operation(target: Any = None, /, *, role: str | None = None, **attributes: Any) -> Any:
    """A span around a block or a function; what happens inside becomes its children.

    With `role`, LLM calls inside are that role's, unless the framework that makes them names another.

    ::

        with operation("retrieve", query=query):
            ...

        @operation(role="critic")
        async def review(draft): ...

    A decorated function's arguments and result are recorded; an exception is recorded and passes through.
    In a replay (see `env.replay`) the function gives again what it gave then, and does not run.
    """
    if callable(target):
        return Operation(None, attributes, role)(target)
    return Operation(target, attributes, role)


class Operation:
    """What `operation` makes: a context manager that is a decorator, too. Use each in one `with` only."""

    def __init__(self, name: str | None, attributes: dict[str, Any], role: str | None = None) -> None:
        self._name = name
        self._attributes = attributes
        self._role = role
        self._span: OpenSpan | None = None
        self._token: Token[RunContext | None] | None = None

    def __enter__(self) -> OpenSpan | None:
        name = self._name or "operation"
        context = _context(name)
        if context is not None:
            inner = replace(context, role=self._role or context.role)
            self._span = _begin(inner, name, OPERATION, self._attributes)
            self._token = current_run.set(replace(inner, span_id=self._span.span_id))
        return self._span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._span is None or self._token is None:
            return
        current_run.reset(self._token)
        if error is None:
            self._span.end()
        else:
            self._span.fail(error, {names.ERROR_TYPE: type(error).__name__, **raised_attribute(error)})

    def __call__(self, function: _Function) -> _Function:
        name = self._name or function.__name__
        signature = inspect.signature(function)

        def opened(args: Any, kwargs: Any) -> Operation:
            if _context(name) is None:
                return Operation(name, {})
            arguments = signature.bind(*args, **kwargs).arguments
            return Operation(name, {**self._attributes, ARGUMENTS: arguments}, self._role)

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def wrapper(*args: Any, **kwargs: Any) -> Any:
                with opened(args, kwargs) as span:
                    answer = _recorded(span)
                    return _noted(span, await function(*args, **kwargs) if answer is None else answer.given())

        else:

            @functools.wraps(function)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                with opened(args, kwargs) as span:
                    answer = _recorded(span)
                    return _noted(span, function(*args, **kwargs) if answer is None else answer.given())

        return cast(_Function, wrapper)


def _recorded(span: OpenSpan | None) -> ToolAnswer | None:
    """In a replay, what the function returned or raised then; None to call it."""
    if span is None or not replaying():
        return None
    answer = recorded_answer(span.name, span.attributes[ARGUMENTS])
    if answer is not None:
        answer.repeat_inside(span)
    return answer


def _noted(span: OpenSpan | None, result: Any) -> Any:
    if span is not None:
        span.attributes |= {RETURNED: as_attribute(result), **missing_attribute(result)}
    return result


def _context(name: str) -> RunContext | None:
    context = current_run.get() or outside_context()
    if context is None:
        _log.debug("%r was emitted outside a run and is not recorded", name)
    return context


def _begin(context: RunContext, name: str, kind: str, attributes: dict[str, Any]) -> OpenSpan:
    values = _attributes(context, kind, attributes)
    return context.run.recorder.begin(name, parent_id=context.span_id, attributes=values)


def _attributes(context: RunContext, kind: str, given: dict[str, Any]) -> dict[str, Any]:
    values = {key: as_attribute(value) for key, value in given.items()}
    return values | {names.KIND: kind, names.AGENT_NAME: context.role}


def _record(
    name: str, kind: str, attributes: dict[str, Any], own: dict[str, Any] | None = None
) -> Span | None:
    context = _context(name)
    if context is None:
        return None
    values = _attributes(context, kind, attributes) | (own or {})
    return context.run.recorder.record(name, parent_id=context.span_id, attributes=values)

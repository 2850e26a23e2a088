"""Spans of AutoGen's tools, with arguments and results, whichever way a tool is called."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from autogen_agentchat.agents import AssistantAgent
from autogen_core import FunctionCall
from autogen_core.models import FunctionExecutionResult
from autogen_core.tools import BaseTool

from raybolt.adapters.autogen.messages import arguments_of
from raybolt.adapters.autogen.places import at_work
from raybolt.adapters.classes import family, own_methods
from raybolt.adapters.patching import Replace
from raybolt.adapters.streams import stepped
from raybolt.env.context import current_run
from raybolt.env.raised import raised_attribute
from raybolt.env.recorded_tools import ToolAnswer
from raybolt.env.recorder import as_attribute
from raybolt.env.replayed import recorded_answer
from raybolt.store import names

_use: ContextVar[ToolUse | None] = ContextVar("raybolt_autogen_tool", default=None)
"""The call of a tool in which the present code runs."""


def tool_patches() -> Iterator[tuple[type, dict[str, Replace]]]:
    """What records tools: the calls of assistants (unknown tools and unreadable arguments included), and
    those that other agents make of tools themselves."""
    for agent in family(AssistantAgent):
        yield agent, own_methods(agent, {"_execute_tool_call": _agents_call})
    for tool in family(BaseTool):
        yield tool, own_methods(tool, {"run_json": _run, "run_json_stream": _run_stream})


class ToolUse:
    """One call of a tool and its span. The agent that asks and the tool that runs share it."""

    def __init__(self, name: str, arguments: Any, call_id: str | None, tool: Any = None) -> None:
        around = current_run.get()
        assert around is not None
        attributes = {
            names.OPERATION: names.EXECUTE_TOOL,
            names.AGENT_NAME: around.role,
            names.TOOL_NAME: name,
            names.TOOL_ARGUMENTS: as_attribute(arguments),
        }
        if call_id:
            attributes[names.TOOL_CALL_ID] = call_id
        title = f"{names.EXECUTE_TOOL} {name}"
        self._span = around.run.recorder.begin(title, parent_id=around.span_id, attributes=attributes)
        self._context = replace(around, span_id=self._span.span_id)
        self.answer = recorded_answer(name, attributes[names.TOOL_ARGUMENTS], call_id or None)
        """What the tool gives in a replay, instead of running; None to run it."""
        if self.answer is not None:
            self.answer.repeat_inside(self._span)
        self.tool = tool
        """What runs; None until the tool itself is reached."""
        self.error: Exception | None = None
        """What the tool raised; the agent only gets its text."""

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """The place of the tool's code. May be entered again and again."""
        use, run = _use.set(self), current_run.set(self._context)
        try:
            yield
        finally:
            current_run.reset(run)
            _use.reset(use)

    def end(self, result: str, *, failed: bool = False, returned: Any = "") -> None:
        """`returned` is what code got that called the tool itself; an assistant gets the text."""
        attributes: dict[str, Any] = {names.TOOL_RESULT: result}
        if not isinstance(returned, str):
            attributes[names.RESULT_MISSING] = f"it is of type {type(returned).__name__}, not a text"
        if self.error is not None and failed:
            self._span.fail(self.error, {names.ERROR_TYPE: type(self.error).__name__, **attributes})
        elif failed:
            then = None if self.answer is None else self.answer.failure
            self._span.end("error", then or result, attributes)
        else:
            self._span.end(attributes=attributes)

    def fail(self, error: BaseException) -> None:
        """Ends it by what reached the code that called the tool."""
        self._span.fail(error, {names.ERROR_TYPE: type(error).__name__, **raised_attribute(error)})


def _agents_call(original: Callable[..., Any]) -> Any:
    signature = inspect.signature(original)

    @functools.wraps(original)
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        if current_run.get() is None:
            return await original(*args, **kwargs)
        given = signature.bind(*args, **kwargs).arguments
        call, step = given["tool_call"], at_work.get()
        use = ToolUse(call.name, arguments_of(call), call.id)
        with nullcontext() if step is None else step.joined():
            try:
                if use.answer is not None:
                    outcome = call, _answered(call, use.answer)
                else:
                    with use.going_on():
                        outcome = await original(*args, **kwargs)
            except BaseException as error:
                # The agent waits for this mark that all tools are done, and AutoGen sets it only if none
                # raised: without it the agent would wait for ever.
                given["stream"].put_nowait(None)
                use.fail(error)
                raise
        result = outcome[1]
        use.end(result.content, failed=bool(result.is_error))
        return outcome

    return staticmethod(guarded)


def _answered(call: FunctionCall, answer: ToolAnswer) -> FunctionExecutionResult:
    failed = answer.failure is not None
    return FunctionExecutionResult(content=answer.given(), name=call.name, call_id=call.id, is_error=failed)


def _run(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def guarded(self: BaseTool[Any, Any], args: Any, *more: Any, **kwargs: Any) -> Any:
        if current_run.get() is None:
            return await original(self, args, *more, **kwargs)
        use, ours = _used(self, args, kwargs)
        with _noting(use, ours), use.going_on():
            answer = use.answer
            value = await original(self, args, *more, **kwargs) if answer is None else answer.given()
        if ours:
            use.end(self.return_value_as_string(value), returned=value)
        return value

    return guarded


def _run_stream(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def guarded(self: BaseTool[Any, Any], args: Any, *more: Any, **kwargs: Any) -> Any:
        stream = original(self, args, *more, **kwargs)
        return stream if current_run.get() is None else _run_steps(self, stream, args, kwargs)

    return guarded


async def _run_steps(
    tool: BaseTool[Any, Any], stream: AsyncGenerator[Any], args: Any, kwargs: dict[str, Any]
) -> AsyncGenerator[Any]:
    use, ours = _used(tool, args, kwargs)
    last: Any = None
    with _noting(use, ours):
        if use.answer is not None:
            await stream.aclose()
            last = use.answer.given()
            yield last
        async with aclosing(stepped(stream, use.going_on)) as items:
            async for item in items:
                last = item
                yield item
    if ours:
        use.end(tool.return_value_as_string(last), returned=last)


def _used(tool: BaseTool[Any, Any], args: Any, kwargs: dict[str, Any]) -> tuple[ToolUse, bool]:
    """The call that the tool answers, and whether it begins here: nobody announced it."""
    use = _use.get()
    if use is not None and use.tool in (None, tool):
        use.tool = tool
        return use, False
    return ToolUse(tool.name, args, kwargs.get("call_id"), tool), True


@contextmanager
def _noting(use: ToolUse, ours: bool) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        if ours:
            use.fail(error)
        elif isinstance(error, Exception):
            use.error = error
        raise

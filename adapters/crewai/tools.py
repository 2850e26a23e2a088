"""Spans of CrewAI's tools, with arguments and results; in a replay, tools answer what they answered then.

What an agent asks for and the tool's own code are patched each by itself: between the two CrewAI counts and
caches the use of tools, calls its listeners and hooks, and puts what the tool gave into words. In a replay
all of this goes on around an answer from the store.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any

import crewai.agents.step_executor
from crewai.agents.agent_executor import AgentExecutor
from crewai.agents.cache.cache_handler import CacheHandler
from crewai.llms.base_llm import BaseLLM
from crewai.tools import BaseTool
from crewai.tools.structured_tool import CrewStructuredTool
from crewai.tools.tool_usage import ToolUsage
from crewai.utilities.agent_utils import extract_tool_call_info
from crewai.utilities.string_utils import sanitize_tool_name

from raybolt.adapters.classes import family, own_methods
from raybolt.adapters.crewai.around import Note, at_work, inside, span_around
from raybolt.adapters.patching import Replace
from raybolt.env.context import current_run
from raybolt.env.raised import raised_attribute
from raybolt.env.recorder import OpenSpan, as_attribute
from raybolt.env.replayed import recorded_answer
from raybolt.env.results import why_not_json
from raybolt.env.tool_calls import canonical_arguments
from raybolt.store import names

_use: ContextVar[ToolUse | None] = ContextVar("raybolt_crewai_tool", default=None)
"""The use of a tool whose own code has not begun; None inside that code, which may use tools itself."""
_NOTHING = object()


def tool_patches() -> Iterator[tuple[Any, dict[str, Replace]]]:
    """What records and replays tools: those that a model calls as such, and those it names in a text."""
    yield AgentExecutor, {"_execute_single_native_tool_call": inside(_native_tool_of_executor)}
    yield crewai.agents.step_executor, {"execute_single_native_tool_call": inside(_native_tool_of_step)}
    yield ToolUsage, {"_use": inside(_text_tool), "_ause": inside(_text_tool)}
    yield BaseLLM, {"_handle_tool_execution": _function}
    yield CacheHandler, {"read": _read_cache}
    for cls in family(BaseTool):
        yield cls, own_methods(cls, {"run": _run})
    for structured in family(CrewStructuredTool):
        yield structured, own_methods(structured, {"invoke": _invoke, "ainvoke": _ainvoke})


class ToolUse:
    """One use of a tool and its span."""

    def __init__(self, span: OpenSpan, call_id: str | None) -> None:
        self._span = span
        self._returned: Any = _NOTHING
        name, arguments = span.attributes[names.TOOL_NAME], span.attributes[names.TOOL_ARGUMENTS]
        self.answer = recorded_answer(name, arguments, call_id)
        """What the tool gives in a replay, instead of running; None to run it."""
        if self.answer is not None:
            self.answer.repeat_inside(span)

    @contextmanager
    def going_on(self) -> Iterator[Note]:
        """The tool's own code runs in the block; what it returns is told, what it raises is noted."""
        token = _use.set(None)
        try:
            yield self.note
        except Exception as error:
            self._span.attributes |= raised_attribute(error)
            raise
        finally:
            _use.reset(token)

    def note(self, returned: Any) -> None:
        """The tool, or what CrewAI keeps of it, has given this."""
        self._returned = returned
        self._span.attributes.pop(names.RAISED, None)  # it has been tried again

    def end(self, told: Any, failure: Any) -> None:
        """`told` is what the agent gets; `failure` is CrewAI's `ToolFailure`, or None."""
        values = {names.TOOL_RESULT: as_attribute(told), **self._beside(told)}
        if failure is None:
            self._span.end(attributes=values)
            return
        kind = failure.code if failure.reason == "exception" and failure.code else failure.reason.value
        self._span.end("error", f"{kind}: {failure.message}", {**values, names.ERROR_TYPE: kind})

    def of(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function as the code of this tool."""

        def code(*args: Any, **kwargs: Any) -> Any:
            with self.going_on() as note:
                result = function(*args, **kwargs) if self.answer is None else self.answer.given()
                note(result)
                return result

        return code

    def end_function(self, told: Any) -> None:
        """The same for a function that a model calls by itself; None if it could not."""
        if told is None:
            self._span.end("error", "the function is not one of those given, or it raised; see CrewAI's log")
        else:
            self.end(told, None)

    def _beside(self, told: Any) -> dict[str, Any]:
        """What the tool's code returned, where that is something else than the agent was told."""
        returned = self._returned
        if returned is _NOTHING or (type(returned) is str and returned == told):
            return {}
        missing = why_not_json(returned)
        if missing is None:
            return {names.TOOL_RETURNED: returned}
        # Most of what is no JSON CrewAI tells as `str` has it, and so it does with that text in its place.
        return {} if str(returned) == told else {names.RESULT_MISSING: missing}


@contextmanager
def _tool(name: str, arguments: Any, call_id: str | None = None) -> Iterator[ToolUse]:
    attributes = {
        names.OPERATION: names.EXECUTE_TOOL,
        names.TOOL_NAME: name,
        names.TOOL_ARGUMENTS: as_attribute(arguments),
    }
    if call_id is not None:
        attributes[names.TOOL_CALL_ID] = call_id
    with span_around(f"{names.EXECUTE_TOOL} {name}", attributes) as span:
        use = ToolUse(span, call_id)
        token = _use.set(use)
        try:
            yield use
        finally:
            _use.reset(token)


@contextmanager
def _native_tool(tool_call: Any) -> Iterator[Note]:
    """A tool that the model called as such, whether it exists or not, its arguments being JSON or not."""
    call_id, name, arguments = extract_tool_call_info(tool_call) or (None, "unknown", None)
    with _tool(name, _parsed(arguments), call_id) as use:

        def note(outcome: Any) -> None:
            values = outcome if isinstance(outcome, Mapping) else vars(outcome)
            use.end(values.get("result"), values.get("tool_failure"))

        yield note


def _parsed(arguments: Any) -> Any:
    return canonical_arguments(arguments) if isinstance(arguments, str) else arguments


def _native_tool_of_executor(self: AgentExecutor, tool_call: Any) -> AbstractContextManager[Note]:
    return _native_tool(tool_call)


def _native_tool_of_step(tool_call: Any, **_: Any) -> AbstractContextManager[Note]:
    return _native_tool(tool_call)


@contextmanager
def _text_tool(self: ToolUsage, tool_string: str, tool: Any, calling: Any) -> Iterator[Note]:
    """A tool that the model named in CrewAI's text protocol."""
    if at_work.get() is self:  # it failed and is tried again
        yield lambda result: None
        return
    token = at_work.set(self)
    try:
        with _tool(sanitize_tool_name(tool.name), calling.arguments) as use:
            yield lambda result: use.end(result, getattr(self, "last_failure", None))
    finally:
        at_work.reset(token)


def _function(original: Callable[..., Any]) -> Callable[..., Any]:
    """A function that was handed to a model together with the call."""

    @functools.wraps(original)
    def guarded(
        self: BaseLLM,
        function_name: str,
        function_args: dict[str, Any],
        available_functions: dict[str, Any],
        *more: Any,
        **kwargs: Any,
    ) -> Any:
        if current_run.get() is None:
            return original(self, function_name, function_args, available_functions, *more, **kwargs)
        with _tool(function_name, function_args) as use:
            functions = {name: use.of(function) for name, function in available_functions.items()}
            result = original(self, function_name, function_args, functions, *more, **kwargs)
            use.end_function(result)
            return result

    return guarded


# The tools' own code


def _run(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def guarded(self: BaseTool, *args: Any, **kwargs: Any) -> Any:
        use = _use.get()
        if use is None:
            return original(self, *args, **kwargs)
        with use.going_on() as note:
            if use.answer is None:
                result = original(self, *args, **kwargs)
            else:
                if not args:
                    self._validate_kwargs(kwargs)
                result = self._claim_usage() or use.answer.given()
            note(result)
            return result

    return guarded


def _invoke(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def guarded(self: CrewStructuredTool, input: Any, *args: Any, **kwargs: Any) -> Any:
        use = _use.get()
        if use is None:
            return original(self, input, *args, **kwargs)
        with use.going_on() as note:
            answered = use.answer is not None
            result = _answered(self, input, use) if answered else original(self, input, *args, **kwargs)
            note(result)
            return result

    return guarded


def _ainvoke(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def guarded(self: CrewStructuredTool, input: Any, *args: Any, **kwargs: Any) -> Any:
        use = _use.get()
        if use is None:
            return await original(self, input, *args, **kwargs)
        with use.going_on() as note:
            answered = use.answer is not None
            result = _answered(self, input, use) if answered else await original(self, input, *args, **kwargs)
            note(result)
            return result

    return guarded


def _read_cache(original: Callable[..., Any]) -> Callable[..., Any]:
    """What a tool gave before may stand in for running it; in a replay the tool answers, as it did then."""

    @functools.wraps(original)
    def guarded(self: CacheHandler, *args: Any, **kwargs: Any) -> Any:
        use = _use.get()
        if use is not None and use.answer is not None:
            return None
        found = original(self, *args, **kwargs)
        if use is not None and found is not None:
            use.note(found)
        return found

    return guarded


def _answered(tool: CrewStructuredTool, given: Any, use: ToolUse) -> Any:
    assert use.answer is not None
    tool._parse_args(given)
    tool._increment_usage_count()
    return use.answer.given()

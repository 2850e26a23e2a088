"""Spans of tools, agents, hand-offs and guardrails, from the SDK's own tracing: no change to the agent.

The SDK opens a tracing span around each of them, a hollow one where tracing is switched off. Guarded patches
of both kinds of span see them all, whatever trace processors or providers the user has installed; those go on
as before. Only the SDK's default processor, which uploads to OpenAI, rests while a run is on.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from agents.run_internal import tool_execution
from agents.tool import FunctionTool, _FunctionToolInvocationResult
from agents.tool_context import ToolContext
from agents.tracing import (
    AgentSpanData,
    CustomSpanData,
    FunctionSpanData,
    GuardrailSpanData,
    HandoffSpanData,
    Span,
    SpanData,
    SpanError,
)
from agents.tracing.processors import default_processor
from agents.tracing.spans import NoOpSpan, SpanImpl
from agents.util._error_tracing import attach_error_to_current_span

from raybolt.adapters.patching import Replace, patched
from raybolt.env.context import RunContext, current_run
from raybolt.env.raised import raised_attribute
from raybolt.env.recorded_tools import ToolAnswer
from raybolt.env.recorder import OpenSpan, as_attribute
from raybolt.env.replayed import recorded_answer, replaying
from raybolt.env.results import missing_attribute
from raybolt.store import names

_tracer: ContextVar[RunTracer | None] = ContextVar("raybolt_openai_agents_tracer", default=None)

_UPLOAD_ASKED = ("0", "false")
"""Values of OPENAI_AGENTS_DISABLE_TRACING by which a user asks for the upload, the SDK's own default."""


@contextmanager
def traced() -> Iterator[None]:
    """Inside the block, tools, agents and hand-offs are recorded as spans of the present run, if any."""
    context = current_run.get()
    if context is None or _tracer.get() is not None:
        yield
        return
    token = _tracer.set(RunTracer(context))
    try:
        with (
            patched(SpanImpl, _SPAN_PATCHES),
            patched(NoOpSpan, _SPAN_PATCHES),
            patched(ToolContext, {"__init__": _name_the_call}),
            patched(default_processor(), {"on_trace_start": _rest, "on_span_end": _rest}),
            patched(tool_execution, _TOOL_PATCHES),
        ):
            yield
    finally:
        _tracer.reset(token)


@dataclass(frozen=True, slots=True)
class _Kind:
    """What one of our spans is to say."""

    name: str
    role: str
    attributes: Mapping[str, Any]


@dataclass(slots=True)
class _Open:
    theirs: Span[Any]
    """Kept, so that its id is not given to another one meanwhile."""
    ours: OpenSpan
    around: RunContext
    handled: BaseException | None
    """The exception that was being handled when the span began."""
    error: Mapping[str, Any] | None = None


class RunTracer:
    """Opens and closes the spans of one run.

    While a tool or an agent works, it is the place in the run where its code stands, so that its LLM calls
    and whatever it emits become its children. The LLM calls themselves are recorded by the run.
    """

    def __init__(self, root: RunContext) -> None:
        self._root = root
        self._open: dict[int, _Open] = {}  # by the id of the SDK's span
        self._tools: dict[str, OpenSpan] = {}  # by our span's id

    def begin(self, span: Span[Any]) -> None:
        """The SDK's span has begun, in the context of what it stands for."""
        around = current_run.get() or self._root
        kind = _kind(span.span_data, around.role)
        if kind is None or self._is_the_run(span, around):
            return
        ours = around.run.recorder.begin(
            kind.name,
            parent_id=around.span_id,
            attributes={**kind.attributes, names.AGENT_NAME: kind.role},
        )
        self._open[id(span)] = _Open(span, ours, around, sys.exc_info()[1])
        if isinstance(span.span_data, FunctionSpanData):
            self._tools[ours.span_id] = ours
        current_run.set(replace(around, span_id=ours.span_id, role=kind.role))

    def _is_the_run(self, span: Span[Any], around: RunContext) -> bool:
        """Whether it is of the agent that was wrapped: the run's own span is its span."""
        data = span.span_data
        return isinstance(data, AgentSpanData) and around == self._root and data.name == around.role

    def note(self, span: Span[Any], error: Mapping[str, Any]) -> None:
        """The SDK has noted an error in its span."""
        if id(span) in self._open:
            self._open[id(span)].error = error

    def end(self, span: Span[Any]) -> None:
        """The SDK's span has ended, be it by an exception that is on its way up."""
        opened = self._open.pop(id(span), None)
        if opened is None:
            return
        ours, raised = opened.ours, sys.exc_info()[1]
        self._tools.pop(ours.span_id, None)
        current_run.set(opened.around)
        ours.name, results = _name_at_end(ours.name, span.span_data), _results(span.span_data)
        if raised is not None and raised is not opened.handled:
            ours.fail(raised, {**results, names.ERROR_TYPE: type(raised).__name__})
        elif opened.error is not None:
            ours.end("error", _error_text(opened.error), results)
        else:
            ours.end(attributes=results)

    def answer(self, arguments: str) -> ToolAnswer | None:
        """In a replay, what the tool whose code is about to run gave then; None to run it."""
        tool = self._tool()
        if tool is None:
            return None
        known = tool.attributes
        answer = recorded_answer(known[names.TOOL_NAME], _arguments(arguments), known.get(names.TOOL_CALL_ID))
        if answer is not None:
            answer.repeat_inside(tool)
        return answer

    def name_call(self, call_id: str) -> None:
        """The tool whose code is about to run answers this call."""
        tool = self._tool()
        if tool is not None:
            tool.attributes.setdefault(names.TOOL_CALL_ID, call_id)

    def note_raised(self, error: Exception) -> None:
        """The code of the present tool has raised this, and nothing made it a text for the agent."""
        tool = self._tool()
        if tool is not None:
            tool.attributes |= raised_attribute(error)

    def _tool(self) -> OpenSpan | None:
        """The tool whose code the present code is."""
        context = current_run.get()
        return self._tools.get(context.span_id) if context is not None else None


def _kind(data: SpanData, role: str) -> _Kind | None:
    """What to record of the SDK's span; None for turns, tasks and model calls."""
    if isinstance(data, AgentSpanData):
        step = {names.OPERATION: names.INVOKE_AGENT, names.KIND: "agent"}
        return _Kind(f"agent {data.name}", data.name, step)
    if isinstance(data, FunctionSpanData):
        tool = {names.OPERATION: names.EXECUTE_TOOL, names.TOOL_NAME: data.name}
        return _Kind(f"{names.EXECUTE_TOOL} {data.name}", role, tool)
    if isinstance(data, HandoffSpanData):
        return _Kind(f"handoff {data.from_agent}", role, {names.KIND: "handoff"})
    if isinstance(data, GuardrailSpanData):
        return _Kind(f"guardrail {data.name}", role, {names.KIND: "guardrail"})
    if isinstance(data, CustomSpanData):
        return _Kind(data.name, role, {names.KIND: "operation", **_stored(data.data)})
    return None


def _stored(data: Mapping[str, Any] | None) -> dict[str, Any]:
    return {str(key): as_attribute(value) for key, value in (data or {}).items()}


def _name_at_end(name: str, data: SpanData) -> str:
    return f"handoff {data.from_agent} -> {data.to_agent}" if isinstance(data, HandoffSpanData) else name


def _results(data: SpanData) -> dict[str, Any]:
    """What is known at the span's end."""
    if isinstance(data, FunctionSpanData):
        known = {names.TOOL_ARGUMENTS: _arguments(data.input), names.TOOL_RESULT: as_attribute(data.output)}
        if data.output is None:
            return {**known, names.RESULT_MISSING: "the SDK was told to keep it to itself, or there is none"}
        return {**known, **missing_attribute(data.output)}
    if isinstance(data, HandoffSpanData):
        return {names.HANDOFF_SOURCE: data.from_agent, names.HANDOFF_TARGET: data.to_agent}
    if isinstance(data, GuardrailSpanData):
        return {"triggered": data.triggered}
    return {}


def _arguments(text: str | None) -> Any:
    """The arguments as JSON; as the model wrote them where they are none."""
    try:
        return json.loads(text) if text else {}
    except ValueError:
        return text


def _error_text(error: Mapping[str, Any]) -> str:
    details = error.get("data") or {}
    return str(details.get("error") or error.get("message"))


def _start(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def guarded(self: Span[Any], *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if (tracer := _tracer.get()) is not None:
            tracer.begin(self)

    return guarded


def _finish(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def guarded(self: Span[Any], *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if (tracer := _tracer.get()) is not None:
            tracer.end(self)

    return guarded


def _set_error(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def guarded(self: Span[Any], error: Any) -> None:
        original(self, error)
        if (tracer := _tracer.get()) is not None:
            tracer.note(self, error)

    return guarded


def _name_the_call(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def guarded(self: ToolContext[Any], *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if (tracer := _tracer.get()) is not None:
            tracer.name_call(self.tool_call_id)

    return guarded


def _rest(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def guarded(item: Any) -> None:
        asked_for = os.environ.get("OPENAI_AGENTS_DISABLE_TRACING", "").lower() in _UPLOAD_ASKED
        if _tracer.get() is None or asked_for:
            original(item)

    return guarded


def _tool_code(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def guarded(*, function_tool: FunctionTool, context: ToolContext[Any], arguments: str) -> Any:
        tracer = _tracer.get()
        if tracer is None:
            return await original(function_tool=function_tool, context=context, arguments=arguments)
        answer = tracer.answer(arguments) if replaying() else None
        try:
            if answer is not None:
                return _answered(function_tool, answer)
            return await original(function_tool=function_tool, context=context, arguments=arguments)
        except Exception as error:
            tracer.note_raised(error)
            raise

    return guarded


def _answered(tool: FunctionTool, answer: ToolAnswer) -> _FunctionToolInvocationResult:
    value = answer.given()
    if answer.failure is None:
        return _FunctionToolInvocationResult(value)
    data = {"tool_name": tool.name, "error": answer.failure}
    attach_error_to_current_span(SpanError(message="Error running tool (non-fatal)", data=data))
    return _FunctionToolInvocationResult(value, tool._use_default_failure_error_function)


_TOOL_PATCHES: dict[str, Replace] = {"_invoke_function_tool_with_metadata": _tool_code}
_SPAN_PATCHES: dict[str, Replace] = {"start": _start, "finish": _finish, "set_error": _set_error}

"""Spans of tools, hand-overs, agents, tasks and Flow methods, from where CrewAI runs them.

CrewAI announces all of these on its event bus, too, but hears its listeners later and in other threads: a
listener can neither become the place where a tool's own code stands nor say in which order things happened.
So the methods themselves are guarded; outside a run they are what they were.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias

import crewai.agents.step_executor
from crewai import Agent, Task
from crewai.agents.agent_executor import AgentExecutor
from crewai.flow.flow import Flow
from crewai.llms.base_llm import BaseLLM
from crewai.tools.agent_tools.base_agent_tools import BaseAgentTool
from crewai.tools.tool_usage import ToolUsage
from crewai.utilities.agent_utils import extract_tool_call_info
from crewai.utilities.string_utils import sanitize_tool_name

from raybolt.adapters.crewai.model import role_of
from raybolt.adapters.patching import Replace, patched
from raybolt.env.context import RunContext, current_run, entering
from raybolt.env.recorder import OpenSpan, as_attribute
from raybolt.env.tool_calls import canonical_arguments
from raybolt.store import names

Note: TypeAlias = Callable[[Any], None]
"""Told what the traced method returned, before its span ends."""
Opened: TypeAlias = Callable[..., AbstractContextManager[Note]]
"""Opens the span of a method called with these arguments."""

_root: ContextVar[RunContext | None] = ContextVar("raybolt_crewai_root", default=None)
_at_work: ContextVar[Any] = ContextVar("raybolt_crewai_at_work", default=None)
"""What the innermost span is about: CrewAI's methods call themselves to try again."""


@contextmanager
def traced() -> Iterator[None]:
    """Inside the block, what CrewAI does in the present run is recorded as spans, if there is a run."""
    token = _root.set(current_run.get())
    try:
        with ExitStack() as stack:
            for owner, replacements in _PATCHES:
                stack.enter_context(patched(owner, replacements))
            yield
    finally:
        _root.reset(token)


def _inside(opened: Opened) -> Replace:
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
def _span(name: str, attributes: Mapping[str, Any], *, role: str | None = None) -> Iterator[OpenSpan]:
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


@contextmanager
def _nothing_new(*_: Any) -> Iterator[Note]:
    yield lambda result: None


# Tools


@contextmanager
def _tool(name: str, arguments: Any, call_id: str | None = None) -> Iterator[OpenSpan]:
    attributes = {
        names.OPERATION: names.EXECUTE_TOOL,
        names.TOOL_NAME: name,
        names.TOOL_ARGUMENTS: as_attribute(arguments),
    }
    if call_id is not None:
        attributes[names.TOOL_CALL_ID] = call_id
    with _span(f"{names.EXECUTE_TOOL} {name}", attributes) as span:
        yield span


def _end_tool(span: OpenSpan, result: Any, failure: Any) -> None:
    """Ends the span by what the tool gave; `failure` is CrewAI's `ToolFailure`, or None."""
    values = {names.TOOL_RESULT: as_attribute(result)}
    if failure is None:
        span.end(attributes=values)
        return
    kind = failure.code if failure.reason == "exception" and failure.code else failure.reason.value
    span.end("error", f"{kind}: {failure.message}", {**values, names.ERROR_TYPE: kind})


@contextmanager
def _native_tool(tool_call: Any) -> Iterator[Note]:
    """A tool that the model called as such, whether it exists or not, its arguments being JSON or not."""
    call_id, name, arguments = extract_tool_call_info(tool_call) or (None, "unknown", None)
    with _tool(name, _parsed(arguments), call_id) as span:

        def note(outcome: Any) -> None:
            values = outcome if isinstance(outcome, Mapping) else vars(outcome)
            _end_tool(span, values.get("result"), values.get("tool_failure"))

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
    if _at_work.get() is self:  # it failed and is tried again
        yield lambda result: None
        return
    token = _at_work.set(self)
    try:
        with _tool(sanitize_tool_name(tool.name), calling.arguments) as span:
            yield lambda result: _end_tool(span, result, getattr(self, "last_failure", None))
    finally:
        _at_work.reset(token)


@contextmanager
def _function(self: BaseLLM, function_name: str, function_args: Any, *_: Any, **__: Any) -> Iterator[Note]:
    """A function that was handed to a model together with the call."""
    with _tool(function_name, function_args) as span:

        def note(result: Any) -> None:
            if result is None:
                span.end("error", "the function is not one of those given, or it raised; see CrewAI's log")
            else:
                _end_tool(span, result, None)

        yield note


# Agents and what they work on


@contextmanager
def _hand_off(self: BaseAgentTool, agent_name: str | None, *_: Any, **__: Any) -> Iterator[Note]:
    """Work or a question that an agent gives to a coworker."""
    wanted = self.sanitize_agent_name(agent_name or "")
    found = (agent for agent in self.agents if self.sanitize_agent_name(agent.role) == wanted)
    coworker = next(found, None)
    context = current_run.get()
    if coworker is None or context is None:  # CrewAI tells the agent whom it could ask
        yield lambda result: None
        return
    source, target = context.role, role_of(coworker)
    attributes = {
        names.KIND: "handoff",
        names.HANDOFF_SOURCE: source,
        names.HANDOFF_TARGET: target,
    }
    with _span(f"handoff {source} -> {target}", attributes):
        yield lambda result: None


@contextmanager
def _agent(self: Agent, task: Any = None, *_: Any, **__: Any) -> Iterator[Note]:
    """An agent at work on a task, or on a question by itself."""
    work, role = (id(self), id(task)), role_of(self)
    if _at_work.get() == work or _is_whole_run(role):
        with entering(role=role):
            yield lambda result: None
        return
    token = _at_work.set(work)
    try:
        attributes = {names.KIND: "agent", names.OPERATION: names.INVOKE_AGENT}
        with _span(f"agent {role}", attributes, role=role):
            yield lambda result: None
    finally:
        _at_work.reset(token)


def _kickoff(self: Agent, *_: Any, **__: Any) -> AbstractContextManager[Note]:
    return _nothing_new() if _in_event_loop() else _agent(self)  # in a loop it only makes a coroutine


def _kickoff_async(self: Agent, *_: Any, **__: Any) -> AbstractContextManager[Note]:
    return _agent(self)


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _is_whole_run(role: str) -> bool:
    """Whether it is the agent that was wrapped: the run's own span is its span."""
    context, root = current_run.get(), _root.get()
    if context is None or root is None:
        return False
    return (context.run, context.span_id, context.role) == (root.run, root.span_id, role)


@contextmanager
def _task(self: Task, agent: Any, *_: Any, **__: Any) -> Iterator[Note]:
    """A task of a crew; what is asked for it outside its agent's work (a guardrail, say) is the agent's."""
    name = f"task {self.name}" if self.name else "task"
    attributes = {names.KIND: "task", "description": self.description}
    with _span(name, attributes, role=role_of(agent or self.agent)):
        yield lambda result: None


@contextmanager
def _method(self: Flow[Any], method_name: str, *_: Any, **__: Any) -> Iterator[Note]:
    """A method of a user's Flow: the role of calls that are no agent's."""
    if self.is_crewai_internal:
        yield lambda result: None
        return
    name = str(method_name)
    with _span(f"node {name}", {names.KIND: "node"}, role=name):
        yield lambda result: None


_PATCHES: list[tuple[Any, dict[str, Replace]]] = [
    (AgentExecutor, {"_execute_single_native_tool_call": _inside(_native_tool_of_executor)}),
    (crewai.agents.step_executor, {"execute_single_native_tool_call": _inside(_native_tool_of_step)}),
    (ToolUsage, {"_use": _inside(_text_tool), "_ause": _inside(_text_tool)}),
    (BaseLLM, {"_handle_tool_execution": _inside(_function)}),
    (BaseAgentTool, {"_execute": _inside(_hand_off)}),
    (
        Agent,
        {
            "execute_task": _inside(_agent),
            "aexecute_task": _inside(_agent),
            "kickoff": _inside(_kickoff),
            "kickoff_async": _inside(_kickoff_async),
        },
    ),
    (Task, {"_execute_core": _inside(_task), "_aexecute_core": _inside(_task)}),
    (Flow, {"_execute_method": _inside(_method)}),
]

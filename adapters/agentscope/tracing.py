"""Spans of agents and tools, from guarded patches of `Agent`: no change to the agent, built or made late.

An agent's middlewares would show the same, but they can only be given to agents that are known beforehand,
and they see neither a call that fails its checks nor one that waits for its user's permission.
"""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

from agentscope.agent import Agent
from agentscope.message import TextBlock, ToolCallBlock, ToolResultState
from agentscope.permission import PermissionBehavior, PermissionDecision
from agentscope.tool import Edit, Read, ToolResponse, Write

from raybolt.adapters.agentscope.memory import run_memory
from raybolt.adapters.agentscope.messages import text_of
from raybolt.adapters.patching import patched
from raybolt.adapters.streams import stepped
from raybolt.env.context import RunContext, current_run, entering
from raybolt.env.policy import PolicyAbort
from raybolt.env.recorded_tools import ToolAnswer
from raybolt.env.recorder import OpenSpan
from raybolt.env.replayed import recorded_answer, replaying
from raybolt.store import names

_root: ContextVar[RunContext | None] = ContextVar("raybolt_agentscope_root", default=None)
"""Where the run's own code stands, outside of every agent."""

_AGENT_KIND = "agent"
_WAITS = "not run: the agent waits for its user to permit it; give its AgentState a permission rule or mode"


@contextmanager
def traced() -> Iterator[None]:
    """Inside the block, replies and tool calls of AgentScope's agents are spans of the present run, if any.

    While an agent or a tool works, it is the place in the run where its code stands, so that its LLM calls
    and whatever it emits become its children, and the calls have the agent's name as their role.
    """
    context = current_run.get()
    if context is None:
        yield
        return
    replacements = {
        "_reply": _reply,
        "_acting": _acting,
        "_handle_error_tool_call": _refused_tool_call,
        "_check_permission": _check_permission,
        "_execute_concurrent_tool_calls": _concurrent_tool_calls,
    }
    token = _root.set(_root.get() or context)
    try:
        with patched(Agent, replacements):
            yield
    finally:
        _root.reset(token)


def _reply(original: Callable[..., AsyncGenerator[Any, None]]) -> Callable[..., AsyncIterator[Any]]:
    @functools.wraps(original)
    async def reply(agent: Agent, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        stream = original(agent, *args, **kwargs)
        around = current_run.get()
        if around is None:
            async for event in stream:
                yield event
            return
        span = _agent_span(around, agent.name)
        place = partial(entering, role=agent.name, span_id=span.span_id if span else None)
        try:
            async for event in stepped(stream, place):
                yield event
        except BaseException as error:
            if span is not None:
                _fail(span, error)
            raise
        if span is not None:
            span.end()

    return reply


def _agent_span(around: RunContext, role: str) -> OpenSpan | None:
    """None for the agent that was wrapped: the run's own span is its span."""
    if around == _root.get() and around.role == role:
        return None
    attributes = {
        names.OPERATION: names.INVOKE_AGENT,
        names.KIND: _AGENT_KIND,
        names.AGENT_NAME: role,
    }
    return around.run.recorder.begin(f"agent {role}", parent_id=around.span_id, attributes=attributes)


def _acting(original: Callable[..., AsyncGenerator[Any, None]]) -> Callable[..., AsyncIterator[Any]]:
    @functools.wraps(original)
    async def acting(agent: Agent, tool_call: ToolCallBlock) -> AsyncIterator[Any]:
        span = _tool_span(tool_call)
        stream = original(agent, tool_call)
        if span is None:
            async for chunk in stream:
                yield chunk
            return
        answer = await _recorded(agent, tool_call, span)
        if answer is not None:
            answer.repeat_inside(span)
            response = _answered(answer)
            _end_tool(span, response)
            yield response
            return
        try:
            async for chunk in stepped(stream, partial(entering, span_id=span.span_id)):
                if isinstance(chunk, ToolResponse):
                    _end_tool(span, chunk)
                yield chunk
        except BaseException as error:
            memory = run_memory()
            if isinstance(error, PolicyAbort) and memory is not None:
                memory.abort = error
            _fail(span, error)
            raise

    return acting


def _tool_span(tool_call: ToolCallBlock) -> OpenSpan | None:
    around = current_run.get()
    if around is None:
        return None
    attributes = {
        names.OPERATION: names.EXECUTE_TOOL,
        names.TOOL_NAME: tool_call.name,
        names.TOOL_ARGUMENTS: _arguments(tool_call.input),
        names.TOOL_CALL_ID: tool_call.id,
        names.AGENT_NAME: around.role,
    }
    name = f"{names.EXECUTE_TOOL} {tool_call.name}"
    return around.run.recorder.begin(name, parent_id=around.span_id, attributes=attributes)


async def _recorded(agent: Agent, tool_call: ToolCallBlock, span: OpenSpan) -> ToolAnswer | None:
    """In a replay, what the tool gave then; None to run it.

    A tool that is given the agent's state is there to change it (structured output, tasks, other tools), and
    runs again; but for those that only keep in it what they know of files.
    """
    if not replaying():
        return None
    tool = await agent.toolkit.get_tool(tool_call.name)
    if tool is not None and tool.is_state_injected and not isinstance(tool, Read | Write | Edit):
        return None
    return recorded_answer(tool_call.name, span.attributes[names.TOOL_ARGUMENTS], tool_call.id)


def _answered(answer: ToolAnswer) -> ToolResponse:
    content: list[Any] = [TextBlock(text=answer.given())]
    if answer.failure is None:
        return ToolResponse(content=content)
    return ToolResponse(content=content, state=ToolResultState.ERROR)


def _arguments(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _end_tool(span: OpenSpan, response: ToolResponse) -> None:
    text = text_of(response.content)
    result: dict[str, Any] = {names.TOOL_RESULT: text}
    if response.metadata or not all(isinstance(block, TextBlock) for block in response.content):
        result[names.RESULT_MISSING] = "it is more than text"
    elif response.state not in (ToolResultState.SUCCESS, ToolResultState.ERROR):
        result[names.RESULT_MISSING] = f"the tool's state is {response.state}"
    if response.state == ToolResultState.SUCCESS:
        span.end(attributes=result)
    else:
        span.end("error", text or str(response.state), result)


def _fail(span: OpenSpan, error: BaseException) -> None:
    span.fail(error, {names.ERROR_TYPE: type(error).__name__})


def _refused_tool_call(original: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
    """A call that never ran: no such tool, arguments that do not fit, or no permission."""

    @functools.wraps(original)
    async def refused(
        agent: Agent, tool_call: ToolCallBlock, message: str, state: ToolResultState
    ) -> AsyncIterator[Any]:
        span = _tool_span(tool_call)
        if span is not None:
            span.end("error", message, {names.TOOL_RESULT: message})
        async for event in original(agent, tool_call, message, state):
            yield event

    return refused


def _check_permission(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def check(agent: Agent, tool_call: ToolCallBlock, *args: Any) -> PermissionDecision:
        decision: PermissionDecision = await original(agent, tool_call, *args)
        if decision.behavior in (PermissionBehavior.ASK, PermissionBehavior.PASSTHROUGH):
            span = _tool_span(tool_call)
            if span is not None:
                span.end("error", _WAITS)
        return decision

    return check


def _concurrent_tool_calls(original: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
    """The agent gathers its parallel tools and drops what is no `Exception`: an abort is raised once more."""

    @functools.wraps(original)
    async def execute(agent: Agent, tool_calls: list[ToolCallBlock]) -> AsyncIterator[Any]:
        async for event in original(agent, tool_calls):
            yield event
        memory = run_memory()
        if memory is not None and memory.abort is not None:
            raise memory.abort

    return execute

"""Spans of hand-overs, agents, tasks and Flow methods, from where CrewAI runs them.

CrewAI announces all of these on its event bus, too, but hears its listeners later and in other threads: a
listener can neither become the place where a tool's own code stands nor say in which order things happened.
So the methods themselves are guarded; outside a run they are what they were.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

from crewai import Agent, Task
from crewai.flow.flow import Flow
from crewai.tools.agent_tools.base_agent_tools import BaseAgentTool

from raybolt.adapters.crewai.around import Note, at_work, inside, span_around
from raybolt.adapters.crewai.model import role_of
from raybolt.adapters.crewai.tools import tool_patches
from raybolt.adapters.patching import Replace, patched
from raybolt.env.context import RunContext, current_run, entering
from raybolt.store import names

_root: ContextVar[RunContext | None] = ContextVar("raybolt_crewai_root", default=None)


@contextmanager
def traced() -> Iterator[None]:
    """Inside the block, what CrewAI does in the present run is recorded as spans, if there is a run."""
    token = _root.set(current_run.get())
    try:
        with ExitStack() as stack:
            for owner, replacements in (*tool_patches(), *_PATCHES):
                stack.enter_context(patched(owner, replacements))
            yield
    finally:
        _root.reset(token)


@contextmanager
def _nothing_new(*_: Any) -> Iterator[Note]:
    yield lambda result: None


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
    with span_around(f"handoff {source} -> {target}", attributes):
        yield lambda result: None


@contextmanager
def _agent(self: Agent, task: Any = None, *_: Any, **__: Any) -> Iterator[Note]:
    """An agent at work on a task, or on a question by itself."""
    work, role = (id(self), id(task)), role_of(self)
    if at_work.get() == work or _is_whole_run(role):
        with entering(role=role):
            yield lambda result: None
        return
    token = at_work.set(work)
    try:
        attributes = {names.KIND: "agent", names.OPERATION: names.INVOKE_AGENT}
        with span_around(f"agent {role}", attributes, role=role):
            yield lambda result: None
    finally:
        at_work.reset(token)


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
    with span_around(name, attributes, role=role_of(agent or self.agent)):
        yield lambda result: None


@contextmanager
def _method(self: Flow[Any], method_name: str, *_: Any, **__: Any) -> Iterator[Note]:
    """A method of a user's Flow: the role of calls that are no agent's."""
    if self.is_crewai_internal:
        yield lambda result: None
        return
    name = str(method_name)
    with span_around(f"node {name}", {names.KIND: "node"}, role=name):
        yield lambda result: None


_PATCHES: list[tuple[Any, dict[str, Replace]]] = [
    (BaseAgentTool, {"_execute": inside(_hand_off)}),
    (
        Agent,
        {
            "execute_task": inside(_agent),
            "aexecute_task": inside(_agent),
            "kickoff": inside(_kickoff),
            "kickoff_async": inside(_kickoff_async),
        },
    ),
    (Task, {"_execute_core": inside(_task), "_aexecute_core": inside(_task)}),
    (Flow, {"_execute_method": inside(_method)}),
]

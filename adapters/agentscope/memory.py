"""Each run its own memory of an agent object that many runs share.

An AgentScope agent keeps its conversation in `state`, its tools in `toolkit` (where structured output adds
one and takes it away again) and more of that kind. Copying agents is no way out: they hold clients and locks,
and nobody knows who else holds the same agent. So, while runs are on, reading such a field inside a run gives
the run's own value, made from what the agent held outside of it; writing it changes that value only.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

from agentscope.agent import Agent
from agentscope.permission import PermissionEngine
from agentscope.pipeline import GoalPipeline
from agentscope.state import AgentState
from agentscope.tool import Toolkit

from raybolt.adapters.patching import patched
from raybolt.env.context import current_run
from raybolt.env.policy import PolicyAbort
from raybolt.env.run import AgentRun

_FIELDS: dict[type, frozenset[str]] = {
    Agent: frozenset({"state", "_engine", "toolkit", "model", "_receive_reply_end"}),
    GoalPipeline: frozenset({"_iters", "_goal"}),
}


class RunMemory:
    """What one run's agents remember."""

    def __init__(self) -> None:
        self.abort: PolicyAbort | None = None
        """What ended the run, once it has been raised in a tool."""
        self._values: dict[int, dict[str, Any]] = {}  # by the owner's id
        self._owners: list[Any] = []  # kept, so that no id is used twice
        self._copies: dict[int, tuple[Any, Any]] = {}  # what agents share they go on sharing

    def read(self, owner: Any, name: str, outside: Any) -> Any:
        """The run's value; `outside` is what the owner holds."""
        values = self._of(owner)
        if name not in values:
            values[name] = self._made_from(owner, name, outside)
        return values[name]

    def write(self, owner: Any, name: str, value: Any) -> None:
        self._of(owner)[name] = value

    def copied(self, value: Any) -> Any:
        """A copy that shares nothing the agents change; the same one whenever it is asked for."""
        if not isinstance(value, AgentState | Toolkit):
            return value
        if id(value) not in self._copies:
            made = value.model_copy(deep=True) if isinstance(value, AgentState) else _copied_toolkit(value)
            self._copies[id(value)] = (value, made)
        return self._copies[id(value)][1]

    def outside(self, owner: Any, name: str, value: Any) -> Any:
        """What an agent that was made in this run is left with for others, before anything happened to it."""
        if name != "_engine":
            return self.copied(value)
        return _engine_of(value, vars(owner)["state"])

    def _of(self, owner: Any) -> dict[str, Any]:
        if id(owner) not in self._values:
            self._values[id(owner)] = {}
            self._owners.append(owner)
        return self._values[id(owner)]

    def _made_from(self, owner: Any, name: str, outside: Any) -> Any:
        return _engine_of(outside, owner.state) if name == "_engine" else self.copied(outside)


_memory: ContextVar[RunMemory | None] = ContextVar("raybolt_agentscope_memory", default=None)


def run_memory() -> RunMemory | None:
    """That of the run the calling code belongs to; None outside a run."""
    return _memory.get()


@contextmanager
def kept_apart() -> Iterator[None]:
    """What agents remember in this block is the present run's alone; nothing changes outside a run.

    Under `raybolt.trace()` there is no run to be kept apart: agents remember as they always do.
    """
    context = current_run.get()
    if context is None or not isinstance(context.run, AgentRun) or _memory.get() is not None:
        yield
        return
    token = _memory.set(RunMemory())
    try:
        with ExitStack() as stack:
            for cls, names in _FIELDS.items():
                replacements = {"__getattribute__": _reading(names), "__setattr__": _writing(names)}
                stack.enter_context(patched(cls, replacements))
            yield
    finally:
        _memory.reset(token)


def _reading(names: frozenset[str]) -> Callable[..., Any]:
    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def guarded(owner: Any, name: str) -> Any:
            value = original(owner, name)
            memory = _memory.get() if name in names else None
            return value if memory is None else memory.read(owner, name, value)

        return guarded

    return make


def _writing(names: frozenset[str]) -> Callable[..., Any]:
    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def guarded(owner: Any, name: str, value: Any) -> None:
            memory = _memory.get() if name in names else None
            if memory is None:
                original(owner, name, value)
                return
            memory.write(owner, name, value)
            if name not in vars(owner):  # made inside the run; others that meet it start from this
                original(owner, name, memory.outside(owner, name, value))

        return guarded

    return make


def _engine_of(engine: PermissionEngine, state: AgentState) -> PermissionEngine:
    """The same rules of permission, applied to this state."""
    copied = copy.copy(engine)
    copied.context = state.permission_context
    return copied


def _copied_toolkit(toolkit: Toolkit) -> Toolkit:
    """The same tools in lists of its own."""
    copied = copy.copy(toolkit)
    copied.tool_groups = [copy.copy(group) for group in toolkit.tool_groups]
    for group in copied.tool_groups:
        group.tools = list(group.tools)
    return copied

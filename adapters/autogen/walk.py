"""Find what a built agent or team holds: model clients, agents and teams, wherever it holds them."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from autogen_agentchat.base import ChatAgent, Team
from autogen_core import SingleThreadedAgentRuntime
from autogen_core.models import ChatCompletionClient

from raybolt.adapters.autogen.model import PolicyClient

_MAX_OBJECTS = 50_000  # an agent that reaches more holds a data set, and no client behind it
_LEAVES = (
    str,
    bytes,
    bytearray,
    int,
    float,
    complex,
    type(None),
    type,
    ModuleType,
    BuiltinFunctionType,
    SingleThreadedAgentRuntime,
)
_LIBRARIES = frozenset({"autogen_agentchat", "autogen_core", "autogen_ext", "pydantic", "opentelemetry"})
_OPAQUE = frozenset(sys.stdlib_module_names) | {
    "numpy",
    "torch",
    "pandas",
    "pyarrow",
    "pydantic_core",
    "httpx",
}


@dataclass
class Held:
    """What was found, each once, nearest first."""

    clients: list[Any] = field(default_factory=list)
    """Model clients, of AutoGen's base class or merely shaped like one."""
    workers: list[ChatAgent | Team] = field(default_factory=list)
    methods: list[MethodType] = field(default_factory=list)


def held_by(agent: Any) -> Held:
    """What is reachable from `agent` by fields, containers, closures, bound methods, and the module globals
    that its own functions (not those of libraries) name. What is made while the agent runs is not found."""
    seen: set[int] = set()
    held = Held()
    queue: list[Any] = [agent]
    for value in queue:  # grows while it is walked: breadth first
        if isinstance(value, _LEAVES) or id(value) in seen:
            continue
        seen.add(id(value))
        if _is_client(value):
            if not isinstance(value, PolicyClient):
                held.clients.append(value)
            continue
        if isinstance(value, (ChatAgent, Team)):
            held.workers.append(value)
        if isinstance(value, MethodType):
            held.methods.append(value)
        if len(queue) < _MAX_OBJECTS:
            queue.extend(_parts(value))
    return held


def _is_client(value: Any) -> bool:
    shape = ("create", "create_stream", "model_info")
    return isinstance(value, ChatCompletionClient) or all(hasattr(type(value), name) for name in shape)


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return value
    if isinstance(value, FunctionType):
        return _function_parts(value)
    if isinstance(value, MethodType):
        return (value.__self__, value.__func__)
    if isinstance(value, functools.partial):
        return (value.func, *value.args, *value.keywords.values())
    if _root(type(value)) in _OPAQUE:
        return ()
    return _field_values(value)


def _function_parts(function: FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a name that is bound only later
            continue
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    yield from vars(function).values()  # __wrapped__, and what decorators leave
    if _root(function) not in _LIBRARIES | _OPAQUE:
        yield from _named_globals(function.__code__, function.__globals__)


def _named_globals(code: CodeType, namespace: dict[str, Any]) -> Iterator[Any]:
    for name in code.co_names:
        value = namespace.get(name)
        if isinstance(value, ModuleType):  # `settings.team`: the attribute's name stands beside the module's
            attributes = vars(value)
            yield from (attributes[other] for other in code.co_names if other in attributes)
        else:
            yield value
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _named_globals(constant, namespace)


def _field_values(value: Any) -> Iterator[Any]:
    yield from getattr(value, "__dict__", {}).values()
    yield from (getattr(value, "__pydantic_private__", None) or {}).values()
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            yield getattr(value, slot, None)


def _root(value: Any) -> str:
    return (getattr(value, "__module__", None) or "").partition(".")[0]

"""Walk what a built agent holds, wherever it holds it, without running any of its code."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

_MAX_OBJECTS = 50_000  # an agent that reaches more holds a data set, and no model behind it
_LEAVES = (str, bytes, bytearray, int, float, complex, type(None), type, ModuleType, BuiltinFunctionType)
_OPAQUE_ROOTS = frozenset(sys.stdlib_module_names) | {
    "numpy",
    "torch",
    "pandas",
    "pyarrow",
    "pydantic_core",
    "httpx",
}


def reachable(agent: Any, *, libraries: frozenset[str], is_leaf: Callable[[Any], bool]) -> Iterator[Any]:
    """Yields what is reachable from `agent`, itself included: each object once, nearest first.

    Follows fields, containers, closures, partials, bound methods, and the module globals that functions name,
    those of `libraries` (top-level packages) excepted. A leaf is yielded, and not looked into. What is made
    only while the agent runs is not found.
    """
    seen: set[int] = set()
    queue: list[Any] = [agent]
    for value in queue:  # grows while it is walked: breadth first
        if isinstance(value, _LEAVES) or id(value) in seen:
            continue
        seen.add(id(value))
        yield value
        if not is_leaf(value) and len(queue) < _MAX_OBJECTS:
            queue.extend(_parts(value, libraries))


def _parts(value: Any, libraries: frozenset[str]) -> Iterable[Any]:
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return value
    if isinstance(value, FunctionType):
        return _function_parts(value, libraries)
    if isinstance(value, MethodType):
        return (value.__self__, value.__func__)
    if isinstance(value, functools.partial):
        return (value.func, *value.args, *value.keywords.values())
    if _root(type(value)) in _OPAQUE_ROOTS:
        return ()
    return _field_values(value)


def _function_parts(function: FunctionType, libraries: frozenset[str]) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a name that is bound only later
            continue
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    yield from vars(function).values()  # __wrapped__, and what decorators leave
    if _root(function) not in libraries | _OPAQUE_ROOTS:
        yield from _named_globals(function.__code__, function.__globals__)


def _named_globals(code: CodeType, namespace: dict[str, Any]) -> Iterator[Any]:
    for name in code.co_names:
        value = namespace.get(name)
        if isinstance(value, ModuleType):  # `settings.llm`: the attribute's name stands beside the module's
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

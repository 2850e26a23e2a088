"""Replace an attribute of a foreign class or object while agent runs need it, and put it back afterwards.

Replacements are shared by every run in the process: the first `patched` block installs them, the last one to
leave takes them out again. A replacement must therefore ask the current context whether *its* caller belongs
to a run, and call the original otherwise; other threads use the same class at the same time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

Replace = Callable[[Any], Any]
"""Takes the original attribute and returns what stands in for it."""

_MISSING = object()


@dataclass
class _Patch:
    owner: Any
    name: str
    own_value: Any  # what the owner's own __dict__ held, or _MISSING when it inherited the attribute
    replacement: Any
    users: int


_lock = threading.Lock()
_patches: dict[tuple[int, str], _Patch] = {}  # the patch keeps its owner alive, so an id is never reused


@contextmanager
def patched(owner: Any, replacements: Mapping[str, Replace]) -> Iterator[None]:
    """Hold `replacements` (attribute name -> maker) on a class or an object for the length of the block.

    Nested and concurrent blocks for the same owner and name share the replacement of the first.
    """
    with _lock:
        for name, make in replacements.items():
            _acquire(owner, name, make)
    try:
        yield
    finally:
        with _lock:
            for name in replacements:
                _release(owner, name)


def active_patches() -> list[str]:
    """What is replaced at this moment, as "owner.attribute"; nothing when no run is on."""
    with _lock:
        return [
            f"{getattr(patch.owner, '__qualname__', type(patch.owner).__qualname__)}.{patch.name}"
            for patch in _patches.values()
        ]


def _acquire(owner: Any, name: str, make: Replace) -> None:
    patch = _patches.get((id(owner), name))
    if patch is None:
        own_value = vars(owner).get(name, _MISSING)
        replacement = make(getattr(owner, name))
        patch = _patches[id(owner), name] = _Patch(owner, name, own_value, replacement, users=0)
        _set(owner, name, replacement)
    patch.users += 1


def _release(owner: Any, name: str) -> None:
    patch = _patches[id(owner), name]
    patch.users -= 1
    if patch.users:
        return
    del _patches[id(owner), name]
    if vars(owner).get(name) is not patch.replacement:
        return  # somebody patched over us and still calls us; outside a run we only pass calls on
    if patch.own_value is _MISSING:
        _delete(owner, name)
    else:
        _set(owner, name, patch.own_value)


def _set(owner: Any, name: str, value: Any) -> None:
    if isinstance(owner, type):
        type.__setattr__(owner, name, value)
    else:
        object.__setattr__(owner, name, value)  # past pydantic, which only lets fields be set


def _delete(owner: Any, name: str) -> None:
    if isinstance(owner, type):
        type.__delattr__(owner, name)
    else:
        object.__delattr__(owner, name)

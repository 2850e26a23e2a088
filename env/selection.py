"""Which LLM calls of an agent the policy answers and learns from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

from raybolt.env.chat import ChatRequest
from raybolt.store.errors import InvalidValue

Trainable: TypeAlias = Sequence[str] | Callable[[ChatRequest], bool] | None
"""Patterns of roles ("writer", "critic*"), a function of the request, or None for every call."""


def takes(trainable: Trainable, request: ChatRequest) -> bool:
    """Whether the call is one of the policy's."""
    if trainable is None:
        return True
    if callable(trainable):
        return bool(trainable(request))
    return any(fnmatchcase(request.role, pattern) for pattern in trainable)


def check_trainable(value: Any) -> None:
    """Raises InvalidValue unless `value` says which calls are trainable."""
    if value is None or callable(value):
        return
    is_list = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    if not is_list or not value or not all(isinstance(pattern, str) and pattern for pattern in value):
        raise InvalidValue(
            f"trainable is {value!r}; expected a list of roles or patterns such as ['writer', 'critic*'], or "
            "a function of the request"
        )

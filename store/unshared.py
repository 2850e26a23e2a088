"""What a store in this process hands out, such that nothing its caller does to it reaches the store.

Stores behind Ray or HTTP hand out copies by nature; here they are made, field by field, which takes half the
time of ``dataclasses.replace``.
"""

import marshal
from collections.abc import Callable
from dataclasses import fields
from operator import attrgetter
from typing import Any

from .rows import SpanRow
from .types import Attempt, AttemptedRollout, Json, ResourcesUpdate, Rollout, Worker


def unshared(answer: Any) -> Any:
    """Returns the answer with JSON of its own: what holds some is copied, all else is itself."""
    kind = type(answer)
    if kind is list:
        # Rows come by themselves, and nothing that they hold can change.
        return answer if answer and type(answer[0]) is SpanRow else [unshared(each) for each in answer]
    if kind is AttemptedRollout:  # made anew for every answer, so that it can be completed as it is
        _SET_INPUT(answer, _copy(answer.input))
        _SET_METADATA(answer, _copy(answer.metadata))
        _SET_ATTEMPT(answer, unshared(answer.attempt))
        return answer
    if kind not in _COPIED:
        return answer
    made = object.__new__(kind)
    values_of, setters = _COPIED[kind]
    for set_value, value in zip(setters, values_of(answer), strict=True):
        set_value(made, _copy(value))
    return made


def _copy(value: Json) -> Json:
    """The JSON anew; by ``marshal``, which is quick and goes as deep as JSON may."""
    return marshal.loads(marshal.dumps(value)) if isinstance(value, dict | list) else value


def _setter(kind: type[Any], field: str) -> Callable[[Any, Any], None]:
    """What sets a field of a frozen dataclass, as its own ``__init__`` does."""
    setter: Callable[[Any, Any], None] = getattr(kind, field).__set__
    return setter


def _access(kind: type[Any]) -> tuple[Callable[[Any], tuple[Any, ...]], list[Callable[[Any, Any], None]]]:
    names = [field.name for field in fields(kind)]
    return attrgetter(*names), [_setter(kind, name) for name in names]


_COPIED = {kind: _access(kind) for kind in (Rollout, Attempt, ResourcesUpdate, Worker)}
_SET_INPUT, _SET_METADATA = _setter(Rollout, "input"), _setter(Rollout, "metadata")
_SET_ATTEMPT = _setter(AttemptedRollout, "attempt")

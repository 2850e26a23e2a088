"""What counts as a reward."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np

from raybolt.store.errors import InvalidValue


def as_reward(value: Any) -> float:
    """The reward as a float. A truth value counts as 0 or 1, an array or tensor if it holds one number.

    Raises:
        InvalidValue: it is no number, or not a finite one.
    """
    number = _as_number(value)
    if number is None:
        raise InvalidValue(f"the reward is {_shown(value)}; expected a number")
    if not math.isfinite(number):
        raise InvalidValue(f"the reward is {number}; expected a finite number")
    return number


def is_number(value: Any) -> bool:
    """Whether a value returned by an agent can be meant as its reward."""
    return _as_number(value) is not None


def _as_number(value: Any) -> float | None:
    if isinstance(value, numbers.Real | np.bool_):
        return float(value)
    if getattr(value, "size", None) == 1 or _is_tensor_of_one(value):
        item = value.item()
        return float(item) if isinstance(item, numbers.Real) else None
    return None


def _is_tensor_of_one(value: Any) -> bool:
    return (
        callable(getattr(value, "item", None))
        and callable(getattr(value, "numel", None))
        and value.numel() == 1
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text[:80]}{'…' if len(text) > 80 else ''} of type {type(value).__name__}"

"""What counts as a reward, and whose it is."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from raybolt.env.trajectory import FINAL_REWARD
from raybolt.store import names
from raybolt.store.errors import InvalidValue
from raybolt.store.types import Span


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


def rewards_by_agent(spans: Iterable[Span], acted: Sequence[str]) -> dict[str, float]:
    """The rewards among the spans: the final one goes to everybody that acted, others to who acted last.

    `acted` has the agent that acted last at its end; agents without a reward are left out.
    """
    rewards: dict[str, float] = {}
    for span in spans:
        if names.REWARD in span.attributes:
            is_final = span.attributes.get(names.KIND) == FINAL_REWARD
            for agent in acted if is_final else acted[-1:]:
                rewards[agent] = rewards.get(agent, 0.0) + span.attributes[names.REWARD]
    return rewards


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

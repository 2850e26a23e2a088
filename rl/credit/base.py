"""What a credit estimator is, and how one is found by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from raybolt.env.trajectory import Trajectory
from raybolt.store.errors import InvalidValue


class Estimator(Protocol):
    """Says how much better than expected each token of a group's rollouts was."""

    def __call__(self, group: Sequence[Trajectory]) -> list[list[np.ndarray]]:
        """Advantages of every response token.

        Args:
            group: the succeeded rollouts of one task under one policy. Failed ones are left out before:
                they have no return.

        Returns:
            For each trajectory, for each of its calls, float32[len(response_ids)].
        """


_FACTORIES: dict[str, Callable[[], Estimator]] = {}


def register_estimator(name: str, factory: Callable[[], Estimator]) -> None:
    """Makes an estimator known by `name`; a file in `rl.credit` does this for its own.

    Raises:
        InvalidValue: the name is taken.
    """
    if name in _FACTORIES:
        raise InvalidValue(f"A credit estimator named {name!r} is registered already; choose another name.")
    _FACTORIES[name] = factory


def get_estimator(name: str) -> Estimator:
    """The estimator registered as `name`.

    Raises:
        InvalidValue: there is none; the message names the nearest.
    """
    if name not in _FACTORIES:
        near = difflib.get_close_matches(name, _FACTORIES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InvalidValue(
            f"credit is {name!r}, which is no known estimator.{hint} Known: {', '.join(sorted(_FACTORIES))}."
        )
    return _FACTORIES[name]()

"""Which tasks and which demonstrations an iteration uses: a pure function of seed and iteration.

Nothing is carried from one iteration to the next, so a resumed run continues exactly where it stopped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from raybolt.rl.recipes import SFT, LightningRL

SFT_ITERATIONS_PER_EPOCH = 10
"""Supervised fine-tuning has no natural iterations; this many show progress without slowing it down."""


def num_rl_iterations(recipe: LightningRL, num_tasks: int) -> int:
    """The recipe's iterations, or as many as one pass over the tasks takes."""
    return recipe.iterations or math.ceil(num_tasks / recipe.tasks_per_iteration)


def tasks_of_iteration(iteration: int, *, num_tasks: int, tasks_per_iteration: int, seed: int) -> list[int]:
    """Indices of the tasks of one iteration.

    Passes over the shuffled tasks follow one another without a gap, each shuffled anew; an iteration may
    span two passes and never has a task twice unless it asks for more tasks than there are.
    """
    start = iteration * tasks_per_iteration
    picked: list[int] = []
    for position in range(start, start + tasks_per_iteration):
        order = _shuffled(num_tasks, seed, position // num_tasks)
        picked.append(int(order[position % num_tasks]))
    return picked


def demonstrations_by_iteration(group_ids: Sequence[str], recipe: SFT, seed: int) -> list[list[str]]:
    """Ids of the demonstration groups of each iteration of supervised fine-tuning, over all epochs."""
    iterations: list[list[str]] = []
    for epoch in range(recipe.epochs):
        shuffled = _shuffled(len(group_ids), seed, epoch)
        for chunk in np.array_split(shuffled, min(SFT_ITERATIONS_PER_EPOCH, len(group_ids))):
            iterations += [[group_ids[index] for index in chunk]]
    return iterations


def _shuffled(num: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(num)

"""What training and evaluation report. Plain data: importing this loads neither Ray nor torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from raybolt.rl.outcomes import Collected

_Z95 = 1.959963984540054
_RESAMPLES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalResult:
    """The agent's score on some tasks, with the policy as it was.

    Attributes:
        mean: mean reward over the tasks that have one; NaN if none has. Failed rollouts have no reward and
            are left out; a caller for whom a failure is a wrong answer divides by `num_tasks` instead.
        low, high: 95 % confidence interval of the mean: Wilson's (1927) if all rewards are 0 or 1, else the
            percentile bootstrap over tasks (Efron 1979; 10,000 resamples, fixed seed).
        num_tasks: tasks that were run.
        num_failed: rollouts that failed.
        rewards: task id to its mean reward over its rollouts; None if all of them failed.
        errors: what failed rollouts died of, and how many each.
        rollout_ids: task id to its rollouts, for looking them up in the store.
    """

    mean: float
    low: float
    high: float
    num_tasks: int
    num_failed: int
    rewards: Mapping[str, float | None]
    errors: Mapping[str, int] = field(default_factory=dict)
    rollout_ids: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, collected: Collected) -> EvalResult:
        """The score of a collection whose groups are tasks."""
        rewards: dict[str, float | None] = {}
        rollout_ids: dict[str, tuple[str, ...]] = {}
        for group in collected.groups.values():
            task_id = group[0].task_id
            known = [outcome.reward for outcome in group if outcome.reward is not None]
            rewards[task_id] = float(np.mean(known)) if known else None
            rollout_ids[task_id] = tuple(outcome.rollout_id for outcome in group)
        errors = Counter(f"{o.origin}: {o.error}" for o in collected.outcomes if o.failed)
        values = [reward for reward in rewards.values() if reward is not None]
        mean, low, high = mean_with_interval(values)
        return cls(
            mean=mean,
            low=low,
            high=high,
            num_tasks=len(rewards),
            num_failed=sum(outcome.failed for outcome in collected.outcomes),
            rewards=rewards,
            errors=dict(errors.most_common()),
            rollout_ids=rollout_ids,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One finished iteration.

    Attributes:
        phase: "sft" or "rl".
        iteration: iterations done, this one included, over both phases.
        iterations: how many there will be.
        reward_mean: mean return of this iteration's rollouts; None in supervised fine-tuning.
        loss: of the iteration; of several policies the mean over all their tokens.
        losses: by policy, if the recipe names policies.
        seconds: spent in "rollouts", "learning" and "sync" in this iteration.
        tokens: "sampled" and "trained" in this iteration.
        rollouts_failed, groups_held_back: what did not reach the learner.
    """

    phase: str
    iteration: int
    iterations: int
    reward_mean: float | None
    loss: float | None
    seconds: Mapping[str, float]
    tokens: Mapping[str, int]
    rollouts_failed: int = 0
    groups_held_back: int = 0
    losses: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FitResult:
    """A finished training run.

    Attributes:
        iterations: done in all, those before a resume included.
        reward_curve: mean return of each reinforcement-learning iteration.
        seconds: "total" and what of it went into "rollouts", "learning" and "sync".
        tokens: "sampled" by the policy, "trained" on (response tokens, each as often as it was used).
        paths: "checkpoint", "model" (Hugging Face folder; of several policies, one folder each in it),
            "log" (TensorBoard, progress.jsonl), "store" (if it is a folder).
        evaluations: on the validation tasks: "before", "sft" (after the warm-up, if any), "rl".
    """

    iterations: int
    reward_curve: list[float]
    seconds: Mapping[str, float]
    tokens: Mapping[str, int]
    paths: Mapping[str, Path]
    evaluations: Mapping[str, EvalResult]

    @property
    def val(self) -> EvalResult | None:
        """The last evaluation; None without validation tasks."""
        return list(self.evaluations.values())[-1] if self.evaluations else None


def mean_with_interval(values: list[float]) -> tuple[float, float, float]:
    """Mean, and bounds of its 95 % confidence interval; NaN for no values. See `EvalResult`."""
    if not values:
        return math.nan, math.nan, math.nan
    mean = float(np.mean(values))
    if set(values) <= {0.0, 1.0}:
        return mean, *_wilson(mean, len(values))
    samples = np.random.default_rng(0).choice(values, size=(_RESAMPLES, len(values))).mean(axis=1)
    low, high = np.quantile(samples, [0.025, 0.975])
    return mean, float(low), float(high)


def _wilson(share: float, num: int) -> tuple[float, float]:
    scale = 1 + _Z95**2 / num
    middle = (share + _Z95**2 / (2 * num)) / scale
    half = _Z95 / scale * math.sqrt(share * (1 - share) / num + _Z95**2 / (4 * num**2))
    return max(0.0, middle - half), min(1.0, middle + half)

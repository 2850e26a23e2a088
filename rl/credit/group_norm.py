"""Group-normalised returns: one number for a whole rollout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raybolt.env.trajectory import Trajectory
from raybolt.rl.credit.base import register_estimator


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupNorm:
    """A = (R − mean R) / (std R + epsilon) over the group's rollouts, for every call and token of each.

    GRPO's outcome supervision (Shao et al. 2024, arXiv:2402.03300, section 4.1.2). The return R is the sum
    of a rollout's rewards. Mean and standard deviation (population) are over *rollouts*: a rollout with
    many calls counts once. Equal returns, or a single rollout, give zeros exactly.

    Attributes:
        scale: False leaves out the division, which favours tasks that are nearly always or never solved
            (Dr. GRPO, Liu et al. 2025, arXiv:2503.20783, section 3.1).
        epsilon: added to the standard deviation.
    """

    scale: bool = True
    epsilon: float = 1e-6

    def __call__(self, group: Sequence[Trajectory]) -> list[list[np.ndarray]]:
        returns = np.array([trajectory.total_reward for trajectory in group], np.float64)
        return [
            [np.full(len(call.response_ids), advantage, np.float32) for call in trajectory.calls]
            for trajectory, advantage in zip(group, self._normalise(returns), strict=True)
        ]

    def _normalise(self, returns: np.ndarray) -> np.ndarray:
        # Equal numbers may differ from their mean by rounding, which the division would blow up.
        if returns.size == 0 or np.ptp(returns) == 0.0:
            return np.zeros_like(returns)
        centred = returns - returns.mean()
        return centred / (returns.std() + self.epsilon) if self.scale else centred


register_estimator("group_norm", GroupNorm)

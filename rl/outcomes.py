"""How rollouts ended, as the driver knows it: numbers and words, never tokens."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one rollout ended."""

    rollout_id: str
    group_id: str
    task_id: str
    reward: float | None
    """The return; None for a failed rollout, which is not a zero."""
    error: str | None
    origin: str | None
    """Who is to blame for the error: agent, policy, limit, reward, engine, raybolt."""
    num_calls: int
    num_tokens: int
    """Sampled tokens."""

    @property
    def failed(self) -> bool:
        return self.reward is None


@dataclass(frozen=True, slots=True)
class Collected:
    """The outcomes of the rollouts of some tasks, group by group, in the order of the tasks."""

    groups: dict[str, list[Outcome]]

    @property
    def outcomes(self) -> list[Outcome]:
        return [outcome for group in self.groups.values() for outcome in group]

    @property
    def rewards(self) -> list[float]:
        """The returns of the rollouts that succeeded."""
        return [outcome.reward for outcome in self.outcomes if outcome.reward is not None]

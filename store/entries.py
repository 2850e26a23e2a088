"""What a core keeps of one rollout."""

from dataclasses import dataclass, field

from .types import Attempt, Rollout


@dataclass(slots=True)
class Entry:
    """A rollout with its attempts, in the order in which they were started."""

    rollout: Rollout
    order: int
    """Place among all rollouts, by enqueuing."""
    attempts: dict[str, Attempt] = field(default_factory=dict)

    @property
    def latest(self) -> Attempt | None:
        return next(reversed(self.attempts.values()), None)

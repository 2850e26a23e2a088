"""How much one run of an agent may take."""

from __future__ import annotations

import math
from dataclasses import dataclass

from raybolt.store.errors import InvalidValue


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    """Bounds of one run; a run that crosses one ends as failed, with origin "limit"."""

    max_calls: int = 16
    """LLM calls the agent may make; the next one ends the run."""
    max_seconds: float = 120.0
    """The agent's own time. The clock stands still while a call waits for the policy, so that a slow
    engine fails no run. The reward function has the same time once more."""

    def __post_init__(self) -> None:
        if not isinstance(self.max_calls, int) or self.max_calls < 1:
            raise InvalidValue(f"max_calls is {self.max_calls!r}; expected a whole number of at least 1")
        if not (math.isfinite(self.max_seconds) and self.max_seconds > 0):
            raise InvalidValue(f"max_seconds is {self.max_seconds!r}; expected a positive number of seconds")

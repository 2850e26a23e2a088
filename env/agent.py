"""What the rest of raybolt knows of a wrapped agent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from raybolt.env.limits import RunLimits
from raybolt.env.policy import AgentProgram
from raybolt.env.run import RewardFunction
from raybolt.env.selection import Trainable

if TYPE_CHECKING:
    from raybolt.env.agent_env import AgentEnv


class Agent(Protocol):
    """An agent that can be stepped, demonstrated and trained: `raybolt.wrap` makes one.

    It goes to other processes, so it must be picklable.
    """

    @property
    def name(self) -> str: ...

    @property
    def limits(self) -> RunLimits: ...

    @property
    def reward(self) -> RewardFunction | None: ...

    @property
    def trainable(self) -> Trainable: ...

    def program(self) -> AgentProgram:
        """The agent as `AgentRun` runs it."""
        ...

    def env(self, model: str = "tiny", **options: Any) -> AgentEnv:
        """A fresh environment, its observations in the tokens of `model`, or as the option `codec` says."""
        ...

"""An agent's run as a PettingZoo parallel environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias

import gymnasium as gym
from pettingzoo import ParallelEnv

from raybolt.env.errors import RunOver
from raybolt.env.padded_env import PaddedAgentEnv, PaddedObservation
from raybolt.store.errors import InvalidValue

ParallelStep: TypeAlias = tuple[
    dict[str, PaddedObservation],
    dict[str, float],
    dict[str, bool],
    dict[str, bool],
    dict[str, dict[str, Any]],
]


class ParallelView(ParallelEnv[str, PaddedObservation, Any]):
    """`PaddedAgentEnv` with all agents alive from the first observation to the end of the run.

    An agent of which nothing is asked sees the empty observation ("length" 0), and what it does is ignored.
    One that is asked and does nothing is asked again. Rewards and failures are those of `PaddedAgentEnv`;
    every agent's info says how a failed run ended: "error", "origin".
    """

    metadata: ClassVar[dict[str, Any]] = {"name": "raybolt", "render_modes": []}
    render_mode = None

    def __init__(self, env: PaddedAgentEnv) -> None:
        self.env = env
        self.possible_agents = list(env.possible_agents)
        self.agents: list[str] = []
        self._asked: frozenset[str] = frozenset()

    def reset(
        self, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, PaddedObservation], dict[str, dict[str, Any]]]:
        """Starts an episode on `options["task"]`, or on one drawn from the tasks.

        Other options are ignored, as the PettingZoo convention has it. Raises as `PaddedAgentEnv.reset`.
        """
        task = (options or {}).get("task")
        observations, infos = self.env.reset(seed=seed, options={"task": task})
        self.agents = list(self.possible_agents)
        asked = {} if self.env.end is not None else observations
        return self._to_all(asked), self._infos(infos)

    def step(self, actions: Mapping[str, Any]) -> ParallelStep:
        """Answers the agents that are asked, and goes on to the next calls or the end.

        Raises:
            RunOver: there is no episode, or it has ended.
            InvalidValue: as `PaddedAgentEnv.step`; no agent has this name.
        """
        if not self.agents:
            raise RunOver("there is no episode, or it has ended; call reset")
        if unknown := [agent for agent in actions if agent not in self.possible_agents]:
            raise InvalidValue(f"no agent is called {unknown[0]!r}; expected {', '.join(self.agents)}")
        asked = {agent: action for agent, action in actions.items() if agent in self._asked}
        observations, rewards, terminateds, truncateds, infos = self.env.step(asked)
        alive, ended = self.agents, self.env.end is not None
        result = (
            self._to_all({} if ended else observations),
            {agent: rewards.get(agent, 0.0) for agent in alive},
            dict.fromkeys(alive, terminateds["__all__"]),
            dict.fromkeys(alive, truncateds["__all__"]),
            self._infos(infos),
        )
        if ended:
            self.agents = []
        return result

    def close(self) -> None:
        """Ends a run that is going on; closing twice does nothing."""
        self.agents = []
        self.env.close()

    def render(self) -> None:
        """Nothing: a run is text; see `env.spans` of the padded environment."""

    def observation_space(self, agent: str) -> gym.Space[Any]:
        """The space of an agent's observations; always the same object."""
        return self.env.get_observation_space(agent)

    def action_space(self, agent: str) -> gym.Space[Any]:
        """The space of an agent's actions; always the same object."""
        return self.env.get_action_space(agent)

    def _to_all(self, observations: Mapping[str, PaddedObservation]) -> dict[str, PaddedObservation]:
        self._asked = frozenset(observations)
        padding = self.env.padding
        return {
            agent: observations[agent] if agent in observations else padding[agent].observation(None)
            for agent in self.agents
        }

    def _infos(self, infos: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        common = infos.get("__common__", {})
        return {agent: {**infos.get(agent, {}), **common} for agent in self.agents}

"""An agent's run as a multi-agent environment of fixed shapes and fixed agents.

It runs under RLlib's stock `MultiAgentEnvRunner`, which stacks observations and asks for the agents and their
spaces before the first episode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import gymnasium as gym
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from raybolt.env.agent_env import AgentEnv, Infos
from raybolt.env.chat import ChatMessage, Completion
from raybolt.env.errors import RunOver
from raybolt.env.policy import RunEnd
from raybolt.env.rewards import rewards_by_agent
from raybolt.env.roles import codec_of
from raybolt.env.spaces import PaddedTokens
from raybolt.env.trajectory import Trajectory
from raybolt.store.errors import InvalidValue
from raybolt.store.types import Span

PaddedObservation: TypeAlias = dict[str, Any]
"""See `PaddedTokens`."""
PaddedStep: TypeAlias = tuple[
    dict[str, PaddedObservation], dict[str, float], dict[str, bool], dict[str, bool], Infos
]


class PaddedAgentEnv(MultiAgentEnv):
    """`AgentEnv` with observations and actions of one shape, and with one agent per role, known beforehand.

    Calls that a role makes at the same time are shown one after another, and it is rewarded once for all of
    them. Observations and actions are those of `PaddedTokens`; an action may also be whatever `AgentEnv`
    takes.

    Every agent that acts gets a reward, 0.0 if none came. At the end every agent that took part is shown the
    empty observation. A failed run ends truncated, and `infos["__common__"]` has "error" and "origin": leave
    it out of learning, as its rewards mean nothing. A run that ends before its first call shows everybody the
    empty observation; whatever is done then, the next `step` reports its end. (RLlib's runner would otherwise
    reset for ever and never say why.)
    """

    def __init__(self, env: AgentEnv, possible_agents: Sequence[str], *, max_new_tokens: int = 64) -> None:
        """Pads `env`, whose agent makes calls in the roles `possible_agents` and no others.

        Prompts are padded to the length that the codec of the role takes.
        """
        super().__init__()
        self.env = env
        self.possible_agents = _distinct(possible_agents)
        self.agents = list(self.possible_agents)
        self.padding = {
            role: PaddedTokens(codec_of(env.codecs, role), max_new_tokens) for role in self.possible_agents
        }
        self.observation_spaces = {role: self.padding[role].observation_space() for role in self.agents}
        self.action_spaces = {role: self.padding[role].action_space() for role in self.agents}
        self._shown: dict[str, str] = {}  # role -> agent id of its oldest pending call
        self._took_part: list[str] = []
        self._acted: list[str] = []  # roles, the one that acted last at the end
        self._num_rewarded = 0  # spans already searched for rewards
        self._reported = True  # whether the end of the present run, or that there is none, is known

    @property
    def end(self) -> RunEnd | None:
        """How the episode's run ended; None before it has."""
        return self.env.end

    @property
    def spans(self) -> list[Span]:
        """The episode's finished spans, in order."""
        return self.env.spans

    @property
    def trajectory(self) -> Trajectory:
        """The episode so far."""
        return self.env.trajectory

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, PaddedObservation], Infos]:
        """Starts an episode; arguments are those of `AgentEnv.reset`.

        Raises:
            InvalidValue: there is no task; the agent made a call in a role that is none of `possible_agents`.
        """
        prompts, infos = self.env.reset(seed=seed, options=options)
        self._took_part, self._acted, self._num_rewarded = [], [], 0
        self._reported = False
        observations, infos = self._show(prompts, infos)
        if self.env.end is not None:
            self._took_part = list(self.possible_agents)
            observations = self._nothing_asked()
        return observations, infos

    def step(self, action_dict: Mapping[str, Any]) -> PaddedStep:
        """Answers agents that are shown, and goes on to the next calls or the end.

        Raises:
            RunOver: there is no episode, or it has ended.
            InvalidValue: as `reset`; an action is for an agent that is not asked, or is none. Nothing was
                answered then.
        """
        if self._reported:
            raise RunOver("there is no episode, or it has ended; call reset")
        prompts: Mapping[str, Any] = {}
        infos: Infos = {"__common__": self.env.end.to_metadata()} if self.env.end is not None else {}
        if self.env.end is None:
            prompts, _, _, _, infos = self.env.step(self._actions(action_dict))
            self._acted = [*(role for role in self._acted if role not in action_dict), *action_dict]
        observations, infos = self._show(prompts, infos)
        end = self.env.end
        self._reported = end is not None
        if end is not None:
            observations = self._nothing_asked()
        failed = end is not None and end.failed
        rewards = dict.fromkeys(action_dict, 0.0) | ({} if failed else self._new_rewards())
        return observations, rewards, {"__all__": end is not None and not failed}, {"__all__": failed}, infos

    def close(self) -> None:
        """Ends a run that is going on; closing twice does nothing."""
        self._reported = True
        self.env.close()

    def get_observation_space(self, agent_id: str) -> gym.Space[Any]:
        """The space of a role's observations; always the same object."""
        return self.observation_spaces[agent_id]

    def get_action_space(self, agent_id: str) -> gym.Space[Any]:
        """The space of a role's actions; always the same object."""
        return self.action_spaces[agent_id]

    def _actions(self, action_dict: Mapping[str, Any]) -> dict[str, Any]:
        """The actions by agent id of `env`, without padding."""
        for role in action_dict:
            if role not in self._shown:
                asked = ", ".join(self._shown) or "none"
                raise InvalidValue(f"agent {role!r} is not asked; those that are: {asked}")
        return {self._shown[role]: self.padding[role].reply(action) for role, action in action_dict.items()}

    def _new_rewards(self) -> dict[str, float]:
        """The rewards since the last step, by role; to `env` a role may be several agents."""
        assert self.env.recorder is not None
        new = self.env.recorder.spans_from(self._num_rewarded)
        self._num_rewarded += len(new)
        return rewards_by_agent(new, self._acted)

    def _nothing_asked(self) -> dict[str, PaddedObservation]:
        return {role: self.padding[role].observation(None) for role in self._took_part}

    def _show(
        self, prompts: Mapping[str, Any], infos: Infos
    ) -> tuple[dict[str, PaddedObservation], dict[str, Any]]:
        """Of each role the call that it made first, and what is said of all of them."""
        common = {key: info for key, info in infos.items() if key not in prompts}
        observations, shown_infos, self._shown = {}, {}, {}
        for agent_id in sorted(prompts, key=lambda agent_id: call_number(infos[agent_id])):
            role = infos[agent_id]["role"]
            if role not in self.padding:
                self.env.close()
                raise InvalidValue(
                    f"the agent made a call in the role {role!r}, but the environment was made for "
                    f"{', '.join(self.possible_agents)}; name all roles: possible_agents=[…, {role!r}]"
                )
            if role not in self._shown:
                self._shown[role] = agent_id
                observations[role] = self.padding[role].observation(prompts[agent_id])
                shown_infos[role] = infos[agent_id]
        self._took_part += [role for role in self._shown if role not in self._took_part]
        return observations, {**shown_infos, **common}


def roles_in_a_dry_run(env: AgentEnv) -> list[str]:
    """The roles in which the agent makes calls on the first of the environment's tasks, in their order.

    The agent really runs, its tools and own models included; every call of the policy is answered with "ok".
    Roles that it takes on after other replies only are not found.

    Raises:
        InvalidValue: there is no task, or no call.
    """
    if not env.tasks:
        raise InvalidValue("the roles are not known: give possible_agents=[…], or tasks=[…] for a dry run")
    roles: dict[str, None] = {}
    _, infos = env.reset(options={"task": env.tasks[0]})
    while env.end is None:
        roles.update((info["role"], None) for info in infos.values())
        ok = Completion(ChatMessage("assistant", "ok"))
        *_, infos = env.step(dict.fromkeys(infos, ok))
    if not roles:
        how = env.end.error or "it succeeded"
        raise InvalidValue(f"the dry run made no call of the policy ({how}); give possible_agents=[…]")
    return list(roles)


def _distinct(possible_agents: Sequence[str]) -> list[str]:
    roles = list(possible_agents)
    if isinstance(possible_agents, str) or not roles or len(set(roles)) < len(roles):
        raise InvalidValue(f"possible_agents is {possible_agents!r}; expected a list of distinct roles")
    return roles


def call_number(info: Mapping[str, Any]) -> int:
    """Place of the pending call behind an agent's info among the calls of its run."""
    return int(info["call_id"].rpartition("-")[2])

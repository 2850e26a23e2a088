"""An episode played to see whether an environment keeps its word: every step is checked as it comes.

The rules of single steps live here, those of whole episodes in `env.check`.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, TypeAlias

import numpy as np

from raybolt.env.agent_env import AgentEnv
from raybolt.env.chat import ChatRequest
from raybolt.env.roles import codec_of, role_of
from raybolt.env.stepper import Action
from raybolt.env.task import Task
from raybolt.store.errors import RayboltError

Reply: TypeAlias = Callable[[ChatRequest], Action]

_INFO_TYPES: Mapping[str, Any] = {
    "call_id": str,
    "role": str,
    "request": ChatRequest,
    "drift": str | None,
}
_NUM_RANDOM_TOKENS = 8


class EnvCheckFailed(RayboltError):
    """An environment or agent breaks a rule.

    Attributes:
        rule: its name, one of `env.check.RULES`.
        expected, seen: what the rule asks for, and what happened instead.
        remedy: where to look.
    """

    def __init__(self, rule: str, expected: str, seen: str, remedy: str) -> None:
        super().__init__(f"rule {rule!r} is broken: expected {expected}; seen: {seen}. {remedy}")
        self.rule = rule
        self.expected = expected
        self.seen = seen
        self.remedy = remedy

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.rule, self.expected, self.seen, self.remedy)


@dataclass(slots=True)
class Episode:
    """One episode of an environment, stepped and checked; `log` is what seeds must reproduce."""

    env: AgentEnv
    reply: Reply | None
    observations: dict[str, Any] = field(default_factory=dict)
    infos: dict[str, Any] = field(default_factory=dict)
    acted: set[str] = field(default_factory=set)
    rewards: list[float] = field(default_factory=list)
    log: list[tuple[str, Any]] = field(default_factory=list)
    calls_seen: set[str] = field(default_factory=set)

    @property
    def done(self) -> bool:
        return self.env.end is not None

    def begin(self, task: Task | None, seed: int) -> None:
        """Resets the environment, to the task or to one it draws."""
        options = {"task": task} if task is not None else None
        result = _unraised("reset", lambda: self.env.reset(seed=seed, options=options))
        if not (isinstance(result, tuple) and len(result) == 2 and all(isinstance(d, dict) for d in result)):
            raise EnvCheckFailed("reset", "(observations, infos), two dicts", _short(result), _SIGNATURE)
        self._see(*result)

    def step(self) -> None:
        """Answers everybody that is shown."""
        self.act({agent_id: self.action(agent_id) for agent_id in self.observations})

    def action(self, agent_id: str) -> Any:
        """The reply to what an agent is shown: the user's, or random tokens that follow from its call."""
        info = self.infos[agent_id]
        if self.reply is not None:
            return self.reply(info["request"])
        codec = codec_of(self.env.codecs, info["role"])
        rng = np.random.default_rng(int(info["call_id"].rpartition("-")[2]))
        plain = np.setdiff1d(np.arange(codec.vocab_size, dtype=np.int32), codec.stop_ids)
        ids = rng.choice(plain, size=_NUM_RANDOM_TOKENS).astype(np.int32)
        return np.concatenate([ids, np.array(codec.stop_ids[:1], dtype=np.int32)])

    def act(self, actions: Mapping[str, Any]) -> None:
        """Takes one step and checks all that comes back."""
        result = _unraised("step", lambda: self.env.step(actions))
        if not (isinstance(result, tuple) and len(result) == 5 and all(isinstance(d, dict) for d in result)):
            expected = "(observations, rewards, terminateds, truncateds, infos), five dicts"
            raise EnvCheckFailed("step", expected, _short(result), _SIGNATURE)
        observations, rewards, terminateds, truncateds, infos = result
        self.acted |= set(actions)
        self._check_flags(terminateds, truncateds)
        self._check_rewards(rewards, infos)
        self.log.append(("rewards", dict(rewards)))
        self.log.append(("ends", (dict(terminateds), dict(truncateds))))
        self._see(observations, infos)

    def finish(self) -> None:
        """Steps to the end, which must come within the run's limit of calls."""
        for _ in range(self.env.limits.max_calls + 1):
            if self.done:
                self.log.append(("spans", [(span.name, span.status) for span in self.env.spans]))
                return
            self.step()
        expected = f"an end after at most max_calls = {self.env.limits.max_calls} answers"
        raise EnvCheckFailed("ends", expected, "the run goes on", "Let `end` follow the run's own end.")

    def _see(self, observations: dict[str, Any], infos: dict[str, Any]) -> None:
        shown = {agent_id: info for agent_id, info in infos.items() if agent_id != "__common__"}
        if set(observations) != set(shown):
            raise EnvCheckFailed(
                "infos",
                f"an info for each of the agents that are shown ({_names(observations)}) and no others",
                f"infos of {_names(shown)}",
                "Give every pending call its info.",
            )
        if bool(observations) == self.done:
            raise EnvCheckFailed(
                "ends",
                "observations until the run's end, and none after it",
                f"{len(observations)} observations while `end` is {self.env.end}",
                "Wait for the next call or the end before a step returns.",
            )
        for agent_id, observation in observations.items():
            self._check_observation(agent_id, observation)
            self._check_info(agent_id, infos[agent_id])
        self._check_call_ids(shown)
        self.observations, self.infos = observations, infos
        self.log += [(f"observation of {a!r}", np.array(o)) for a, o in observations.items()]
        self.log += [(f"info of {a!r}", dict(info)) for a, info in infos.items()]

    def _check_observation(self, agent_id: str, observation: Any) -> None:
        space = self.env.get_observation_space(agent_id)
        for which in (self.env.get_observation_space, self.env.get_action_space):
            if which(agent_id) is not which(agent_id):
                raise EnvCheckFailed(
                    "spaces",
                    f"the same space object whenever {which.__name__}({agent_id!r}) is called",
                    "another one",
                    "Keep the spaces: what is drawn from one follows from its own seed.",
                )
        if observation not in space:
            raise EnvCheckFailed(
                "spaces",
                f"an observation of {agent_id!r} within {space}",
                _short(observation),
                "Correct the space or the observation; token ids are int32 arrays of one dimension.",
            )

    def _check_info(self, agent_id: str, info: Any) -> None:
        missing = object()
        wrong = [key for key, kind in _INFO_TYPES.items() if not isinstance(info.get(key, missing), kind)]
        if wrong:
            seen = f"{wrong[0]} is {_short(info.get(wrong[0], 'missing'))}"
            expected = f"call_id, role, request and drift in the info of {agent_id!r}"
            raise EnvCheckFailed("infos", expected, seen, "Give every pending call its info.")
        if not role_of(agent_id) == info["role"] == info["request"].role:
            raise EnvCheckFailed(
                "infos",
                "an agent id that is the call's role, or the role and a number (writer#1)",
                f"agent {agent_id!r}, role {info['role']!r}, request of {info['request'].role!r}",
                "Name agents by the role of their call.",
            )

    def _check_call_ids(self, shown: Mapping[str, Any]) -> None:
        before = {a: info["call_id"] for a, info in self.infos.items() if a != "__common__"}
        now = {a: info["call_id"] for a, info in shown.items()}
        new = [call_id for agent_id, call_id in now.items() if before.get(agent_id) != call_id]
        if len(set(now.values())) < len(now) or self.calls_seen & set(new):
            raise EnvCheckFailed(
                "infos",
                "a call id for every call, its own and never another's",
                f"{now} after {sorted(self.calls_seen)}",
                "Show each call under one id, from when it is made until it is answered.",
            )
        self.calls_seen |= set(now.values())

    def _check_flags(self, terminateds: Mapping[str, Any], truncateds: Mapping[str, Any]) -> None:
        ends = (terminateds.get("__all__"), truncateds.get("__all__"))
        end = self.env.end
        expected = (end is not None and not end.failed, end is not None and end.failed)
        if ends != expected or any(type(flag) is not bool for flag in ends):
            how = "while the run goes on" if end is None else f"when it has ended ({end.error or 'success'})"
            raise EnvCheckFailed(
                "ends",
                f"__all__ of terminateds and truncateds to be {expected} {how}",
                str(ends),
                "A success terminates, a failure truncates, and nothing does both.",
            )
        for name, flags in (("terminateds", terminateds), ("truncateds", truncateds)):
            early = [agent for agent, flag in flags.items() if flag and not flags["__all__"]]
            strangers = [agent for agent in flags if agent != "__all__" and agent not in self.acted]
            if early or strangers:
                raise EnvCheckFailed(
                    "ends",
                    "flags of agents that acted, set when all have ended",
                    f"{name} = {dict(flags)}, while {_names(self.acted)} acted",
                    "Agents end together, with the run.",
                )

    def _check_rewards(self, rewards: Mapping[str, Any], infos: Mapping[str, Any]) -> None:
        strangers = [agent for agent in rewards if agent not in self.acted]
        if strangers:
            raise EnvCheckFailed(
                "rewards",
                f"rewards for agents that acted ({_names(self.acted)})",
                f"one for {_names(strangers)}",
                "Reward agent ids, and only those that did something.",
            )
        for agent, reward in rewards.items():
            if not isinstance(reward, numbers.Real) or not isfinite(reward):
                seen = f"{_short(reward)} for {agent!r}"
                remedy = "See where the reward is made: the reward function, the agent's result, emit_reward."
                raise EnvCheckFailed("rewards", "finite numbers", seen, remedy)
            self.rewards.append(float(reward))
        end = self.env.end
        if end is None or not end.failed:
            return
        if rewards:
            remedy = "A failure is not a zero: leave it without a reward."
            raise EnvCheckFailed("rewards", "no reward for a run that failed", str(dict(rewards)), remedy)
        common = infos.get("__common__", {})
        if not common.get("error") or not common.get("origin"):
            expected = 'infos["__common__"] with "error" and "origin" after a failure'
            raise EnvCheckFailed("infos", expected, _short(common), "Say why the run failed.")


_SIGNATURE = "See AgentEnv's docstring for what the methods of a multi-agent environment return."


def _unraised(what: str, work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Exception as error:  # whatever a foreign environment raises, it breaks the rule
        seen = f"{type(error).__name__}: {error}"
        remedy = "What an agent does must not raise out of the environment: a failed run is data."
        raise EnvCheckFailed(what, "no exception", seen, remedy) from error


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _names(agents: Any) -> str:
    return ", ".join(map(repr, agents)) or "none"

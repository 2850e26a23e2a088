"""Environments with one planted fault each, for the conformance check to find."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium.spaces import Space
from scripted_runs import say

from raybolt.env.agent_env import AgentEnv
from raybolt.env.errors import RunOver
from raybolt.env.limits import RunLimits
from raybolt.env.spaces import Tokens
from raybolt.store import names
from raybolt.store.errors import InvalidValue


class ResetWithoutInfos(AgentEnv):
    def reset(self, **kwargs):
        return super().reset(**kwargs)[0]


class ResetRaises(AgentEnv):
    def reset(self, **kwargs):
        raise KeyError("task")


class StepRaises(AgentEnv):
    def step(self, action_dict):
        raise KeyError("writer")


class OldStep(AgentEnv):
    def step(self, action_dict):
        observations, rewards, terminateds, _, infos = super().step(action_dict)
        return observations, rewards, terminateds, infos


class WideTokens(AgentEnv):
    def reset(self, **kwargs):
        observations, infos = super().reset(**kwargs)
        return {agent: ids.astype(np.int64) for agent, ids in observations.items()}, infos


class FreshSpaces(AgentEnv):
    def get_observation_space(self, agent_id: str) -> Space[Any]:
        return Tokens(self.codec.vocab_size, self.codec.max_context)


class Changed(AgentEnv):
    """Changes what a step returns."""

    def step(self, action_dict):
        return self.changed(*super().step(action_dict))

    def changed(self, observations, rewards, terminateds, truncateds, infos):
        return observations, rewards, terminateds, truncateds, infos


class NoDrift(Changed):
    def changed(self, observations, rewards, terminateds, truncateds, infos):
        for info in infos.values():
            info.pop("drift", None)
        return observations, rewards, terminateds, truncateds, infos


class InfosMissing(Changed):
    def changed(self, observations, rewards, terminateds, truncateds, infos):
        return observations, rewards, terminateds, truncateds, {}


class AgentsWithoutRoles(AgentEnv):
    def reset(self, **kwargs):
        observations, infos = super().reset(**kwargs)
        return {f"agent-{a}": o for a, o in observations.items()}, {f"agent-{a}": i for a, i in infos.items()}


class OneCallId(Changed):
    def changed(self, observations, rewards, terminateds, truncateds, infos):
        infos = {agent: {**info, "call_id": "call-0"} for agent, info in infos.items()}
        return observations, rewards, terminateds, truncateds, infos


class InfiniteReward(Changed):
    def changed(self, observations, rewards, terminateds, truncateds, infos):
        return observations, {"writer": float("inf")}, terminateds, truncateds, infos


class TextReward(Changed):
    def changed(self, observations, rewards, terminateds, truncateds, infos):
        return observations, {"writer": "1"}, terminateds, truncateds, infos


class RewardForNobody(Changed):
    def changed(self, observations, rewards, terminateds, truncateds, infos):
        return observations, {"editor": 1.0}, terminateds, truncateds, infos


class BothEnds(Changed):
    def changed(self, observations, rewards, terminateds, truncateds, infos):
        return observations, rewards, terminateds, {**truncateds, "__all__": terminateds["__all__"]}, infos


class NoAll(Changed):
    def changed(self, observations, rewards, terminateds, truncateds, infos):
        return observations, rewards, {}, {}, infos


class EarlyFlag(Changed):
    def changed(self, observations, rewards, terminateds, truncateds, infos):
        return observations, rewards, {"writer": True, **terminateds}, truncateds, infos


class FlagForNobody(Changed):
    def changed(self, observations, rewards, terminateds, truncateds, infos):
        return observations, rewards, {"editor": terminateds["__all__"], **terminateds}, truncateds, infos


class LastObservationAgain(Changed):
    def changed(self, observations, rewards, terminateds, truncateds, infos):
        last, self.last = getattr(self, "last", None), (observations, infos)
        return (
            *(last if not observations else self.last)[:1],
            rewards,
            terminateds,
            truncateds,
            (last if not observations else self.last)[1],
        )


class MoreCallsThanAllowed(AgentEnv):
    async def areset(self, *args, **kwargs):
        self.limits = RunLimits(max_calls=8)
        result = await super().areset(*args, **kwargs)
        self.limits = RunLimits(max_calls=1)
        return result


class AnswersForThem(AgentEnv):
    def step(self, action_dict):
        result = super().step(action_dict or dict.fromkeys(self.agents, say("something")))
        return result if action_dict else (result[0], {}, *result[2:])


class EncodesAnew(Changed):
    def changed(self, observations, rewards, terminateds, truncateds, infos):
        number = self.number = getattr(self, "number", 0) + 1
        return (
            {agent: np.append(ids, np.int32(number % 2)) for agent, ids in observations.items()},
            rewards, terminateds, truncateds, infos,
        )  # fmt: skip


class AnswersAllIfOne(AgentEnv):
    def step(self, action_dict):
        rest = dict.fromkeys(self.agents, say("something")) if action_dict else {}
        observations, rewards, terminateds, truncateds, infos = super().step({**rest, **action_dict})
        own = {agent: reward for agent, reward in rewards.items() if agent in action_dict}
        return observations, own, {"__all__": terminateds["__all__"]}, truncateds, infos


class IgnoresStrangers(AgentEnv):
    def step(self, action_dict):
        return super().step(
            {a: action for a, action in action_dict.items() if a in self.agents or not self.agents}
        )


class KeyErrorForStrangers(AgentEnv):
    def step(self, action_dict):
        for agent in action_dict:
            if self.end is None and agent not in self.agents:
                raise KeyError(agent)
        return super().step(action_dict)


class AnswersBeforeItChecks(AgentEnv):
    def step(self, action_dict):
        known = {agent: action for agent, action in action_dict.items() if agent in self.agents}
        result = super().step(known)
        if len(known) < len(action_dict) and self.end is None:
            raise InvalidValue("somebody is unknown")
        return result


class TakesText(AgentEnv):
    def step(self, action_dict):
        as_said = {a: say(act) if isinstance(act, str) else act for a, act in action_dict.items()}
        return super().step(as_said)


class AnswersOneByOne(AgentEnv):
    def step(self, action_dict):
        if len(action_dict) < 2 or set(action_dict) - set(self.agents):
            return super().step(action_dict)
        for agent, action in action_dict.items():
            result = super().step({agent: action})
        return result


class StepsOn(AgentEnv):
    def step(self, action_dict):
        if self.end is not None:
            return {}, {}, {"__all__": True}, {"__all__": False}, {}
        return super().step(action_dict)


class WrongErrorAfterTheEnd(AgentEnv):
    def step(self, action_dict):
        try:
            return super().step(action_dict)
        except RunOver as error:
            raise ValueError("over") from error


class ClosesOnce(AgentEnv):
    is_closed = False

    def reset(self, **kwargs):
        self.is_closed = False
        return super().reset(**kwargs)

    def close(self):
        if self.is_closed:
            self.is_closed = False
            raise RuntimeError("closed already")
        self.is_closed = True
        super().close()


class ClosesNothing(AgentEnv):
    def close(self):
        pass


class SpansWithoutCalls(AgentEnv):
    @property
    def spans(self):
        return [span for span in super().spans if names.CALL_ID not in span.attributes]


class SpansOutOfTime(AgentEnv):
    @property
    def spans(self):
        return [replace(span, end_time=span.start_time - 1.0) for span in super().spans]


class SilentFailure(Changed):
    def changed(self, observations, rewards, terminateds, truncateds, infos):
        return observations, rewards, terminateds, truncateds, {}


class RewardedFailure(Changed):
    def changed(self, observations, rewards, terminateds, truncateds, infos):
        return observations, {"writer": 1.0}, terminateds, truncateds, infos


class TerminatedFailure(Changed):
    def changed(self, observations, rewards, terminateds, truncateds, infos):
        return observations, rewards, truncateds, terminateds, infos

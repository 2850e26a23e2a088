"""An agent's run as a single-agent Gymnasium environment."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import gymnasium as gym

from raybolt.env.agent_env import AgentEnv, Infos
from raybolt.env.background import wait_for
from raybolt.env.chat import ChatRequest, Completion, TokenIds
from raybolt.env.errors import RunOver
from raybolt.env.executor import run_in_thread
from raybolt.env.padded_env import call_number
from raybolt.env.policy import RunEnd
from raybolt.env.roles import codec_of
from raybolt.env.spaces import PaddedTokens
from raybolt.env.trajectory import Trajectory
from raybolt.store import names
from raybolt.store.errors import InvalidValue

Others: TypeAlias = Callable[[ChatRequest], Completion | Awaitable[Completion]]
"""Answers the calls that are no decisions; a plain function runs in a thread and may block."""


class GymView(gym.Env[dict[str, Any], Any]):
    """`AgentEnv` with one decision at a time, in arrays of one shape: see `PaddedTokens`.

    Every call of the agent is a step, or, with `role`, those of the roles that match it. Calls made at the
    same time are shown one after another, in the order in which they were made. The reward of a step is the
    sum of all that the run was rewarded since the last one.

    A run that fails ends truncated, with reward 0.0 and "error" and "origin" in the info: leave it out of
    learning, as it has no reward. A run that ends before its first decision shows the empty observation
    ("length" 0); whatever is done then, the next `step` reports the end.
    """

    metadata = {"render_modes": []}  # noqa: RUF012  # Gymnasium declares it so

    def __init__(
        self,
        env: AgentEnv,
        *,
        role: str | None = None,
        others: Others | None = None,
        max_new_tokens: int = 64,
    ) -> None:
        """A view of `env`; prompts are padded to the length that the codec of all roles, or of `role`, takes.

        `role` is a role or a pattern ("critic*"); `others` answers the calls of all other roles.
        """
        self.env = env
        self.role = role
        self.padding = PaddedTokens(codec_of(env.codecs, role) if role else env.codec, max_new_tokens)
        self.observation_space = self.padding.observation_space()
        self.action_space = self.padding.action_space()
        self._others = others
        self._agent_id: str | None = None
        """Whose call is to be answered next; None if nobody's is."""
        self._num_seen = 0  # spans already searched for rewards
        self._reported = True  # whether the end of the present run, or that there is none, is known

    @property
    def end(self) -> RunEnd | None:
        """How the episode's run ended; None before it has."""
        return self.env.end

    @property
    def trajectory(self) -> Trajectory:
        """The episode so far."""
        return self.env.trajectory

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode; options are those of `AgentEnv.reset`.

        Raises:
            InvalidValue: there is no task; a call of another role came and nothing answers it.
        """
        super().reset(seed=seed)
        # The run's own seed is drawn, so that unseeded resets after a seeded one can be repeated, too.
        run_seed = int(self.np_random.integers(2**31))
        self._num_seen, self._reported = 0, False
        observation = wait_for(self._begin(run_seed, options or {}))
        return observation, self._info()

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Answers the call that is shown, and goes on to the next one or the end.

        Raises:
            RunOver: there is no episode, or it has ended.
            InvalidValue: the action is none (nothing was answered then), or as `reset`.
        """
        if self._reported:
            raise RunOver("there is no episode, or it has ended; call reset")
        observation = wait_for(self._answer(action))
        end = self.env.end
        self._reported = end is not None
        failed = end is not None and end.failed
        reward = 0.0 if failed else self._new_reward()
        return observation, reward, end is not None and not failed, failed, self._info()

    def close(self) -> None:
        """Ends a run that is going on; closing twice does nothing."""
        self._reported = True
        self.env.close()

    async def _begin(self, seed: int, options: Mapping[str, Any]) -> dict[str, Any]:
        return await self._decision(*await self.env.areset(seed=seed, **options))

    async def _answer(self, action: Any) -> dict[str, Any]:
        if self.env.end is not None:
            return self.padding.observation(None)
        assert self._agent_id is not None
        prompts, _, _, _, infos = await self.env.astep({self._agent_id: self.padding.reply(action)})
        return await self._decision(prompts, infos)

    async def _decision(self, prompts: Mapping[str, TokenIds], infos: Infos) -> dict[str, Any]:
        """The next call to be decided on, once all that are others' have been answered."""
        self._agent_id, self._call_info = None, {}
        while self.env.end is None:
            foreign = [agent_id for agent_id in prompts if not self._decides(infos[agent_id]["role"])]
            if not foreign:
                self._agent_id = min(prompts, key=lambda agent_id: call_number(infos[agent_id]))
                self._call_info = infos[self._agent_id]
                return self.padding.observation(prompts[self._agent_id])
            answers = await self._ask_others({agent_id: infos[agent_id] for agent_id in foreign})
            prompts, _, _, _, infos = await self.env.astep(answers)
        return self.padding.observation(None)

    def _decides(self, role: str) -> bool:
        return self.role is None or fnmatchcase(role, self.role)

    async def _ask_others(self, infos: Infos) -> dict[str, Completion]:
        """Their answers; the run fails where they raise."""
        if self._others is None:
            await self.env.aclose()
            role = next(iter(infos.values()))["role"]
            raise InvalidValue(
                f"the agent made a call in the role {role!r}, which is no decision of "
                f"gym_env(role={self.role!r}), and has no model of its own to answer it: give "
                "others=(a function of ChatRequest that returns a Completion), or wrap(…, frozen=llm)"
            )
        asked = (_ask(self._others, info["request"]) for info in infos.values())
        answers = await asyncio.gather(*asked, return_exceptions=True)
        given: dict[str, Completion] = {}
        for agent_id, answer in zip(infos, answers, strict=True):
            if isinstance(answer, Exception):
                self.env.fail(agent_id, answer)
            elif isinstance(answer, BaseException):
                raise answer
            elif not isinstance(answer, Completion):
                await self.env.aclose()
                raise InvalidValue(f"others(request) returned {answer!r:.100}; expected a Completion")
            else:
                given[agent_id] = answer
        return given

    def _new_reward(self) -> float:
        assert self.env.recorder is not None
        new = self.env.recorder.spans_from(self._num_seen)
        self._num_seen += len(new)
        return float(sum(span.attributes.get(names.REWARD, 0.0) for span in new))

    def _info(self) -> dict[str, Any]:
        return dict(self._call_info) if self.env.end is None else self.env.end.to_metadata()


async def _ask(others: Others, request: ChatRequest) -> Completion:
    if inspect.iscoroutinefunction(others):
        return await others(request)
    answer = await run_in_thread(others, request)
    return await answer if inspect.isawaitable(answer) else answer

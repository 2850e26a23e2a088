"""What `raybolt.wrap` returns: an agent with all that is needed to step, train, ship or just run it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import cloudpickle

from raybolt.adapters.base import Adapter, Inputs, UnsupportedAgent, describe
from raybolt.env.limits import RunLimits
from raybolt.env.policy import AgentProgram, PolicyPort
from raybolt.env.run import RewardFunction
from raybolt.env.selection import Trainable
from raybolt.env.task import Task

if TYPE_CHECKING:
    from raybolt.env.agent_env import AgentEnv
    from raybolt.env.gym_view import GymView, Others
    from raybolt.env.padded_env import PaddedAgentEnv
    from raybolt.env.parallel_view import ParallelView


@dataclass(frozen=True, eq=False)
class WrappedAgent:
    """An agent of any framework, as raybolt sees it. Made by `wrap`.

    It is an environment creator for RLlib (`env_config -> AgentEnv`). Pickled with cloudpickle it goes to
    other processes, if what was wrapped can: a factory or a function can, most built agents cannot.
    """

    agent: Any
    adapter: Adapter
    name: str
    reward: RewardFunction | None = None
    limits: RunLimits = field(default_factory=RunLimits)
    inputs: Inputs | None = None
    trainable: Trainable = None
    frozen: Any = None

    def program(self) -> AgentProgram:
        """The agent as `AgentRun` and `AgentEnv` run it: on a task, with a policy."""
        return _Program(self.name, self.adapter, self.agent, self.inputs, self.frozen)

    @overload
    def env(self, model: str = ..., *, padded: Literal[True], **options: Any) -> PaddedAgentEnv: ...
    @overload
    def env(self, model: str = ..., *, padded: Literal[False] = ..., **options: Any) -> AgentEnv: ...
    def env(self, model: str = "tiny", *, padded: bool = False, **options: Any) -> AgentEnv | PaddedAgentEnv:
        """The RLlib multi-agent environment of this agent, its observations in the tokens of `model`.

        Only the model's tokenizer is loaded. `options` are `AgentEnv`'s, over the agent's own `limits`,
        `reward` and `trainable`. With `padded` its shapes are fixed, as RLlib's stock runner needs it, and
        the options of `parallel_env` count, too.
        """
        from raybolt.env.agent_env import AgentEnv
        from raybolt.env.codec import codec_for
        from raybolt.env.views import padded_env

        if padded:
            return padded_env(self, model, **options)
        if "codec" not in options:
            options["codec"] = codec_for(model)
        own = {"limits": self.limits, "reward": self.reward, "trainable": self.trainable}
        return AgentEnv(self.program(), **{**own, **options})

    def gym_env(
        self,
        role: str | None = None,
        *,
        model: str = "tiny",
        others: Others | None = None,
        max_tokens: int | None = None,
        max_new_tokens: int = 64,
        **options: Any,
    ) -> GymView:
        """The single-agent Gymnasium environment of this agent.

        Every LLM call is a step, or, with `role`, only the calls of the roles that match it. The others are
        then answered by `others`, a function of `ChatRequest` that returns a `Completion`, plain or async; or
        by the agent's own or frozen model. `max_tokens` and `max_new_tokens` are the lengths that prompts
        and replies are padded to, the first by default what the model takes. `options` are `AgentEnv`'s.
        """
        from raybolt.env.views import gym_view

        return gym_view(self, model, role, others, max_tokens, max_new_tokens, **options)

    def parallel_env(
        self,
        possible_agents: Sequence[str] | None = None,
        *,
        model: str = "tiny",
        max_tokens: int | None = None,
        max_new_tokens: int = 64,
        **options: Any,
    ) -> ParallelView:
        """The PettingZoo parallel environment of this agent (`pip install 'raybolt[pettingzoo]'`).

        `possible_agents` names the roles; without it, a dry run on the first of `tasks` finds them. For the
        other options see `gym_env`.
        """
        from raybolt.env.views import padded_env, parallel_view

        env = padded_env(
            self,
            model,
            possible_agents=possible_agents,
            max_tokens=max_tokens,
            max_new_tokens=max_new_tokens,
            **options,
        )
        return parallel_view(env)

    def __call__(self, env_config: Mapping[str, Any] | None = None) -> AgentEnv | PaddedAgentEnv:
        """The environment, for `register_env`; the configuration's keys are those of `env`."""
        return self.env(**(env_config or {}))

    async def arun(self, task: Task, llm: Any = None) -> Any:
        """The agent's result on a task with an LLM of your own, without training and without recording.

        `llm` is what a factory `build(llm)` is given, in the framework's own type; agents that bring their
        own client need none.
        """
        return await self.adapter.run(self.adapter.build(self.agent, llm), task, self.inputs)

    def run(self, task: Task, llm: Any = None) -> Any:
        """`arun` for code that is not async."""
        return asyncio.run(self.arun(task, llm))

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            agent = cloudpickle.dumps(self.agent)
        except Exception as error:  # whatever the objects inside a foreign agent raise
            raise UnsupportedAgent(
                f"{describe(self.agent)} cannot be sent to another process "
                f"({type(error).__name__}: {error}); pass a factory instead: wrap(build) with "
                "def build(llm): …, so that each process makes its own"
            ) from error
        rest = cloudpickle.dumps(
            (
                self.adapter,
                self.name,
                self.reward,
                self.limits,
                self.inputs,
                self.trainable,
                self.frozen,
            )
        )
        return _rebuilt, (agent, rest, tuple(sys.path))


def _rebuilt(agent: bytes, rest: bytes, search_path: tuple[str, ...]) -> WrappedAgent:
    # Whatever the sender could import (the script's folder, an editable checkout), the receiver must, too.
    sys.path.extend(folder for folder in search_path if folder not in sys.path and Path(folder).is_dir())
    return WrappedAgent(cloudpickle.loads(agent), *cloudpickle.loads(rest))


@dataclass(frozen=True)
class _Program:
    name: str
    adapter: Adapter
    agent: Any
    inputs: Inputs | None
    frozen: Any

    async def run(self, task: Task, policy: PolicyPort) -> Any:
        with self.adapter.bind(self.agent, policy, role=self.name, frozen=self.frozen) as bound:
            return await self.adapter.run(bound, task, self.inputs)

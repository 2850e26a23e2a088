"""What `raybolt.wrap` returns: an agent with all that is needed to step, train, ship or just run it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle

from raybolt.adapters.base import Adapter, Inputs, UnsupportedAgent, describe
from raybolt.env.limits import RunLimits
from raybolt.env.policy import AgentProgram, PolicyPort
from raybolt.env.run import RewardFunction
from raybolt.env.selection import Trainable
from raybolt.env.task import Task

if TYPE_CHECKING:
    from raybolt.env.agent_env import AgentEnv


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

    def env(self, model: str = "tiny", **options: Any) -> AgentEnv:
        """The RLlib multi-agent environment of this agent, its observations in the tokens of `model`.

        Only the model's tokenizer is loaded. `options` are `AgentEnv`'s, over the agent's own `limits`,
        `reward` and `trainable`.
        """
        from raybolt.env.agent_env import AgentEnv
        from raybolt.env.codec import codec_for

        own = {"limits": self.limits, "reward": self.reward, "trainable": self.trainable}
        return AgentEnv(self.program(), codec=codec_for(model), **{**own, **options})

    def __call__(self, env_config: Mapping[str, Any] | None = None) -> AgentEnv:
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

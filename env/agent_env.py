"""An agent's run as RLlib's multi-agent environment.

Agent ids are roles; a second call of a role that is pending at the same time is `role#1`. An observation is
the prompt as token ids, an action the reply: token ids, `Sampled` or a `Completion`. The agents of an
observation are those whose calls are pending; one that gets no action stays pending and is shown again.

    env = agent.env(model="tiny")
    obs, infos = env.reset(options={"task": task})
    while env.end is None:
        obs, rewards, terminateds, truncateds, infos = env.step({agent: policy(obs[agent]) for agent in obs})

`areset` and `astep` are the same for asynchronous code; many environments then share one event loop.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from ray.rllib.env.multi_agent_env import MultiAgentEnv

from raybolt.env.background import wait_for
from raybolt.env.chat import TokenIds
from raybolt.env.codec import ChatCodec
from raybolt.env.errors import RunOver
from raybolt.env.limits import RunLimits
from raybolt.env.policy import AgentProgram, Origin, RunEnd
from raybolt.env.recorder import SpanRecorder
from raybolt.env.rewards import rewards_by_agent
from raybolt.env.roles import Codecs, codec_of, free_agent_id, role_of
from raybolt.env.run import AgentRun, RewardFunction
from raybolt.env.selection import Trainable
from raybolt.env.spaces import Tokens
from raybolt.env.stepper import Action, Prompt, RunStepper
from raybolt.env.task import Task
from raybolt.env.trajectory import Trajectory
from raybolt.store.errors import InvalidValue
from raybolt.store.types import Span

Observations: TypeAlias = dict[str, TokenIds]
Infos: TypeAlias = dict[str, dict[str, Any]]
StepResult: TypeAlias = tuple[Observations, dict[str, float], dict[str, bool], dict[str, bool], Infos]


class AgentEnv(MultiAgentEnv):
    """One agent as an environment; each episode is a run of it on a task.

    Rewards: one emitted inside the run goes to the agent id that acted last before it; the final one goes to
    each agent id that acted, as a team's reward does.

    A run that fails ends its episode as truncated, without a reward; `infos["__common__"]` holds "error" and
    "origin", and so does an episode whose run ends before its first call. The calls of the agent that wait
    when a new episode begins are aborted.
    """

    def __init__(
        self,
        program: AgentProgram,
        *,
        codec: Codecs,
        reward: RewardFunction | None = None,
        limits: RunLimits | None = None,
        tasks: Sequence[Task] = (),
        trainable: Trainable = None,
    ) -> None:
        """An environment without an episode; `tasks` are drawn from when `reset` is given none.

        `codec` may be a function of the role, where roles have models of their own. Calls that are not
        `trainable` are no steps, where the agent has a model of its own to answer them.
        """
        super().__init__()
        self.program = program
        self.codecs = codec
        self._spaces: dict[ChatCodec, Tokens] = {}
        self.reward = reward
        self.limits = limits or RunLimits()
        self.tasks = tasks
        self.trainable = trainable
        self.agents: list[str] = []
        self.possible_agents: list[str] = []
        self.recorder: SpanRecorder | None = None
        self._stepper: RunStepper | None = None
        self._group_id: str | None = None
        self._pending: dict[str, str] = {}  # agent id -> call id
        self._acted: list[str] = []  # agent ids, the one that acted last at the end
        self._num_rewarded = 0  # spans already searched for rewards

    @property
    def codec(self) -> ChatCodec:
        """The codec of all roles.

        Raises:
            InvalidValue: roles have codecs of their own.
        """
        if not isinstance(self.codecs, ChatCodec):
            raise InvalidValue("the roles have codecs of their own: ask env.codecs(role) for one of them")
        return self.codecs

    @property
    def space(self) -> Tokens:
        """What all roles see and do. Raises as `codec`; then ask for the space of an agent."""
        return self._space_of(self.codec)

    # What an episode left

    @property
    def end(self) -> RunEnd | None:
        """How the episode's run ended; None before it has."""
        return self._stepper.run.end if self._stepper is not None else None

    @property
    def spans(self) -> list[Span]:
        """The episode's finished spans, in order."""
        return self.recorder.spans if self.recorder is not None else []

    @property
    def trajectory(self) -> Trajectory:
        """The episode so far."""
        return replace(self._running().run.trajectory, group_id=self._group_id)

    # Synchronous

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observations, Infos]:
        """Starts an episode on `options["task"]`; other options are those of `areset`."""
        return wait_for(self.areset(seed=seed, **(options or {})))

    def step(self, action_dict: Mapping[str, Action]) -> StepResult:
        """Answers pending agents. See `astep`."""
        return wait_for(self.astep(action_dict))

    def close(self) -> None:
        """Ends a run that is going on; closing twice does nothing."""
        wait_for(self.aclose())

    # Asynchronous

    async def areset(
        self,
        task: Task | Mapping[str, Any] | None = None,
        *,
        rollout_id: str | None = None,
        attempt_id: str | None = None,
        group_id: str | None = None,
        seed: int | None = None,
    ) -> tuple[Observations, Infos]:
        """Starts an episode: the first observations and infos, both empty if the run ends at once.

        Without a task one is drawn from `tasks`, reproducibly from the seed. Ids are made up unless given.

        Raises:
            InvalidValue: there is no task.
        """
        await self.aclose()
        super().reset(seed=seed)
        task = self._task(task)
        self.recorder = SpanRecorder(rollout_id or f"ro-{uuid.uuid4().hex}", attempt_id or "at-1")
        run = AgentRun(
            self.program,
            task,
            recorder=self.recorder,
            limits=self.limits,
            reward=self.reward,
            trainable=self.trainable,
        )
        self._stepper = RunStepper(run, self.codecs)
        self._group_id = group_id
        self._pending, self._acted, self._num_rewarded = {}, [], 0
        return await self._observe(self._stepper)

    async def astep(self, actions: Mapping[str, Action]) -> StepResult:
        """Answers pending agents and goes on to the next pending calls or the end.

        Returns observations, rewards, terminateds, truncateds and infos. `infos[agent_id]` has `call_id`,
        `role`, `request` and `drift`. While an agent without an action stays pending, this does not wait for
        what the others do next.

        Raises:
            RunOver: there is no episode, or it has ended.
            InvalidValue: an action is for no pending agent, or is none. Nothing was answered then.
        """
        stepper = self._running()
        if stepper.run.end is not None:
            raise RunOver("the episode has ended; call reset")
        for agent_id in actions:
            if agent_id not in self._pending:
                pending = ", ".join(self._pending)
                raise InvalidValue(f"no call of agent {agent_id!r} is pending; pending: {pending}")
        stepper.act({self._pending[agent_id]: action for agent_id, action in actions.items()})
        for agent_id in actions:
            del self._pending[agent_id]
            self._acted = [*(other for other in self._acted if other != agent_id), agent_id]
        if self._pending:
            await asyncio.sleep(0)  # let the answered ones go on
        observations, infos = await self._observe(stepper)
        end = stepper.run.end
        failed = end is not None and end.failed
        succeeded = end is not None and not failed
        rewards = {} if failed else self._new_rewards()
        return observations, rewards, self._flags(succeeded), self._flags(failed), infos

    def fail(self, agent_id: str, error: BaseException, origin: Origin = "engine") -> None:
        """Says that a pending agent cannot be answered: its run fails, as the next `astep` will report.

        Raises:
            RunOver: there is no episode.
            InvalidValue: no call of this agent is pending.
        """
        run = self._running().run
        if agent_id not in self._pending:
            raise InvalidValue(
                f"no call of agent {agent_id!r} is pending; pending: {', '.join(self._pending)}"
            )
        run.fail(self._pending.pop(agent_id), error, origin)

    async def aclose(self) -> None:
        """Ends a run that is going on; closing twice does nothing."""
        if self._stepper is not None and self._stepper.run.end is None:
            await self._stepper.run.abort("the environment was closed or reset")

    # RLlib's spaces: roles are not known beforehand, and all of them see and do the same

    def get_observation_space(self, agent_id: str) -> Tokens:
        """Prompts: token ids, as many as the role's model takes."""
        return self._space_of(codec_of(self.codecs, role_of(agent_id)))

    def get_action_space(self, agent_id: str) -> Tokens:
        """Replies: token ids, as many as the role's model takes."""
        return self._space_of(codec_of(self.codecs, role_of(agent_id)))

    def _space_of(self, codec: ChatCodec) -> Tokens:
        # Always the same object, so that what is drawn from it follows from its seed.
        return self._spaces.setdefault(codec, Tokens(codec.vocab_size, codec.max_context))

    def _running(self) -> RunStepper:
        if self._stepper is None:
            raise RunOver("there is no episode yet; call reset")
        return self._stepper

    def _task(self, task: Task | Mapping[str, Any] | None) -> Task:
        if isinstance(task, Task):
            return task
        if task is not None:
            return Task.from_dict(task)
        if not self.tasks:
            raise InvalidValue('there is no task; reset(options={"task": task}), or give the env tasks')
        return self.tasks[int(self.np_random.integers(len(self.tasks)))]

    async def _observe(self, stepper: RunStepper) -> tuple[Observations, Infos]:
        prompts = await stepper.next()
        if isinstance(prompts, RunEnd):
            self._pending, self.agents = {}, []
            return {}, {"__common__": prompts.to_metadata()} if prompts.failed else {}
        agent_of_call = {call_id: agent_id for agent_id, call_id in self._pending.items()}
        shown: dict[str, Prompt] = {}
        for prompt in prompts:
            call = prompt.call
            agent_id = agent_of_call.get(call.call_id) or free_agent_id(call.role, self._pending)
            self._pending[agent_id] = call.call_id
            shown[agent_id] = prompt
        self._pending = {agent_id: prompt.call.call_id for agent_id, prompt in shown.items()}
        self.agents = list(shown)
        self.possible_agents += [agent_id for agent_id in shown if agent_id not in self.possible_agents]
        return {agent_id: prompt.prompt_ids for agent_id, prompt in shown.items()}, {
            agent_id: _info(prompt) for agent_id, prompt in shown.items()
        }

    def _new_rewards(self) -> dict[str, float]:
        """The rewards since the last step, by agent id."""
        assert self.recorder is not None
        new = self.recorder.spans_from(self._num_rewarded)
        self._num_rewarded += len(new)
        return rewards_by_agent(new, self._acted)

    def _flags(self, value: bool) -> dict[str, bool]:
        return {**dict.fromkeys(self._acted if value else (), True), "__all__": value}


def _info(prompt: Prompt) -> dict[str, Any]:
    call = prompt.call
    return {"call_id": call.call_id, "role": call.role, "request": call.request, "drift": prompt.drift}

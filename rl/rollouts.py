"""Runs queued rollouts, many at once, and reports each to the store.

Coroutines live here and not on the env runner: Ray turns an actor with any `async def` method into an async
actor, on which RLlib's calls would overlap.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from raybolt.env.agent_env import AgentEnv
from raybolt.env.policy import Sampled
from raybolt.env.recorded import summary_of, task_of
from raybolt.env.report import report
from raybolt.rl.engines.base import Engine, GenerateRequest
from raybolt.rl.errors import ContextOverflow, EngineError
from raybolt.store import LightningStore
from raybolt.store.types import AttemptedRollout

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the policy's replies are sampled; handed to rollouts as a resource of the store."""

    temperature: float
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class Speaker:
    """A policy as rollouts need it.

    Attributes:
        engine: generates its replies; it batches what is asked for at the same time.
        stop_ids: tokens that end a reply.
        policy: its id in spans; None where one policy answers all roles.
    """

    engine: Engine
    stop_ids: tuple[int, ...]
    policy: str | None = None


class RolloutCrew:
    """Takes rollouts from the store, runs up to `concurrency` of them at once, and ends when none is left.

    Args:
        make_env: a fresh environment for each run of the agent.
        store: where rollouts come from and spans go to.
        speaker_of: who answers the calls of a role.
        worker_id: who the store's attempts say ran them.
    """

    def __init__(
        self,
        *,
        make_env: Callable[[], AgentEnv],
        store: LightningStore,
        speaker_of: Callable[[str], Speaker],
        concurrency: int,
        worker_id: str,
    ) -> None:
        self._make_env = make_env
        self._store = store
        self._speaker_of = speaker_of
        self._concurrency = concurrency
        self._worker_id = worker_id
        self._sampling: dict[str, SamplingParams] = {}
        self.num_finished = 0
        self.num_calls = 0

    async def drain(self) -> None:
        """Runs rollouts until the queue is empty and everything taken from it has ended."""
        running: set[asyncio.Task[None]] = set()
        try:
            while True:
                running |= {asyncio.create_task(self._run(taken)) for taken in await self._take(len(running))}
                if not running:
                    return
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _take(self, num_running: int) -> list[AttemptedRollout]:
        free = self._concurrency - num_running
        return await self._store.dequeue_many_rollouts(free, worker_id=self._worker_id) if free else []

    async def _run(self, rollout: AttemptedRollout) -> None:
        sampling = await self._sampling_params(rollout.resources_id)
        env = self._make_env()
        try:
            await self._play(env, rollout, sampling)
            summary = summary_of(env.trajectory)
        # Agents' errors do not come this far: this is a bug of ours, and its rollout's alone. Raised, it
        # would end the process and every rollout in it.
        except Exception as error:
            log.exception("Rollout %s broke", rollout.rollout_id)
            summary = {"error": f"{type(error).__name__}: {error}", "origin": "raybolt"}
        finally:
            await env.aclose()
        await report(self._store, rollout.rollout_id, rollout.attempt.attempt_id, env.spans, summary)
        self.num_finished += 1

    async def _play(self, env: AgentEnv, rollout: AttemptedRollout, sampling: SamplingParams) -> None:
        attempt = rollout.attempt
        seed = int(rollout.metadata.get("seed", 0))
        observations, infos = await env.areset(
            task_of(rollout),
            rollout_id=rollout.rollout_id,
            attempt_id=attempt.attempt_id,
            group_id=rollout.group_id,
        )
        num_calls = 0
        while observations:
            replies = [
                self._reply(
                    self._speaker_of(infos[agent_id]["role"]),
                    prompt_ids,
                    sampling,
                    seeds=(seed, attempt.sequence_id, num_calls + index),
                )
                for index, (agent_id, prompt_ids) in enumerate(observations.items())
            ]
            num_calls += len(replies)
            actions: dict[str, Sampled] = {}
            answers = await asyncio.gather(*replies, return_exceptions=True)
            for agent_id, answer in zip(observations, answers, strict=True):
                if isinstance(answer, Sampled):
                    actions[agent_id] = answer
                elif isinstance(answer, ContextOverflow):
                    env.fail(agent_id, answer, "limit")
                elif isinstance(answer, EngineError):
                    env.fail(agent_id, answer, "engine")
                else:
                    raise answer
            observations, *_, infos = await env.astep(actions)
        self.num_calls += num_calls

    async def _reply(
        self,
        speaker: Speaker,
        prompt_ids: np.ndarray,
        sampling: SamplingParams,
        seeds: tuple[int, int, int],
    ) -> Sampled:
        request = GenerateRequest(
            prompt_ids=prompt_ids,
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            seed=int(np.random.SeedSequence(seeds).generate_state(1)[0]),
            stop_ids=speaker.stop_ids,
        )
        generation = await speaker.engine.generate(request)
        return Sampled(
            response_ids=generation.response_ids,
            logprobs=generation.logprobs,
            weights_version=generation.weights_version,
            temperature=sampling.temperature,
            policy=speaker.policy,
        )

    async def _sampling_params(self, resources_id: str | None) -> SamplingParams:
        assert resources_id is not None, "the trainer gives every rollout its resources"
        if resources_id not in self._sampling:
            update = await self._store.get_resources_by_id(resources_id)
            assert update is not None, resources_id
            self._sampling[resources_id] = SamplingParams(**update.resources["sampling"])
        return self._sampling[resources_id]

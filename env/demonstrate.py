"""Demonstrations: a teacher answers the agent's calls, and the store keeps what it said, as tokens."""

from __future__ import annotations

import asyncio
import inspect
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from raybolt.env.agent import Agent
from raybolt.env.chat import ChatMessage, ChatRequest
from raybolt.env.policy import RunEnd, Sampled
from raybolt.env.recorded import task_metadata
from raybolt.env.recorder import SpanRecorder, describe
from raybolt.env.report import report
from raybolt.env.roles import Codecs
from raybolt.env.run import AgentRun
from raybolt.env.stepper import Prompt, RunStepper
from raybolt.env.task import Task
from raybolt.store.base import LightningStore
from raybolt.store.types import AttemptedRollout
from raybolt.store.values import checked_count

GROUP_SIZE: Final = 16
"""Demonstrations in one group of the store: small beside an optimizer step, large beside a request for it."""

Teacher: TypeAlias = Callable[[Task, ChatRequest], ChatMessage | Awaitable[ChatMessage]]
"""What the agent's LLM should have answered on this task to this request; plain or async."""


@dataclass(frozen=True, slots=True)
class Demonstrations:
    """What was recorded."""

    rollout_ids: tuple[str, ...]
    """All of them, in the order of the tasks."""
    errors: dict[str, str] = field(default_factory=dict)
    """Of those that failed, by rollout id."""


async def demonstrate(
    agent: Agent,
    tasks: Sequence[Task],
    teacher: Teacher,
    store: LightningStore,
    *,
    codec: Codecs,
    concurrency: int = 1,
) -> Demonstrations:
    """Runs the agent on each task with the teacher as its LLM; records the runs as rollouts of mode "demo".

    Each call's span carries the prompt's tokens and those of the teacher's answer, just as if the policy had
    sampled them, but no logprobs. Tools run for real. A run that fails is recorded as failed. With a
    concurrency of 1 the teacher is asked in a fixed order; raise it for a teacher that has to be waited for.
    `codec` may be a function of the role, where roles have models of their own.
    In the store they form groups of `GROUP_SIZE`, so that a learner can take some of them by reference.

    Raises InvalidValue for a concurrency below 1.
    """
    free = asyncio.Semaphore(checked_count(concurrency, "concurrency", least=1))
    label = f"demonstrations-{secrets.token_hex(3)}"

    async def one(index: int, task: Task) -> tuple[str, str | None]:
        async with free:
            started = await store.start_rollout(
                task.input,
                task_id=task.task_id,
                group_id=f"{label}/{index // GROUP_SIZE}",
                mode="demo",
                metadata=task_metadata(task),
            )
            return await _demonstrate(agent, task, teacher, store, codec, started)

    for number, start in enumerate(range(0, len(tasks), GROUP_SIZE)):
        await store.declare_group(f"{label}/{number}", min(GROUP_SIZE, len(tasks) - start))
    ended = await asyncio.gather(*(one(index, task) for index, task in enumerate(tasks)))
    errors = {rollout_id: error for rollout_id, error in ended if error is not None}
    return Demonstrations(tuple(rollout_id for rollout_id, _ in ended), errors)


async def _demonstrate(
    agent: Agent,
    task: Task,
    teacher: Teacher,
    store: LightningStore,
    codec: Codecs,
    started: AttemptedRollout,
) -> tuple[str, str | None]:
    """One demonstration: its rollout id, and its error if it failed."""
    rollout_id, attempt_id = started.rollout_id, started.attempt.attempt_id
    recorder = SpanRecorder(rollout_id, attempt_id)
    run = AgentRun(
        agent.program(),
        task,
        recorder=recorder,
        limits=agent.limits,
        reward=agent.reward,
        require_reward=False,
        trainable=agent.trainable,
    )
    stepper = RunStepper(run, codec)
    while not isinstance(prompts := await stepper.next(), RunEnd):
        for prompt in prompts:
            await _answer(stepper, prompt, task, teacher)
    outcome = await report(store, rollout_id, attempt_id, recorder.drain(), prompts.to_metadata())
    return rollout_id, outcome.get("error")


async def _answer(stepper: RunStepper, prompt: Prompt, task: Task, teacher: Teacher) -> None:
    request = prompt.call.request
    try:
        answer = teacher(task, request)
        message = await answer if inspect.isawaitable(answer) else answer
        response_ids = prompt.codec.encode_reply(request, message)
    except Exception as error:  # the teacher is the user's code; its failure is this rollout's alone
        await stepper.run.abort(f"the teacher failed: {describe(error)}", "policy")
        return
    stepper.act({prompt.call.call_id: Sampled(response_ids)})

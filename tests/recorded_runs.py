"""Real runs of scripted agents, recorded in a store as a runner records them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scripted_runs import Program

from raybolt.env.agent_env import AgentEnv
from raybolt.env.policy import Sampled
from raybolt.env.task import Task
from raybolt.store.local import LocalStore

Answer = Callable[[AgentEnv, str, int], Any]
"""The action for an agent id; the number is that of the run."""


def sampled(text: str, *, logprobs: bool = True) -> Answer:
    """Tokens of the text, which may hold the run's number as {}, as an engine gives them."""

    def answer(env: AgentEnv, agent_id: str, number: int) -> Sampled:
        ids = np.array(env.codec.tokenizer.encode(text.format(number)), dtype=np.int32)
        return Sampled(ids, np.full(len(ids), -1.0, np.float32) if logprobs else None, 3, 1.0)

    return answer


async def record(
    folder: Path,
    function: Callable[..., Any],
    codec: Any,
    *,
    answer: Answer | None = None,
    mode: Any = "train",
    num_groups: int = 2,
    group_size: int = 3,
    **options: Any,
) -> list[str]:
    """Runs the agent, some runs a task, into the store at `folder`; the rollout ids."""
    answer = answer or sampled("answer {}<|im_end|>")
    rollout_ids = []
    numbers = itertools.count()
    async with LocalStore(folder) as store:
        for group in range(num_groups):
            for _ in range(group_size):
                taken = await store.start_rollout(
                    f"Say {group}.", task_id=f"t{group}", group_id=f"{mode}-{group}", mode=mode
                )
                rollout_id, attempt_id = taken.rollout_id, taken.attempt.attempt_id
                env = AgentEnv(Program(function), codec=codec, **options)
                number = next(numbers)
                observations, _ = await env.areset(
                    Task(f"t{group}", f"Say {group}.", metadata={"number": number}),
                    rollout_id=rollout_id,
                    attempt_id=attempt_id,
                )
                while env.end is None:
                    actions = {agent_id: answer(env, agent_id, number) for agent_id in observations}
                    observations, *_ = await env.astep(actions)
                await store.add_many_spans(env.spans)
                await store.update_attempt(
                    rollout_id,
                    attempt_id,
                    status="failed" if env.end.failed else "succeeded",
                    metadata=env.end.to_metadata(),
                )
                rollout_ids.append(rollout_id)
    return rollout_ids

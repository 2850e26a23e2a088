"""Small things to put into stores."""

from dataclasses import fields
from typing import Any

import numpy as np

from raybolt.store import names
from raybolt.store.base import LightningStore
from raybolt.store.check.rules import present
from raybolt.store.types import Attempt, AttemptedRollout, AttemptStatus, EnqueueRolloutRequest, Rollout, Span


def make_span(attempt: Attempt, sequence_id: int = 1, **attributes: Any) -> Span:
    """Returns a span of the attempt whose ids follow from the sequence id."""
    return Span(
        rollout_id=attempt.rollout_id,
        attempt_id=attempt.attempt_id,
        sequence_id=sequence_id,
        trace_id="trace-1",
        span_id=f"span-{sequence_id}",
        name="chat",
        start_time=10.0,
        end_time=11.5,
        attributes=attributes,
    )


def make_call_span(attempt: Attempt, sequence_id: int = 1) -> Span:
    """Returns the span of an LLM call: 3 prompt tokens, 2 response tokens."""
    return make_span(
        attempt,
        sequence_id,
        **{
            names.OPERATION: names.CHAT,
            names.PROMPT_IDS: np.array([5, 6, 7], np.int32),
            names.RESPONSE_IDS: np.array([8, 9], np.int32),
            names.LOGPROBS: np.array([-0.5, -0.25], np.float32),
            names.WEIGHTS_VERSION: 4,
        },
    )


async def enqueue_some(store: LightningStore, num_rollouts: int) -> list[Rollout]:
    """Queues rollouts r0, r1, …, whose inputs are 0, 1, …"""
    return await store.enqueue_many_rollouts(
        [EnqueueRolloutRequest(input=index, rollout_id=f"r{index}") for index in range(num_rollouts)]
    )


async def take_one(store: LightningStore, worker_id: str | None = "worker-1") -> AttemptedRollout:
    """Dequeues the rollout that must be there."""
    return present(await store.dequeue_rollout(worker_id), "the next rollout of a queue that is not empty")


async def run_one(
    store: LightningStore, *, status: AttemptStatus = "succeeded", num_spans: int = 1
) -> AttemptedRollout:
    """Dequeues a rollout, records calls and ends its attempt with the status."""
    taken = await take_one(store)
    await store.add_many_spans([make_call_span(taken.attempt, i + 1) for i in range(num_spans)])
    await store.update_attempt(taken.rollout_id, taken.attempt.attempt_id, status=status)
    return taken


async def fill_group(store: LightningStore, group_id: str, *, num_rollouts: int, num_spans: int = 1) -> None:
    """Declares a group and runs all of its rollouts with success."""
    await store.declare_group(group_id, num_rollouts, task_id=f"task-of-{group_id}")
    for index in range(num_rollouts):
        await store.enqueue_rollout({"n": index}, group_id=group_id, task_id=f"task-of-{group_id}")
        await run_one(store, num_spans=num_spans)


async def rollout_of(store: LightningStore, rollout_id: str) -> Rollout:
    """Returns the rollout that must be there, without its attempt."""
    found = present(await store.get_rollout_by_id(rollout_id), f"the rollout {rollout_id!r}")
    return Rollout(**{field.name: getattr(found, field.name) for field in fields(Rollout)})


async def attempt_of(store: LightningStore, rollout_id: str) -> Attempt:
    """Returns the rollout's last attempt, which must be there."""
    return present(await store.get_latest_attempt(rollout_id), f"the last attempt of {rollout_id!r}")


async def statuses(store: LightningStore) -> list[str]:
    """Returns the statuses of all rollouts, in order of enqueuing."""
    return [rollout.status for rollout in await store.query_rollouts()]

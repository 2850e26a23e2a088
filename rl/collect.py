"""Gets tasks run: queues their rollouts, has the runners work the queue off, and says how each one ended."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np

from raybolt.env.recorded import task_metadata
from raybolt.env.task import Task
from raybolt.rl.outcomes import Collected, Outcome
from raybolt.rl.rollouts import SamplingParams
from raybolt.store import LightningStore
from raybolt.store.blocking import blocking
from raybolt.store.types import Attempt, EnqueueRolloutRequest, Mode, Rollout, RolloutConfig

# A rollout whose process died is tried again. One whose agent failed is not: with the same input it would
# mostly fail again, and trying until it works would hide from learning which replies make it fail.
RETRIES = RolloutConfig(max_attempts=3, retry_condition=("unresponsive",))


class Collector:
    """Runs tasks through a store and whoever works its queue.

    Args:
        store: the queue and the memory.
        work_queue: blocks until the runners have found the queue empty and finished what they took. A
            runner that dies meanwhile simply does not finish; the collector gives its rollouts to others.
        on_lost: called with the number of rollouts that a dead runner left behind.
    """

    def __init__(
        self, store: LightningStore, work_queue: Callable[[], None], on_lost: Callable[[int], None]
    ) -> None:
        self._store = store
        self._work_queue = work_queue
        self._on_lost = on_lost

    def collect(
        self,
        tasks: Sequence[Task],
        *,
        mode: Mode,
        rollouts_per_task: int,
        sampling: SamplingParams,
        seed: int,
        label: str,
    ) -> Collected:
        """Runs each task `rollouts_per_task` times, one group a task.

        The same `seed` and tasks sample the same replies. `label` begins the group ids, for people to read.
        """
        resources = blocking(self._store.add_resources({"sampling": asdict(sampling)}))
        requests = _requests(
            tasks, mode, rollouts_per_task, seed, f"{label}-{secrets.token_hex(3)}", resources.resources_id
        )
        group_ids = list(dict.fromkeys(str(request.group_id) for request in requests))
        blocking(self._enqueue(requests, group_ids, rollouts_per_task))
        self._work_queue()
        while lost := self._requeue_lost(group_ids):
            self._on_lost(lost)
            self._work_queue()
        return self._collected(group_ids)

    async def _enqueue(
        self, requests: Sequence[EnqueueRolloutRequest], group_ids: Sequence[str], rollouts_per_task: int
    ) -> None:
        declarations = (self._store.declare_group(group_id, rollouts_per_task) for group_id in group_ids)
        await asyncio.gather(*declarations)
        await self._store.enqueue_many_rollouts(requests)

    def _requeue_lost(self, group_ids: Sequence[str]) -> int:
        """Queues again what no runner holds any longer; the number of rollouts that still have to end."""
        unfinished = blocking(
            self._store.query_rollouts(
                group_id_in=group_ids, status_in=("queuing", "requeuing", "preparing", "running")
            )
        )
        for rollout in unfinished:
            if rollout.status in ("preparing", "running"):
                blocking(self._store.update_attempt(rollout.rollout_id, "latest", status="unresponsive"))
        return len(unfinished)

    def _collected(self, group_ids: Sequence[str]) -> Collected:
        rollouts = blocking(self._store.query_rollouts(group_id_in=group_ids))
        attempts = blocking(self._store.get_latest_attempts([r.rollout_id for r in rollouts]))
        groups: dict[str, list[Outcome]] = {group_id: [] for group_id in group_ids}
        for rollout, attempt in zip(rollouts, attempts, strict=True):
            groups[str(rollout.group_id)].append(_outcome(rollout, attempt))
        return Collected(groups)


def _requests(
    tasks: Sequence[Task], mode: Mode, rollouts_per_task: int, seed: int, label: str, resources_id: str
) -> list[EnqueueRolloutRequest]:
    seeds = np.random.SeedSequence(seed).generate_state(len(tasks) * rollouts_per_task)
    return [
        EnqueueRolloutRequest(
            input=task.input,
            task_id=task.task_id,
            group_id=f"{label}/{index}",
            mode=mode,
            resources_id=resources_id,
            config=RETRIES,
            metadata={"seed": int(seeds[index * rollouts_per_task + repeat]), **task_metadata(task)},
        )
        for index, task in enumerate(tasks)
        for repeat in range(rollouts_per_task)
    ]


def _outcome(rollout: Rollout, attempt: Attempt | None) -> Outcome:
    summary = attempt.metadata if attempt else {}
    reward = summary.get("reward") if rollout.status == "succeeded" else None
    return Outcome(
        rollout_id=rollout.rollout_id,
        group_id=str(rollout.group_id),
        task_id=str(rollout.task_id),
        reward=reward,
        error=None if reward is not None else summary.get("error", f"the rollout ended as {rollout.status}"),
        origin=None if reward is not None else summary.get("origin", "raybolt"),
        num_calls=summary.get("num_calls", 0),
        num_tokens=summary.get("num_tokens", 0),
    )

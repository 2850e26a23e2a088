"""What a store's rollouts say of the task they ran, of their trajectory and of its outcome."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from raybolt.env.foreign import sound
from raybolt.env.task import Task
from raybolt.env.trajectory import Trajectory, comparable, judged_version, trajectory_from_spans
from raybolt.store.types import Attempt, Rollout, RolloutData, Span


def task_metadata(task: Task) -> dict[str, Any]:
    """What a rollout's metadata keeps of its task, beside input and id."""
    return {"reference": task.reference, "task": dict(task.metadata)}


def task_of(rollout: Rollout) -> Task:
    """The task that the rollout ran; a traced one that names none has its own id in its place."""
    return Task(
        task_id=rollout.task_id or rollout.rollout_id,
        input=rollout.input,
        reference=rollout.metadata.get("reference"),
        metadata=rollout.metadata.get("task", {}),
    )


def trajectory_of(
    rollout: Rollout, attempt: Attempt, spans: Sequence[Span], *, reward_version: int | None = None
) -> Trajectory:
    """The trajectory of a rollout's attempt. Raises as `trajectory_from_spans`."""
    return trajectory_from_spans(
        spans,
        rollout_id=rollout.rollout_id,
        attempt_id=attempt.attempt_id,
        task_id=rollout.task_id,
        group_id=rollout.group_id,
        reward_version=reward_version,
    )


def comparable_runs(group: Iterable[RolloutData]) -> list[RolloutData]:
    """Those of a group's rollouts that credit may compare, in their order; see `comparable`."""
    return comparable(
        group,
        succeeded=lambda run: run.rollout.status == "succeeded",
        version=lambda run: judged_version(sound(run.spans)),
    )


def summary_of(trajectory: Trajectory) -> dict[str, Any]:
    """What an attempt's metadata says of its outcome: numbers only, no tokens."""
    summary: dict[str, Any] = {
        "num_calls": len(trajectory.calls),
        "num_tokens": sum(len(call.response_ids) for call in trajectory.calls),
    }
    if trajectory.failed:
        return summary | {"error": trajectory.error, "origin": trajectory.origin}
    return summary | {"reward": trajectory.total_reward}

"""Learner connectors: from a store's span blocks to the micro-batches of an update.

They hand their results on in RLlib's `shared_data`, under the keys below; the learner reads the last one.
`batch`, which RLlib's own connectors fill, stays empty: one flat batch could not say where an optimizer
step ends.

    episodes        list[pyarrow.Table]: the groups, from the store
    "plan"          UpdatePlan: what the learner was asked to do
    "groups"        list[list[Trajectory]]: the succeeded rollouts of each group
    "loss_calls"    list[list[LossCall]]: every response to learn from, by group
    "steps"         list[list[MicroBatch]]: the micro-batches of each optimizer step
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core import DEFAULT_MODULE_ID

from raybolt.env.trajectory import Call, Trajectory, trajectory_from_spans
from raybolt.rl.batching import MicroBatch, pack
from raybolt.rl.credit import get_estimator
from raybolt.rl.merge import LossCall, num_tokens_unmerged
from raybolt.rl.plan import UpdatePlan
from raybolt.rl.training_data import balanced_parts
from raybolt.store.blocks import decode_group


def learner_connectors(observation_space: Any, action_space: Any) -> list[ConnectorV2]:
    """The pipeline, as `AlgorithmConfig.learners(learner_connector=...)` takes it."""
    return [SpansToTrajectories(), AssignCredit(), PackTokens()]


class SpansToTrajectories(ConnectorV2):
    """Rebuilds each group's trajectories; failed rollouts, which have no return, are left out."""

    def __call__(
        self, *, rl_module: Any, batch: dict, episodes: list[pa.Table], shared_data: dict, **kwargs: Any
    ) -> dict:
        shared_data["groups"] = [succeeded_trajectories(table) for table in episodes]
        return batch


class AssignCredit(ConnectorV2):
    """Gives every token an advantage, by the plan's estimator; demonstrations need none.

    A group whose advantages are all zero (every rollout scored the same) teaches nothing and is dropped.
    """

    def __call__(
        self, *, rl_module: Any, batch: dict, shared_data: dict, metrics: Any = None, **kwargs: Any
    ) -> dict:
        plan: UpdatePlan = shared_data["plan"]
        groups: list[list[Trajectory]] = shared_data["groups"]
        if plan.loss == "nll":
            loss_calls = [demonstrated_calls(group) for group in groups]
        else:
            loss_calls = [credited_calls(group, plan.credit) for group in groups]
        shared_data["loss_calls"] = [calls for calls in loss_calls if calls]
        if metrics is not None:
            silent = sum(not calls for calls in loss_calls)
            metrics.log_value((DEFAULT_MODULE_ID, "groups_without_signal"), silent, window=1)
        return batch


class PackTokens(ConnectorV2):
    """Spreads the groups over the plan's optimizer steps and packs each step's tokens."""

    def __call__(
        self, *, rl_module: Any, batch: dict, shared_data: dict, metrics: Any = None, **kwargs: Any
    ) -> dict:
        loss_calls: list[list[LossCall]] = shared_data["loss_calls"]
        shared_data["steps"] = pack_steps(loss_calls, shared_data["plan"])
        if metrics is not None:
            micro_batches = [mb for step in shared_data["steps"] for mb in step]
            numbers = {
                "tokens_trained": sum(mb.num_entries for mb in micro_batches),
                "tokens_forwarded": sum(mb.num_tokens for mb in micro_batches),
                "tokens_unmerged": sum(num_tokens_unmerged(calls) for calls in loss_calls),
            }
            for name, value in numbers.items():
                metrics.log_value((DEFAULT_MODULE_ID, name), value, reduce="sum")
        return batch


def succeeded_trajectories(table: pa.Table) -> list[Trajectory]:
    """The trajectories of a group's succeeded rollouts, in the order in which they were enqueued."""
    return [
        trajectory_from_spans(
            data.spans,
            rollout_id=data.rollout.rollout_id,
            attempt_id=data.attempt.attempt_id,
            task_id=data.rollout.task_id,
            group_id=data.rollout.group_id,
        )
        for data in decode_group(table).rollouts
        if data.rollout.status == "succeeded" and data.attempt is not None
    ]


def demonstrated_calls(group: Sequence[Trajectory]) -> list[LossCall]:
    """The responses to imitate."""
    return [
        LossCall.demonstration(call.prompt_ids, call.response_ids)
        for trajectory in group
        for call in trajectory.calls
        if call.has_tokens
    ]


def credited_calls(group: Sequence[Trajectory], credit: str) -> list[LossCall]:
    """The sampled responses with their advantages; none if all advantages are zero."""
    advantages = get_estimator(credit)(group)
    calls = [
        _credited_call(call, of_call)
        for trajectory, of_trajectory in zip(group, advantages, strict=True)
        for call, of_call in zip(trajectory.calls, of_trajectory, strict=True)
        # An external LLM's answers are part of the environment: there is nothing of ours to update.
        if call.has_tokens and call.logprobs is not None
    ]
    return calls if any(call.advantages.any() for call in calls) else []


def pack_steps(loss_calls: Sequence[Sequence[LossCall]], plan: UpdatePlan) -> list[list[MicroBatch]]:
    """The micro-batches of each of the plan's `num_steps` optimizer steps.

    Groups are never split over steps. A step is empty where there are fewer groups than steps.
    """
    order = np.random.default_rng(plan.seed).permutation(len(loss_calls))
    shuffled = [loss_calls[index] for index in order]
    sizes = [num_tokens_unmerged(calls) for calls in shuffled]
    return [
        pack([shuffled[index] for index in part], token_budget=plan.token_budget)
        for part in balanced_parts(sizes, plan.num_steps)
    ]


def _credited_call(call: Call, advantages: np.ndarray) -> LossCall:
    assert call.logprobs is not None
    return LossCall(call.prompt_ids, call.response_ids, advantages, call.logprobs)

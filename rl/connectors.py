"""Learner connectors: from a store's span blocks to the micro-batches of an update.

They hand their results on in RLlib's `shared_data`, under the keys below; the learner reads the last one.
`batch`, which RLlib's own connectors fill, stays empty: one flat batch could not say where an optimizer
step ends.

    episodes        list[pyarrow.Table]: the groups, from the store
    "plan"          UpdatePlan: what the learner was asked to do
    "policy_of"     Callable[[str], str]: the id of the policy that answers a role
    "groups"        list[list[Trajectory]]: the succeeded rollouts of each group
    "loss_calls"    dict[str, list[list[LossCall]]]: every response each policy is to learn from, by group
    "steps"         list[dict[str, list[MicroBatch]]]: of each optimizer step each policy's micro-batches

Credit looks at whole trajectories; only then are their calls divided among the policies that made them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from ray.rllib.connectors.connector_v2 import ConnectorV2

from raybolt.env.recorded import comparable_runs, trajectory_of
from raybolt.env.trajectory import Call, Trajectory
from raybolt.rl.batching import MicroBatch, pack
from raybolt.rl.credit import get_estimator
from raybolt.rl.merge import LossCall, num_tokens_unmerged
from raybolt.rl.plan import UpdatePlan
from raybolt.rl.training_data import balanced_parts
from raybolt.store.blocks import decode_group

PolicyOf: TypeAlias = Callable[[str], str]
"""The id of the policy that answers a role."""


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

    A group in which all advantages of a policy's calls are zero (every rollout scored the same) teaches that
    policy nothing and is dropped.
    """

    def __call__(
        self, *, rl_module: Any, batch: dict, shared_data: dict, metrics: Any = None, **kwargs: Any
    ) -> dict:
        plan: UpdatePlan = shared_data["plan"]
        policy_of: PolicyOf = shared_data["policy_of"]
        groups: list[list[Trajectory]] = shared_data["groups"]
        if plan.loss == "nll":
            of_groups = [demonstrated_calls(group, policy_of) for group in groups]
        else:
            of_groups = [credited_calls(group, plan.credit, policy_of) for group in groups]
        shared_data["loss_calls"] = {
            policy_id: [calls[policy_id] for calls in of_groups if policy_id in calls]
            for policy_id in rl_module.keys()  # noqa: SIM118 (a MultiRLModule is no mapping)
        }
        if metrics is not None:
            for policy_id, loss_calls in shared_data["loss_calls"].items():
                silent = len(groups) - len(loss_calls)
                metrics.log_value((policy_id, "groups_without_signal"), silent, window=1)
        return batch


class PackTokens(ConnectorV2):
    """Spreads each policy's groups over the plan's optimizer steps and packs each step's tokens."""

    def __call__(
        self, *, rl_module: Any, batch: dict, shared_data: dict, metrics: Any = None, **kwargs: Any
    ) -> dict:
        plan: UpdatePlan = shared_data["plan"]
        loss_calls: dict[str, list[list[LossCall]]] = shared_data["loss_calls"]
        packed = {policy_id: pack_steps(calls, plan) for policy_id, calls in loss_calls.items()}
        shared_data["steps"] = [
            {policy_id: steps[index] for policy_id, steps in packed.items()}
            for index in range(plan.num_steps)
        ]
        if metrics is not None:
            for policy_id, steps in packed.items():
                for name, value in _sizes(loss_calls[policy_id], steps).items():
                    metrics.log_value((policy_id, name), value, reduce="sum")
        return batch


def succeeded_trajectories(table: pa.Table) -> list[Trajectory]:
    """The trajectories of a group's succeeded rollouts, in the order in which they were enqueued.

    With those that failed, but were judged by the latest `re_reward` over the group.
    """
    return [
        trajectory_of(data.rollout, data.attempt, data.spans)
        for data in comparable_runs(decode_group(table).rollouts)
        if data.attempt is not None
    ]


def demonstrated_calls(group: Sequence[Trajectory], policy_of: PolicyOf) -> dict[str, list[LossCall]]:
    """The responses to imitate, by policy; none of a run that failed, whatever was said of it since."""
    calls = (call for trajectory in group if not trajectory.failed for call in trajectory.calls)
    return _by_policy(
        (_policy_id(call, policy_of), LossCall.demonstration(call.prompt_ids, call.response_ids))
        for call in calls
        if call.has_tokens and call.trainable
    )


def credited_calls(
    group: Sequence[Trajectory], credit: str, policy_of: PolicyOf
) -> dict[str, list[LossCall]]:
    """The sampled responses with their advantages, by policy; not those of one whose advantages are all zero.

    What was not sampled by one of our policies, or not to be learned from, is part of the environment: it
    stays out, but the reward that it led to counts.
    """
    advantages = get_estimator(credit)(group)
    calls = _by_policy(
        (_policy_id(call, policy_of), _credited_call(call, of_call))
        for trajectory, of_trajectory in zip(group, advantages, strict=True)
        for call, of_call in zip(trajectory.calls, of_trajectory, strict=True)
        if call.has_tokens and call.logprobs is not None and call.trainable
    )
    return {
        policy_id: of_policy
        for policy_id, of_policy in calls.items()
        if any(call.advantages.any() for call in of_policy)
    }


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


def _policy_id(call: Call, policy_of: PolicyOf) -> str:
    # Demonstrations do not name one: which policy is to imitate them is the recipe's to say.
    return call.policy or policy_of(call.role)


def _by_policy(calls: Iterable[tuple[str, LossCall]]) -> dict[str, list[LossCall]]:
    divided: dict[str, list[LossCall]] = {}
    for policy_id, call in calls:
        divided.setdefault(policy_id, []).append(call)
    return divided


def _sizes(loss_calls: Sequence[Sequence[LossCall]], steps: Sequence[Sequence[MicroBatch]]) -> dict[str, int]:
    micro_batches = [micro_batch for step in steps for micro_batch in step]
    return {
        "tokens_trained": sum(micro_batch.num_entries for micro_batch in micro_batches),
        "tokens_forwarded": sum(micro_batch.num_tokens for micro_batch in micro_batches),
        "tokens_unmerged": sum(num_tokens_unmerged(calls) for calls in loss_calls),
    }


def _credited_call(call: Call, advantages: np.ndarray) -> LossCall:
    assert call.logprobs is not None
    return LossCall(call.prompt_ids, call.response_ids, advantages, call.logprobs)

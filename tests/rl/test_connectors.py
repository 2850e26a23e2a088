"""From trajectories to the micro-batches of an update."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from raybolt.env.trajectory import Call, Reward, Trajectory
from raybolt.rl.connectors import (
    AssignCredit,
    PackTokens,
    credited_calls,
    demonstrated_calls,
    pack_steps,
    succeeded_trajectories,
)
from raybolt.rl.merge import LossCall
from raybolt.rl.plan import UpdatePlan
from raybolt.store import LocalStore


def call(*response: int, sampled: bool = True, role: str = "agent", **settings: Any) -> Call:
    ids = np.array(response, np.int32)
    return Call(
        call_id="call-0",
        role=role,
        prompt_ids=np.array([1, 2, 3], np.int32),
        response_ids=ids,
        logprobs=np.full(len(ids), -0.5, np.float32) if sampled else None,
        **settings,
    )


def trajectory(reward: float, *calls: Call) -> Trajectory:
    return Trajectory(
        rollout_id="ro",
        attempt_id="at",
        calls=calls,
        rewards=(Reward(value=reward, final=True, call_id=None),),
        status="succeeded",
    )


def plan(num_steps: int = 1, token_budget: int = 64) -> UpdatePlan:
    return UpdatePlan(
        loss="policy_gradient",
        lr=1e-3,
        token_budget=token_budget,
        grad_clip=1.0,
        seed=0,
        num_steps=num_steps,
    )


def one(role: str) -> str:
    """The mapping of the shared policy."""
    return "default_policy"


def credited(group: list[Trajectory]) -> list[LossCall]:
    return credited_calls(group, "group_norm", one).get("default_policy", [])


def responses(calls: list[LossCall]) -> list[list[int]]:
    return [call.response_ids.tolist() for call in calls]


def test_every_sampled_token_gets_its_rollouts_advantage() -> None:
    calls = credited([trajectory(1.0, call(7, 8), call(9)), trajectory(0.0, call(6))])

    assert [c.advantages.tolist() for c in calls] == [
        pytest.approx([1.0, 1.0], abs=1e-5),
        pytest.approx([1.0], abs=1e-5),
        pytest.approx([-1.0], abs=1e-5),
    ]
    assert calls[0].old_logps.tolist() == [-0.5, -0.5]


def test_a_group_of_equal_rewards_teaches_nothing() -> None:
    assert credited([trajectory(1.0, call(7)), trajectory(1.0, call(8))]) == []


def test_answers_of_an_external_llm_are_not_learned_from() -> None:
    mixed = [trajectory(1.0, call(7), call()), trajectory(0.0, call(8), call(5, sampled=False))]

    assert responses(credited(mixed)) == [[7], [8]]


def test_calls_that_are_not_trainable_stay_out_but_their_rewards_count() -> None:
    group = [
        trajectory(1.0, call(7), call(5, role="critic", trainable=False)),
        trajectory(0.0, call(8), call(6, role="critic", trainable=False)),
    ]

    calls = credited(group)

    assert responses(calls) == [[7], [8]]
    assert [c.advantages.tolist() for c in calls] == [
        pytest.approx([1.0], abs=1e-5),
        pytest.approx([-1.0], abs=1e-5),
    ]
    assert responses(demonstrated_calls(group, one)["default_policy"]) == [[7], [8]]


def test_each_policy_learns_from_its_own_calls_with_the_whole_rollouts_return() -> None:
    group = [
        trajectory(1.0, call(7, role="writer"), call(5, role="critic")),
        trajectory(0.0, call(8, role="writer"), call(6, role="critic"), call(9, role="writer")),
    ]

    calls = credited_calls(group, "group_norm", lambda role: f"{role}-policy")

    assert {policy: responses(of) for policy, of in calls.items()} == {
        "writer-policy": [[7], [8], [9]],
        "critic-policy": [[5], [6]],
    }
    assert [round(float(c.advantages[0])) for c in calls["writer-policy"]] == [1, -1, -1]
    assert [round(float(c.advantages[0])) for c in calls["critic-policy"]] == [1, -1]


def test_the_policy_that_a_span_names_is_the_one_that_learns() -> None:
    group = [trajectory(1.0, call(7, policy="large")), trajectory(0.0, call(8, policy="small"))]

    calls = credited_calls(group, "group_norm", one)

    assert {policy: responses(of) for policy, of in calls.items()} == {"large": [[7]], "small": [[8]]}


def test_every_policy_gets_its_micro_batches_of_every_step() -> None:
    def group(response: int) -> list[Trajectory]:
        return [
            trajectory(1.0, call(response, role="writer"), call(response + 1, role="critic")),
            trajectory(0.0, call(response, role="writer")),
        ]

    shared: dict[str, Any] = {
        "plan": plan(num_steps=2),
        "policy_of": str.upper,
        "groups": [group(10), group(20)],
    }
    for connector in (AssignCredit(), PackTokens()):
        connector(rl_module={"WRITER": None, "CRITIC": None}, batch={}, episodes=[], shared_data=shared)

    targets = [
        {
            policy: sorted(int(t) for mb in micro_batches for t in mb.target)
            for policy, micro_batches in of.items()
        }
        for of in shared["steps"]
    ]
    assert sorted(targets, key=str) == [
        {"WRITER": [10, 10], "CRITIC": [11]},
        {"WRITER": [20, 20], "CRITIC": [21]},
    ]


def test_demonstrations_need_no_rewards_and_no_logprobs() -> None:
    shown = Trajectory(
        rollout_id="ro", attempt_id="at", calls=(call(7, 8, sampled=False),), status="succeeded"
    )

    assert responses(demonstrated_calls([shown], one)["default_policy"]) == [[7, 8]]


def test_groups_are_spread_over_the_steps_and_never_split() -> None:
    groups = [
        credited([trajectory(1.0, call(10 + g, 7)), trajectory(0.0, call(10 + g, 8))]) for g in range(4)
    ]

    steps = pack_steps(groups, plan(num_steps=2))

    assert [sum(mb.num_entries for mb in step) for step in steps] == [8, 8]
    firsts = [{int(t) for mb in step for t in mb.target if t >= 10} for step in steps]
    assert firsts[0].isdisjoint(firsts[1])
    assert firsts[0] | firsts[1] == {10, 11, 12, 13}


def test_fewer_groups_than_steps_leave_steps_empty() -> None:
    group = credited([trajectory(1.0, call(7)), trajectory(0.0, call(8))])

    assert [len(step) for step in pack_steps([group], plan(num_steps=3))] == [1, 0, 0]


async def test_failed_rollouts_of_a_group_do_not_reach_the_learner() -> None:
    async with LocalStore() as store:
        await store.declare_group("group", 3)
        for number, status in enumerate(("succeeded", "failed", "succeeded")):
            started = await store.start_rollout("?", group_id="group", rollout_id=f"rollout-{number}")
            await store.update_attempt(f"rollout-{number}", started.attempt.attempt_id, status=status)
        (handle,) = await store.take_groups(1)

    assert [t.rollout_id for t in succeeded_trajectories(handle.ref)] == ["rollout-0", "rollout-2"]

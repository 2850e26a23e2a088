"""From trajectories to the micro-batches of an update."""

from __future__ import annotations

import numpy as np
import pytest

from raybolt.env.trajectory import Call, Reward, Trajectory
from raybolt.rl.connectors import credited_calls, demonstrated_calls, pack_steps, succeeded_trajectories
from raybolt.rl.plan import UpdatePlan
from raybolt.store import LocalStore


def call(*response: int, sampled: bool = True) -> Call:
    ids = np.array(response, np.int32)
    return Call(
        call_id="call-0",
        role="agent",
        prompt_ids=np.array([1, 2, 3], np.int32),
        response_ids=ids,
        logprobs=np.full(len(ids), -0.5, np.float32) if sampled else None,
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


def test_every_sampled_token_gets_its_rollouts_advantage() -> None:
    calls = credited_calls([trajectory(1.0, call(7, 8), call(9)), trajectory(0.0, call(6))], "group_norm")

    assert [c.advantages.tolist() for c in calls] == [
        pytest.approx([1.0, 1.0], abs=1e-5),
        pytest.approx([1.0], abs=1e-5),
        pytest.approx([-1.0], abs=1e-5),
    ]
    assert calls[0].old_logps.tolist() == [-0.5, -0.5]


def test_a_group_of_equal_rewards_teaches_nothing() -> None:
    assert credited_calls([trajectory(1.0, call(7)), trajectory(1.0, call(8))], "group_norm") == []


def test_answers_of_an_external_llm_are_not_learned_from() -> None:
    mixed = [trajectory(1.0, call(7), call()), trajectory(0.0, call(8), call(5, sampled=False))]

    assert [c.response_ids.tolist() for c in credited_calls(mixed, "group_norm")] == [[7], [8]]


def test_demonstrations_need_no_rewards_and_no_logprobs() -> None:
    shown = Trajectory(
        rollout_id="ro", attempt_id="at", calls=(call(7, 8, sampled=False),), status="succeeded"
    )

    assert [c.response_ids.tolist() for c in demonstrated_calls([shown])] == [[7, 8]]


def test_groups_are_spread_over_the_steps_and_never_split() -> None:
    groups = [
        credited_calls([trajectory(1.0, call(10 + g, 7)), trajectory(0.0, call(10 + g, 8))], "group_norm")
        for g in range(4)
    ]

    steps = pack_steps(groups, plan(num_steps=2))

    assert [sum(mb.num_entries for mb in step) for step in steps] == [8, 8]
    firsts = [{int(t) for mb in step for t in mb.target if t >= 10} for step in steps]
    assert firsts[0].isdisjoint(firsts[1])
    assert firsts[0] | firsts[1] == {10, 11, 12, 13}


def test_fewer_groups_than_steps_leave_steps_empty() -> None:
    group = credited_calls([trajectory(1.0, call(7)), trajectory(0.0, call(8))], "group_norm")

    assert [len(step) for step in pack_steps([group], plan(num_steps=3))] == [1, 0, 0]


async def test_failed_rollouts_of_a_group_do_not_reach_the_learner() -> None:
    async with LocalStore() as store:
        await store.declare_group("group", 3)
        for number, status in enumerate(("succeeded", "failed", "succeeded")):
            started = await store.start_rollout("?", group_id="group", rollout_id=f"rollout-{number}")
            await store.update_attempt(f"rollout-{number}", started.attempt.attempt_id, status=status)
        (handle,) = await store.take_groups(1)

    assert [t.rollout_id for t in succeeded_trajectories(handle.ref)] == ["rollout-0", "rollout-2"]

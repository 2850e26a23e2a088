from __future__ import annotations

import numpy as np
import pytest

from raybolt.env.trajectory import Call, Reward, Trajectory
from raybolt.rl.credit import GroupNorm, get_estimator, register_estimator
from raybolt.store.errors import InvalidValue


def rollout(total_reward: float, response_lengths: tuple[int, ...] = (2,)) -> Trajectory:
    calls = tuple(
        Call(
            call_id=str(i),
            role="agent",
            prompt_ids=np.array([1], np.int32),
            response_ids=np.arange(length, dtype=np.int32),
        )
        for i, length in enumerate(response_lengths)
    )
    rewards = (Reward(total_reward / 2, False, "0"), Reward(total_reward / 2, True, "0"))
    return Trajectory(rollout_id="r", attempt_id="a", calls=calls, rewards=rewards, status="succeeded")


def test_returns_are_normalised_over_rollouts_and_go_to_every_token_of_every_call() -> None:
    # The first rollout has three calls, but counts once: mean 1, standard deviation 1.
    advantages = GroupNorm(epsilon=0.0)([rollout(2.0, (1, 2, 3)), rollout(0.0, (2,))])
    assert [[call.tolist() for call in calls] for calls in advantages] == [
        [[1.0], [1.0, 1.0], [1.0, 1.0, 1.0]],
        [[-1.0, -1.0]],
    ]
    assert advantages[0][0].dtype == np.float32


def test_without_scaling_returns_are_only_centred() -> None:
    advantages = GroupNorm(scale=False)([rollout(1.0), rollout(0.0), rollout(0.0), rollout(0.0)])
    assert [calls[0][0] for calls in advantages] == [0.75, -0.25, -0.25, -0.25]


@pytest.mark.parametrize("returns", [[0.1] * 3, [7.0], []])
def test_equal_returns_and_lone_rollouts_get_zeros_exactly(returns: list[float]) -> None:
    advantages = GroupNorm()([rollout(value) for value in returns])
    assert [calls[0].tolist() for calls in advantages] == [[0.0, 0.0]] * len(returns)


def test_a_failed_rollout_has_no_return_to_compare() -> None:
    failed = Trajectory(rollout_id="r1", attempt_id="a", status="failed", error="KeyError: 'x'")
    with pytest.raises(InvalidValue, match="rollout r1 failed"):
        GroupNorm()([failed])


def test_estimators_are_found_by_name_and_near_names_are_suggested() -> None:
    assert get_estimator("group_norm") == GroupNorm()
    with pytest.raises(InvalidValue, match="Did you mean 'group_norm'"):
        get_estimator("group_norn")
    with pytest.raises(InvalidValue, match="registered already"):
        register_estimator("group_norm", GroupNorm)


def test_scaled_advantages_are_in_standard_deviations() -> None:
    # Mean 1, standard deviation sqrt(3): deviations 3 and -1 become sqrt(3) and -1 / sqrt(3).
    advantages = GroupNorm(epsilon=0.0)([rollout(4.0), rollout(0.0), rollout(0.0), rollout(0.0)])
    assert [calls[0][0] for calls in advantages] == pytest.approx([3**0.5, *[-(3**-0.5)] * 3])

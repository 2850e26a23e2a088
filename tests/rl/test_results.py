"""Scores and their intervals."""

import math

import pytest

from raybolt.rl.outcomes import Collected, Outcome
from raybolt.rl.results import EvalResult, mean_with_interval


def outcome(task: str, reward: float | None, *, error: str | None = None) -> Outcome:
    return Outcome(
        rollout_id=f"r-{task}-{reward}",
        group_id=task,
        task_id=task,
        reward=reward,
        error=error,
        origin="agent" if error else None,
        num_calls=1,
        num_tokens=3,
    )


def test_right_or_wrong_answers_get_wilsons_interval() -> None:
    mean, low, high = mean_with_interval([1.0] * 8 + [0.0] * 2)

    # Worked out by hand from Wilson's formula with z = 1.96: (0.8 + 0.192 ± 0.281) / 1.384.
    assert (mean, low, high) == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-4)


def test_an_interval_around_no_success_at_all_is_not_a_point() -> None:
    mean, low, high = mean_with_interval([0.0] * 10)

    assert (mean, low) == (0.0, 0.0)
    assert high == pytest.approx(0.2775, abs=1e-4)


def test_graded_rewards_get_a_bootstrap_interval_that_holds_the_mean() -> None:
    mean, low, high = mean_with_interval([0.1, 0.5, 0.9, 0.3, 0.7])

    assert mean == pytest.approx(0.5)
    assert 0.1 < low < 0.5 < high < 0.9


def test_no_rewards_have_no_mean() -> None:
    assert all(math.isnan(number) for number in mean_with_interval([]))


def test_a_failed_rollout_is_left_out_of_the_mean_and_counted() -> None:
    collected = Collected(
        {
            "a": [outcome("a", 1.0), outcome("a", 0.0)],
            "b": [outcome("b", 1.0), outcome("b", None, error="KeyError: x")],
            "c": [outcome("c", None, error="KeyError: x")],
        }
    )

    result = EvalResult.of(collected)

    assert result.rewards == {"a": 0.5, "b": 1.0, "c": None}
    assert result.mean == pytest.approx(0.75)
    assert (result.num_tasks, result.num_failed) == (3, 2)
    assert result.errors == {"agent: KeyError: x": 2}

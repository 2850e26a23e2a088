from __future__ import annotations

import pytest
import torch

from raybolt.rl.losses import LossOutput, nll_loss, policy_gradient_loss


def clipped(
    ratios: list[float], advantages: list[float], weight: float = 1.0
) -> tuple[LossOutput, torch.Tensor]:
    logps = torch.tensor(ratios).log().requires_grad_()
    output = policy_gradient_loss(
        logps,
        old_logps=torch.zeros(len(ratios)),
        advantages=torch.tensor(advantages),
        weight=torch.full((len(ratios),), weight),
        clip_low=0.2,
        clip_high=0.3,
    )
    output.loss.backward()
    assert logps.grad is not None
    return output, logps.grad


def test_on_policy_the_gradient_is_minus_the_advantage() -> None:
    output, gradient = clipped([1.0, 1.0], [2.0, -3.0])
    assert output.loss.item() == pytest.approx(1.0)
    assert gradient.tolist() == pytest.approx([-2.0, 3.0])


def test_clipping_removes_only_gradients_that_lead_further_away() -> None:
    # Good token already likelier by 1.5 (clipped at 1.3), bad one already at half (at 0.8); the other two
    # moved the wrong way and keep their gradient.
    output, gradient = clipped([1.5, 0.5, 0.5, 1.5], [1.0, -1.0, 1.0, -1.0])
    assert output.loss.item() == pytest.approx(-(1.3 - 0.8 + 0.5 - 1.5))
    assert gradient.tolist() == pytest.approx([0.0, 0.0, -0.5, 1.5])
    assert output.metrics["clip_fraction"].item() == pytest.approx(2.0)


def test_metrics_are_weighted_like_the_loss() -> None:
    output, _ = clipped([1.0, 2.0], [1.0, 1.0], weight=0.5)
    assert output.metrics["mean_ratio"].item() == pytest.approx(1.5)
    assert output.metrics["clip_fraction"].item() == pytest.approx(0.5)
    assert output.metrics["approx_kl"].item() == pytest.approx(0.5 * (1 - 0.6931472), abs=1e-6)


def test_ratios_beyond_every_bound_stay_finite() -> None:
    logps = torch.tensor([-500.0, 500.0], requires_grad=True)
    output = policy_gradient_loss(
        logps,
        old_logps=torch.zeros(2),
        advantages=torch.tensor([1.0, -1.0]),
        weight=torch.ones(2),
        clip_low=0.2,
        clip_high=0.2,
    )
    output.loss.backward()
    assert logps.grad is not None
    assert torch.isfinite(logps.grad).all()


def test_nll_is_the_weighted_sum_of_negative_log_probabilities() -> None:
    output = nll_loss(torch.tensor([-1.0, -3.0]), weight=torch.tensor([0.5, 0.5]))
    assert output.loss.item() == pytest.approx(2.0)


def test_no_entries_give_a_loss_of_zero() -> None:
    none = torch.zeros(0)
    output = policy_gradient_loss(
        none, old_logps=none, advantages=none, weight=none, clip_low=0.2, clip_high=0.2
    )
    assert output.loss.item() == 0.0

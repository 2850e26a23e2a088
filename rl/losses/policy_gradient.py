"""The clipped token policy gradient."""

from __future__ import annotations

import torch

from raybolt.rl.losses.base import LossOutput

_MAX_LOG_RATIO = 20.0
"""exp of more would overflow in the products below; such a token is clipped or hopeless anyway."""


def policy_gradient_loss(
    logps: torch.Tensor,
    *,
    old_logps: torch.Tensor,
    advantages: torch.Tensor,
    weight: torch.Tensor,
    clip_low: float,
    clip_high: float,
) -> LossOutput:
    """L = −Σₙ wₙ · min(rₙ Aₙ, clip(rₙ, 1 − clip_low, 1 + clip_high) Aₙ), r = π(a | s) / π_old(a | s).

    PPO's clipped surrogate (Schulman et al. 2017, arXiv:1707.06347, eq. 7) on tokens, with separate bounds
    and the mean over all tokens of the step, not first over each response's (DAPO, Yu et al. 2025,
    arXiv:2503.14476, eq. 8 to 12).

    Args:
        logps: float32[N], under the policy being trained.
        old_logps: float32[N], under the policy that sampled the tokens.
        advantages: float32[N].
        weight: float32[N], 1/N for the mean.

    Metrics:
        clip_fraction: share of tokens whose gradient the clipping removed.
        approx_kl: KL(π_old ‖ π) in nats per token, by the estimator r − 1 − log r, which has no bias and is
            never negative (Schulman 2020, joschu.net/blog/kl-approx.html, "k3").
        mean_ratio: of r; far from 1 means far from on-policy.
    """
    log_ratio = (logps - old_logps).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)
    ratio = log_ratio.exp()
    unclipped = ratio * advantages
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high) * advantages
    loss = -(weight * torch.minimum(unclipped, clipped)).sum()
    with torch.no_grad():
        metrics = {
            "clip_fraction": (weight * (clipped < unclipped)).sum(),
            "approx_kl": (weight * (ratio - 1.0 - log_ratio)).sum(),
            "mean_ratio": (weight * ratio).sum(),
        }
    return LossOutput(loss=loss, metrics=metrics)

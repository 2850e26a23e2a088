"""Negative log-likelihood of demonstrated tokens."""

from __future__ import annotations

import torch

from raybolt.rl.losses.base import LossOutput


def nll_loss(logps: torch.Tensor, *, weight: torch.Tensor) -> LossOutput:
    """L = −Σₙ wₙ · log π(aₙ | sₙ), with w = 1/N the mean over all demonstrated tokens.

    Args:
        logps: float32[N], under the model being trained.
        weight: float32[N].
    """
    return LossOutput(loss=-(weight * logps).sum())

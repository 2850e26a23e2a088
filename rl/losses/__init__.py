"""Losses over loss entries: pure functions of tensors, one per file."""

from __future__ import annotations

from raybolt.rl.losses.base import LossOutput
from raybolt.rl.losses.nll import nll_loss
from raybolt.rl.losses.policy_gradient import policy_gradient_loss

__all__ = ["LossOutput", "nll_loss", "policy_gradient_loss"]

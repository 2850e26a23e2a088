"""Credit: from the rewards of a group's rollouts to advantages of tokens. One estimator per file."""

from __future__ import annotations

from raybolt.rl.credit.base import Estimator, get_estimator, register_estimator
from raybolt.rl.credit.group_norm import GroupNorm

__all__ = ["Estimator", "GroupNorm", "get_estimator", "register_estimator"]

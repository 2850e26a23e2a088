"""How one call of `Learner.update` is to be carried out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from raybolt.rl.policies import Policies
from raybolt.rl.recipes import SFT, LightningRL


@dataclass(frozen=True, kw_only=True)
class UpdatePlan:
    """Everything a learner must know besides the data; sent with each update, so a learner keeps no mode.

    Attributes:
        loss: "policy_gradient" (clipped, with advantages) or "nll" (demonstrations).
        credit: name of the credit estimator; read for "policy_gradient" only.
        lr: learning rate of this update.
        policy_lrs: those of policies that have their own, by policy id.
        num_steps: optimizer steps in each epoch; the same on every learner, or they would wait for ever.
        num_epochs: passes over the data.
        token_budget: tokens in one forward pass.
        grad_clip: bound on the global gradient norm.
        clip_low, clip_high: ratio clipping.
        temperature: that the tokens were sampled with; log-probabilities are of logits / temperature.
        seed: orders the groups of each epoch.
        fresh_optimizer: forget the optimizer's moments first (a new phase of training begins).
    """

    loss: Literal["policy_gradient", "nll"]
    lr: float
    token_budget: int
    grad_clip: float
    seed: int
    credit: str = "group_norm"
    num_steps: int = 1
    num_epochs: int = 1
    clip_low: float = 0.2
    clip_high: float = 0.2
    temperature: float = 1.0
    fresh_optimizer: bool = False
    policy_lrs: Mapping[str, float] = field(default_factory=dict)

    def lr_of(self, policy_id: str) -> float:
        """The learning rate of a policy."""
        return self.policy_lrs.get(policy_id, self.lr)


def plan_rl(recipe: LightningRL, *, seed: int, fresh_optimizer: bool) -> UpdatePlan:
    """The update of one LightningRL iteration."""
    return UpdatePlan(
        loss="policy_gradient",
        credit=recipe.credit,
        lr=recipe.lr,
        policy_lrs=Policies.of(recipe).lrs,
        num_steps=recipe.steps_per_epoch,
        num_epochs=recipe.num_epochs,
        token_budget=recipe.token_budget,
        grad_clip=recipe.grad_clip,
        clip_low=recipe.clip_low,
        clip_high=recipe.clip_high,
        temperature=recipe.temperature,
        seed=seed,
        fresh_optimizer=fresh_optimizer,
    )


def plan_sft(recipe: SFT, *, num_tokens: int, seed: int, fresh_optimizer: bool) -> UpdatePlan:
    """One stretch of supervised fine-tuning over groups that hold `num_tokens` tokens together."""
    return UpdatePlan(
        loss="nll",
        lr=recipe.lr,
        policy_lrs=Policies.of(recipe).lrs,
        num_steps=max(1, round(num_tokens / recipe.tokens_per_step)),
        token_budget=recipe.token_budget,
        grad_clip=recipe.grad_clip,
        seed=seed,
        fresh_optimizer=fresh_optimizer,
    )

"""What a user chooses about learning: one keyword-only recipe per algorithm.

A recipe is plain data, checked on construction, and imports neither torch nor ray, so that a settings
file can be read, and a mistake in it reported, before anything heavy is loaded. `rl.config` translates a
recipe into RLlib's vocabulary; nothing else does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from raybolt.rl.policies import PolicySpec, check_policies
from raybolt.store.errors import InvalidValue


@dataclass(frozen=True, kw_only=True)
class SFT:
    """Supervised fine-tuning on the demonstrations that the store holds (rollouts of mode "demo").

    Minimises the mean negative log-likelihood per response token.

    Attributes:
        model: hub id, local folder, `.gguf` file, "tiny" or "smollm2-135m".
        policies: as in `LightningRL`.
        lr: learning rate of AdamW.
        epochs: passes over the demonstrations.
        tokens_per_step: response tokens behind one optimizer step, those of all policies together.
        token_budget: tokens in one forward pass; what it holds back is accumulated, so it bounds memory and
            changes no number beyond rounding.
        grad_clip: bound on the global gradient norm.
    """

    kind: ClassVar[str] = "sft"

    model: str = "tiny"
    policies: Mapping[str, PolicySpec] | None = None
    lr: float = 1e-3
    epochs: int = 1
    tokens_per_step: int = 1024
    token_budget: int = 4096
    grad_clip: float = 1.0

    def __post_init__(self) -> None:
        _check_positive(self, "lr", zero_allowed=True)
        _check_positive(self, "grad_clip")
        for name in ("epochs", "tokens_per_step", "token_budget"):
            _check_count(self, name)
        check_policies(type(self).__name__, self.policies)


@dataclass(frozen=True, kw_only=True)
class LightningRL:
    """Reinforcement learning of every call that an agent makes, by the clipped token policy gradient.

    One iteration runs the agent `rollouts_per_task` times on each of `tasks_per_iteration` tasks, assigns
    credit inside each task's group, and updates the policies.

    Attributes:
        model: hub id, local folder, `.gguf` file, "tiny" or "smollm2-135m".
        policies: by id, the policies that roles are answered by; a role goes to the first that one of its
            patterns matches, and a rollout in which a role has none fails. None: one policy, for all roles.
        warmup: supervised fine-tuning to run first, on the store's demonstrations. It trains the policies of
            this recipe, all at its own `lr`; its `model` is not read.
        lr: learning rate of AdamW. 0 turns learning off and leaves everything else as it is (a control run).
        iterations: how many; None means one pass over the training tasks.
        tasks_per_iteration: groups behind one update.
        rollouts_per_task: rollouts of one group, at least 2, or there is nothing to compare.
        credit: name of the credit estimator, a file of `rl/credit`.
        clip_low, clip_high: the ratio is clipped to [1 - clip_low, 1 + clip_high].
        temperature: of sampling while training; evaluation is greedy unless told otherwise.
        max_new_tokens: bound on the reply of one call.
        num_epochs: passes over each iteration's rollouts.
        steps_per_epoch: optimizer steps that one such pass is split into, by whole groups.
        token_budget: tokens in one forward pass; bounds memory, changes no number beyond rounding.
        grad_clip: bound on the global gradient norm.
        checkpoint_every: iterations between checkpoints; the last one is always saved.
    """

    kind: ClassVar[str] = "lightningrl"

    model: str = "tiny"
    policies: Mapping[str, PolicySpec] | None = None
    warmup: SFT | None = None
    lr: float = 3e-4
    iterations: int | None = None
    tasks_per_iteration: int = 24
    rollouts_per_task: int = 8
    credit: str = "group_norm"
    clip_low: float = 0.2
    clip_high: float = 0.2
    temperature: float = 1.0
    max_new_tokens: int = 256
    num_epochs: int = 1
    steps_per_epoch: int = 1
    token_budget: int = 4096
    grad_clip: float = 1.0
    checkpoint_every: int = 10

    def __post_init__(self) -> None:
        for name in ("lr", "clip_low", "clip_high"):
            _check_positive(self, name, zero_allowed=True)
        for name in ("grad_clip", "temperature"):
            _check_positive(self, name)
        counts = "tasks_per_iteration max_new_tokens num_epochs steps_per_epoch token_budget checkpoint_every"
        for name in counts.split():
            _check_count(self, name)
        if self.iterations is not None:
            _check_count(self, "iterations")
        if self.rollouts_per_task < 2:
            raise InvalidValue(
                f"LightningRL.rollouts_per_task is {self.rollouts_per_task}: credit compares the rollouts of "
                "a task with one another; give at least 2."
            )
        check_policies(type(self).__name__, self.policies)
        if self.warmup is not None and self.warmup.policies is not None:
            raise InvalidValue(
                "LightningRL.warmup has policies of its own; it trains those of LightningRL: give them there."
            )


Recipe = LightningRL | SFT


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON-able data, with its `kind`, for `run.json` and settings files."""
    return {"kind": recipe.kind, **dataclasses.asdict(recipe)}


def recipe_from_dict(data: dict[str, Any]) -> Recipe:
    """The recipe that `recipe_to_dict` wrote. Raises `InvalidValue` for a `kind` it does not know."""
    fields = dict(data)
    kind = fields.pop("kind", None)
    policies = fields.get("policies")
    if policies is not None:
        fields["policies"] = {policy_id: PolicySpec(**spec) for policy_id, spec in policies.items()}
    if kind == SFT.kind:
        return SFT(**fields)
    if kind == LightningRL.kind:
        warmup = fields.pop("warmup", None)
        return LightningRL(warmup=SFT(**warmup) if warmup else None, **fields)
    raise InvalidValue(f"kind of the recipe is {kind!r}; expected 'lightningrl' or 'sft'.")


def _check_positive(recipe: Any, name: str, *, zero_allowed: bool = False) -> None:
    value = getattr(recipe, name)
    if not isinstance(value, int | float) or not (value > 0 or (zero_allowed and value == 0)):
        bound = "0 or more" if zero_allowed else "more than 0"
        raise InvalidValue(f"{type(recipe).__name__}.{name} is {value!r}; give a number that is {bound}.")


def _check_count(recipe: Any, name: str) -> None:
    value = getattr(recipe, name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidValue(f"{type(recipe).__name__}.{name} is {value!r}; give a whole number, 1 or more.")

"""What every loss returns."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass(frozen=True, slots=True)
class LossOutput:
    """A loss and what is worth watching.

    Attributes:
        loss: scalar, Σ weight · loss of each entry. With weights of 1 / (entries of the whole step), the
            losses and gradients of its micro-batches add up to the step's mean, however it was cut.
        metrics: scalars without gradient, by name, weighted in the same way: they too add up to means.
    """

    loss: torch.Tensor
    metrics: dict[str, torch.Tensor] = field(default_factory=dict)

"""Errors of generation and learning.

RayboltError
├── TrainingError           a run cannot go on: nothing to learn from
└── EngineError             generation failed: a forward pass raised, the model's numbers are broken, …
    ├── ContextOverflow     the prompt leaves no room for a reply in the model's context
    └── UnsupportedModel    the engine cannot run this kind of model
"""

from __future__ import annotations

from raybolt.store.errors import RayboltError


class TrainingError(RayboltError):
    """A training run cannot go on; the message says what is missing."""


class EngineError(RayboltError):
    """The engine could not generate; the rollout is not to blame."""


class ContextOverflow(EngineError):
    """A prompt of `num_tokens` tokens leaves no room for a reply in `max_context` tokens."""

    def __init__(self, num_tokens: int, max_context: int) -> None:
        super().__init__(
            f"The prompt has {num_tokens} tokens, but the model's context holds {max_context}, "
            "reply included. Shorten what the agent puts into its messages, or use a model with more context."
        )
        self.num_tokens = num_tokens
        self.max_context = max_context

    def __reduce__(self) -> tuple[type[ContextOverflow], tuple[int, int]]:
        return type(self), (self.num_tokens, self.max_context)


class UnsupportedModel(EngineError):
    """The engine refuses this model; the message says why and what to do."""

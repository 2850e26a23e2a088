"""What generates tokens for a policy: token ids in; token ids, log-probabilities, weights version out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raybolt.rl.engines.base import Engine, GenerateRequest, Generation

if TYPE_CHECKING:
    from raybolt.rl.engines.transformers import TransformersEngine

__all__ = ["Engine", "GenerateRequest", "Generation", "TransformersEngine"]


def __getattr__(name: str) -> Any:
    """Imports torch and transformers only when the engine that needs them is asked for."""
    if name == "TransformersEngine":
        from raybolt.rl.engines.transformers import TransformersEngine

        return TransformersEngine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

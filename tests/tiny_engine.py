"""The engine of the shipped tiny model, for tests in which something really generates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from raybolt.env.models import resolve_model

if TYPE_CHECKING:
    from raybolt.rl.engines.transformers import TransformersEngine


@contextmanager
def tiny_engine() -> Iterator[TransformersEngine]:
    """On one thread: a model this small only waits for more."""
    import torch
    from transformers import AutoModelForCausalLM

    from raybolt.rl.engines.transformers import TransformersEngine

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(resolve_model("tiny").path, dtype=torch.float32)
    engine = TransformersEngine(model)
    try:
        yield engine
    finally:
        engine.close()

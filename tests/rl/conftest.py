"""A real, tiny Llama with random weights, peaked enough that greedy decoding has no near-ties."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch


def build_llama(**changes: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    settings: dict[str, Any] = {
        "vocab_size": 97,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": 0,
    }
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**(settings | changes))).eval()


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    """Models this small lose more by waking threads than they gain."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def make_llama() -> Callable[..., Any]:
    """Builds a Llama of 2 layers, 97 tokens, grouped-query attention; keyword arguments change its config."""
    return build_llama


@pytest.fixture(scope="session")
def llama() -> Any:
    """One such Llama for tests that leave the weights alone."""
    return build_llama()

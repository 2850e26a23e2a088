"""Log-probabilities of a micro-batch's loss entries under a causal language model.

Shapes: B rows, T columns, N loss entries, D hidden size, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from raybolt.rl.errors import UnsupportedModel

_CHUNK_LOGITS = 1 << 26
"""Logits alive at once (256 MiB of float32); more are computed in chunks, and again on the way back."""


def tree_attention_mask(end: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """[B, 1, T, T], added to attention scores: 0 where token i may see j, that is j ≤ i < end[j], else -inf.

    Args:
        end: int[B, T], see `MicroBatch`.
        dtype: of the model's activations.
    """
    columns = torch.arange(end.shape[1], device=end.device)
    query, key = columns[:, None], columns[None, :]
    hidden = (key > query) | (query >= end[:, None, :])
    mask = torch.zeros(hidden.shape, dtype=dtype, device=end.device)
    return mask.masked_fill_(hidden, -torch.inf)[:, None]


def forward_logps(
    model: Any, batch: Mapping[str, Any], *, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability and entropy of every loss entry.

    Args:
        model: a Transformers causal language model with full attention and a plain linear head.
        batch: the tensors of a `MicroBatch`: input_ids, position_ids, end, source, target.
        temperature: that the tokens were sampled with; the policy is softmax(logits / temperature).

    Returns:
        float32[N] log-probabilities, with gradients, and float32[N] entropies in nats, without.

    Raises:
        UnsupportedModel: the model rescales the logits that its head gives.
    """
    head = _plain_head(model)
    hidden = model.base_model(
        input_ids=batch["input_ids"],
        attention_mask=tree_attention_mask(batch["end"], model.dtype),
        position_ids=batch["position_ids"],
        use_cache=False,
    ).last_hidden_state
    # Logits are needed at the entries' parents alone; elsewhere the head, the largest layer, is not run.
    hidden = hidden.flatten(0, 1).index_select(0, batch["source"])
    chunk = max(1, _CHUNK_LOGITS // head.weight.shape[0])
    if len(hidden) <= chunk:
        return _entry_logps(head, hidden, batch["target"], temperature)
    parts = [
        checkpoint(_entry_logps, head, part, target, temperature, use_reentrant=False)
        for part, target in zip(hidden.split(chunk), batch["target"].split(chunk), strict=True)
    ]
    logps, entropies = zip(*parts, strict=True)
    return torch.cat(logps), torch.cat(entropies)


def _entry_logps(
    head: torch.nn.Module, hidden: torch.Tensor, target: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    logits = head(hidden).float() / temperature
    log_normaliser = logits.logsumexp(-1)
    logps = logits.gather(-1, target[:, None])[:, 0] - log_normaliser
    with torch.no_grad():
        # H = log Z − Σ p · logit; a token ruled out by a logit of −inf adds nothing.
        probs = torch.exp(logits - log_normaliser[:, None])
        entropy = log_normaliser - torch.where(probs > 0, probs * logits, 0.0).sum(-1)
    return logps, entropy


def _plain_head(model: Any) -> torch.nn.Linear:
    """The linear layer that turns hidden states into logits."""
    for name in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
        if getattr(model.config, name, None) not in (None, 1.0):
            raise UnsupportedModel(
                f"{type(model).__name__} rescales its logits ({name}={getattr(model.config, name)}), which "
                "training does not reproduce. Use a model without it, such as Llama, Qwen2, Qwen3 or SmolLM2."
            )
    return model.get_output_embeddings()

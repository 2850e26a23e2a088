"""One token per row of logits, by inverse transform sampling.

Shapes: B rows, V tokens of the vocabulary.
"""

from __future__ import annotations

import torch

from raybolt.rl.errors import EngineError


def sample_tokens(
    logits: torch.Tensor, *, temperatures: list[float], top_ps: list[float], uniforms: list[float]
) -> tuple[list[int], list[float]]:
    """The sampled token of each row and its log-probability.

    The token is the first whose cumulative probability exceeds the row's uniform number. Rows do not touch
    one another, so a row's token depends on its logits and its number only.

    Args:
        logits: [B, V], any float dtype; computed with in float32, cumulated in float64.
        temperatures: [B]; 0 takes the likeliest token, with its log-probability at temperature 1.
        top_ps: [B], in (0, 1].
        uniforms: [B], in [0, 1).

    Returns:
        Tokens, and log-softmax(logits / temperature) of each, of the untruncated distribution.

    Raises:
        EngineError: logits that are not numbers, which only broken weights give.
    """
    logits = logits.float()
    if any(t not in (0.0, 1.0) for t in temperatures):
        divisors = torch.tensor([t or 1.0 for t in temperatures], device=logits.device)
        logits = logits / divisors[:, None]
    log_normalisers = logits.logsumexp(-1, keepdim=True)
    if not bool(log_normalisers.isfinite().all()):
        raise EngineError(
            "The model's logits are not finite: its weights have diverged or are damaged. "
            "Go back to an earlier checkpoint, and lower lr or grad_clip."
        )
    if all(t == 0.0 for t in temperatures):
        tokens = logits.argmax(-1, keepdim=True)
    else:
        tokens = _inverse_transform(torch.exp(logits - log_normalisers), top_ps, uniforms)
        if 0.0 in temperatures:
            greedy = torch.tensor([t == 0.0 for t in temperatures], device=logits.device)[:, None]
            tokens = torch.where(greedy, logits.argmax(-1, keepdim=True), tokens)
    logps = logits.gather(-1, tokens) - log_normalisers
    return tokens[:, 0].tolist(), logps[:, 0].tolist()


def _inverse_transform(probs: torch.Tensor, top_ps: list[float], uniforms: list[float]) -> torch.Tensor:
    """int64[B, 1]: index of the first token whose cumulative probability exceeds the row's uniform."""
    if any(p < 1.0 for p in top_ps):
        probs = _keep_nucleus(probs, torch.tensor(top_ps, device=probs.device))
    cumulative = probs.cumsum(-1, dtype=torch.float64)
    # The last value is the total as summed, so that rounding cannot push a number beyond the last token.
    targets = torch.tensor(uniforms, dtype=torch.float64, device=probs.device)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, targets, right=True).clamp_(max=probs.shape[-1] - 1)


def _keep_nucleus(probs: torch.Tensor, top_ps: torch.Tensor) -> torch.Tensor:
    """`probs` with zeros outside the nucleus (Holtzman et al. 2020, arXiv:1904.09751, eq. 2).

    The nucleus is the smallest set of likeliest tokens whose probabilities reach top_p.
    """
    descending, order = probs.sort(dim=-1, descending=True, stable=True)
    mass_before = descending.cumsum(-1) - descending
    outside = (mass_before >= top_ps[:, None]) & (top_ps[:, None] < 1.0)
    # The likeliest token stays even if rounding says that nothing is needed.
    outside[:, 0] = False
    return probs.masked_fill(torch.zeros_like(outside).scatter_(-1, order, outside), 0.0)

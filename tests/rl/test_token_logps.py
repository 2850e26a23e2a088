from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from raybolt.rl import token_logps
from raybolt.rl.batching import empty_micro_batch, pack
from raybolt.rl.errors import UnsupportedModel
from raybolt.rl.losses import policy_gradient_loss
from raybolt.rl.merge import LossCall
from raybolt.rl.token_logps import forward_logps, tree_attention_mask

TEMPERATURE = 0.8


def branching_group(seed: int, num_runs: int = 4) -> list[LossCall]:
    """Runs of two calls from one prompt, the second extending the first; one response occurs twice."""
    rng = np.random.default_rng(seed)

    def tokens(low: int, high: int) -> np.ndarray:
        return rng.integers(1, 97, rng.integers(low, high)).astype(np.int32)

    def loss_call(prompt_ids: np.ndarray, response_ids: np.ndarray) -> LossCall:
        advantages = rng.normal(size=len(response_ids)).astype(np.float32)
        old_logps = rng.normal(-4.5, 0.3, len(response_ids)).astype(np.float32)
        return LossCall(prompt_ids, response_ids, advantages, old_logps)

    prompt, calls = tokens(5, 30), []
    for _ in range(num_runs):
        reply = tokens(2, 12)
        second_prompt = np.concatenate([prompt, reply, tokens(1, 8)])
        calls += [loss_call(prompt, reply), loss_call(second_prompt, tokens(2, 12))]
    return [*calls, loss_call(calls[0].prompt_ids, calls[0].response_ids)]


def surrogate(logps: torch.Tensor, columns: dict[str, torch.Tensor], num_entries: int) -> torch.Tensor:
    return policy_gradient_loss(
        logps,
        old_logps=columns["old_logps"],
        advantages=columns["advantages"],
        weight=columns["weight"] / num_entries,
        clip_low=0.2,
        clip_high=0.2,
    ).loss


def gradients(model: Any) -> torch.Tensor:
    vector = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    model.zero_grad()
    return vector


def train_each_call_alone(model: Any, calls: list[LossCall]) -> tuple[float, torch.Tensor]:
    num_entries = sum(len(call.response_ids) for call in calls)
    total = 0.0
    for call in calls:
        ids = torch.from_numpy(np.concatenate([call.prompt_ids, call.response_ids]).astype(np.int64))
        logps = torch.log_softmax(model(ids[None]).logits[0] / TEMPERATURE, -1)
        start = len(call.prompt_ids)
        entry_logps = logps[start - 1 : -1].gather(1, ids[start:, None])[:, 0]
        columns = {
            "old_logps": torch.from_numpy(call.old_logps),
            "advantages": torch.from_numpy(call.advantages),
            "weight": torch.ones(len(call.response_ids)),
        }
        loss = surrogate(entry_logps, columns, num_entries)
        loss.backward()
        total += loss.item()
    return total, gradients(model)


@pytest.mark.parametrize("share_prefixes", [True, False])
@pytest.mark.parametrize("token_budget", [10_000, 256, 40])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_loss_and_gradients_equal_training_each_call_alone(
    make_llama: Callable[..., Any], attention: str, token_budget: int, share_prefixes: bool
) -> None:
    model = make_llama(attn_implementation=attention)
    groups = [branching_group(seed) for seed in range(3)]
    calls = [call for group in groups for call in group]
    expected_loss, expected_gradients = train_each_call_alone(model, calls)

    batches = pack(groups, token_budget=token_budget, share_prefixes=share_prefixes)
    num_entries = sum(batch.num_entries for batch in batches)
    loss = 0.0
    for batch in batches:
        columns = batch.tensors()
        logps, _ = forward_logps(model, columns, temperature=TEMPERATURE)
        part = surrogate(logps, columns, num_entries)
        part.backward()
        loss += part.item()

    assert num_entries == sum(len(call.response_ids) for call in calls)
    assert loss == pytest.approx(expected_loss, abs=1e-5)
    torch.testing.assert_close(gradients(model), expected_gradients, atol=1e-5, rtol=1e-4)


def test_computing_in_chunks_changes_neither_numbers_nor_gradients(
    make_llama: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_llama()
    (batch,) = pack([branching_group(0)], token_budget=10_000)
    columns = batch.tensors()
    results = []
    for limit in (1 << 26, 97 * 7):
        monkeypatch.setattr(token_logps, "_CHUNK_LOGITS", limit)
        logps, entropy = forward_logps(model, columns, temperature=TEMPERATURE)
        logps.sum().backward()
        results.append((logps.detach(), entropy, gradients(model)))
    for whole, chunked in zip(*results, strict=True):
        torch.testing.assert_close(chunked, whole, atol=1e-5, rtol=1e-5)


def test_entropy_is_that_of_the_sampling_distribution(llama: Any) -> None:
    call = LossCall.demonstration(np.array([1, 2, 3], np.int32), np.array([4], np.int32))
    (batch,) = pack([[call]], token_budget=16)
    with torch.no_grad():
        _, entropy = forward_logps(llama, batch.tensors(), temperature=TEMPERATURE)
        logits = llama(torch.tensor([[1, 2, 3]])).logits[0, -1]
    expected = torch.distributions.Categorical(logits=logits / TEMPERATURE).entropy()
    assert entropy.tolist() == pytest.approx([expected.item()], abs=1e-4)


def test_an_empty_batch_has_gradients_of_zero(make_llama: Callable[..., Any]) -> None:
    model = make_llama()
    logps, _ = forward_logps(model, empty_micro_batch().tensors(), temperature=1.0)
    logps.sum().backward()
    assert all((p.grad == 0).all() for p in model.parameters() if p.grad is not None)


def test_a_token_sees_its_ancestors_and_itself_only() -> None:
    # 0 ─ 1 ─ 2
    # └── 3
    mask = tree_attention_mask(torch.tensor([[4, 3, 3, 4]]), torch.float32)
    assert (mask[0, 0] == 0).int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 1]]


def test_a_model_that_rescales_its_logits_is_refused(make_llama: Callable[..., Any]) -> None:
    model = make_llama()
    model.config.final_logit_softcapping = 30.0
    with pytest.raises(UnsupportedModel, match=r"final_logit_softcapping=30\.0"):
        forward_logps(model, empty_micro_batch().tensors(), temperature=1.0)

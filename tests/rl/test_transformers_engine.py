from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
import torch

from raybolt.rl.engines import GenerateRequest, Generation, TransformersEngine
from raybolt.rl.errors import ContextOverflow, EngineError, UnsupportedModel
from raybolt.store.errors import InvalidValue


def prompt(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 97, length).astype(np.int32)


def request(prompt_ids: np.ndarray, max_new_tokens: int = 12, **settings: Any) -> GenerateRequest:
    return GenerateRequest(prompt_ids, max_new_tokens, **{"temperature": 0.0, **settings})


def plain_greedy(model: Any, prompt_ids: np.ndarray, num_tokens: int) -> list[int]:
    ids = torch.from_numpy(prompt_ids.astype(np.int64))[None]
    output = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=num_tokens, do_sample=False
    )
    return output[0, len(prompt_ids) :].tolist()


def plain_logps(
    model: Any, prompt_ids: np.ndarray, response_ids: np.ndarray, temperature: float
) -> np.ndarray:
    ids = torch.from_numpy(np.concatenate([prompt_ids, response_ids]).astype(np.int64))
    with torch.no_grad():
        logps = torch.log_softmax(model(ids[None]).logits[0] / temperature, -1)
    start = len(prompt_ids)
    return logps[start - 1 : -1].gather(1, ids[start:, None])[:, 0].numpy()


@pytest.fixture
async def engine(llama: Any) -> AsyncIterator[TransformersEngine]:
    engine = TransformersEngine(llama, max_batch=4)
    yield engine
    engine.close()


async def test_greedy_replies_equal_plain_generate_for_ragged_prompts_joining_at_different_times(
    llama: Any, engine: TransformersEngine
) -> None:
    prompts = [prompt(length, seed) for seed, length in enumerate((3, 40, 17, 1, 90, 8, 8))]

    async def join_late(index: int) -> Generation:
        await asyncio.sleep(0.004 * index)
        return await engine.generate(request(prompts[index], 20 + index))

    replies = await asyncio.gather(*(join_late(i) for i in range(len(prompts))))
    for index, reply in enumerate(replies):
        assert reply.response_ids.tolist() == plain_greedy(llama, prompts[index], 20 + index)
        assert reply.finish_reason == "length"
        assert reply.response_ids.dtype == np.int32


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
async def test_logprobs_equal_those_of_a_plain_forward(
    llama: Any, engine: TransformersEngine, temperature: float
) -> None:
    prompts = [prompt(length, seed) for seed, length in enumerate((5, 31, 64))]
    replies = await asyncio.gather(
        *(engine.generate(request(p, temperature=temperature, seed=i)) for i, p in enumerate(prompts))
    )
    for prompt_ids, reply in zip(prompts, replies, strict=True):
        expected = plain_logps(llama, prompt_ids, reply.response_ids, temperature or 1.0)
        np.testing.assert_allclose(reply.logprobs, expected, atol=1e-5)


async def test_a_prompt_that_extends_a_finished_reply_runs_only_what_is_new(llama: Any) -> None:
    num_queries: list[int] = []
    hook = llama.model.register_forward_pre_hook(
        lambda module, args, kwargs: num_queries.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    engine = TransformersEngine(llama, max_batch=4)
    try:
        first = await engine.generate(request(prompt(50), 10, temperature=1.0))
        second_prompt = np.concatenate([prompt(50), first.response_ids, prompt(7, seed=1)])
        num_queries.clear()
        second = await engine.generate(request(second_prompt, 1, temperature=1.0))
    finally:
        hook.remove()
        engine.close()
    # 50 prompt and 9 reply tokens have keys and values; the last reply token never went in.
    assert num_queries == [1 + 7]
    np.testing.assert_allclose(
        second.logprobs, plain_logps(llama, second_prompt, second.response_ids, 1.0), atol=1e-5
    )


async def test_identical_prompts_that_arrive_together_are_run_once(llama: Any) -> None:
    num_rows: list[int] = []
    hook = llama.model.register_forward_pre_hook(
        lambda module, args, kwargs: num_rows.append(kwargs["input_ids"].shape[0]), with_kwargs=True
    )
    engine = TransformersEngine(llama, max_batch=8)
    try:
        replies = await asyncio.gather(
            *(engine.generate(request(prompt(30), 2, temperature=1.0, seed=s)) for s in range(6))
        )
    finally:
        hook.remove()
        engine.close()
    assert num_rows == [1, 6]
    for reply in replies:
        np.testing.assert_allclose(
            reply.logprobs, plain_logps(llama, prompt(30), reply.response_ids, 1.0), atol=1e-5
        )


async def test_a_seed_decides_the_reply_whoever_the_neighbours_are(engine: TransformersEngine) -> None:
    wanted = request(prompt(20), 30, temperature=1.0, seed=7)
    alone = await engine.generate(wanted)
    in_company, *_others = await asyncio.gather(
        engine.generate(wanted),
        *(engine.generate(request(prompt(9, s), 25, temperature=1.3, seed=s)) for s in range(1, 7)),
    )
    other_seed = await engine.generate(request(prompt(20), 30, temperature=1.0, seed=8))
    assert in_company.response_ids.tolist() == alone.response_ids.tolist()
    assert other_seed.response_ids.tolist() != alone.response_ids.tolist()


async def test_a_stop_token_ends_the_reply_and_belongs_to_it(llama: Any, engine: TransformersEngine) -> None:
    free = plain_greedy(llama, prompt(10), 12)
    stop = free[5]
    reply = await engine.generate(request(prompt(10), 12, stop_ids=(stop,)))
    assert reply.response_ids.tolist() == free[: free.index(stop) + 1]
    assert reply.finish_reason == "stop"


async def test_end_of_sequence_ids_of_the_engine_stop_every_reply(llama: Any) -> None:
    free = plain_greedy(llama, prompt(10), 12)
    engine = TransformersEngine(llama, eos_ids=[free[3]])
    reply = await engine.generate(request(prompt(10), 12))
    engine.close()
    assert reply.response_ids.tolist() == free[: free.index(free[3]) + 1]


async def test_a_reply_ends_where_the_context_ends(llama: Any) -> None:
    engine = TransformersEngine(llama, max_context=24)
    reply = await engine.generate(request(prompt(20), 50))
    engine.close()
    assert len(reply.response_ids) == 4
    assert reply.finish_reason == "length"


async def test_a_prompt_that_fills_the_context_is_an_overflow(llama: Any) -> None:
    engine = TransformersEngine(llama, max_context=24)
    with pytest.raises(ContextOverflow, match="24 tokens, but the model's context holds 24"):
        await engine.generate(request(prompt(24)))
    engine.close()


async def test_a_cancelled_request_leaves_the_batch_and_the_others_go_on(
    llama: Any, engine: TransformersEngine
) -> None:
    doomed = [asyncio.create_task(engine.generate(request(prompt(9, s), 240))) for s in range(8)]
    survivor = asyncio.create_task(engine.generate(request(prompt(33), 30)))
    await asyncio.sleep(0.01)
    for task in doomed:
        task.cancel()
    assert (await survivor).response_ids.tolist() == plain_greedy(llama, prompt(33), 30)
    engine.set_weights_version(1)  # Would refuse if anything were in flight.


async def test_a_failing_step_fails_its_requests_and_the_engine_goes_on(
    llama: Any, engine: TransformersEngine, caplog: pytest.LogCaptureFixture
) -> None:
    def explode(*args: Any) -> None:
        raise RuntimeError("out of luck")

    hook = llama.model.register_forward_pre_hook(explode)
    with caplog.at_level(logging.CRITICAL), pytest.raises(EngineError, match="RuntimeError: out of luck"):
        await engine.generate(request(prompt(9)))
    hook.remove()
    reply = await engine.generate(request(prompt(9)))
    assert reply.response_ids.tolist() == plain_greedy(llama, prompt(9), 12)


async def test_diverged_weights_are_reported_as_such(make_llama: Callable[..., Any]) -> None:
    model = make_llama()
    model.lm_head.weight.data.fill_(float("nan"))
    engine = TransformersEngine(model)
    with pytest.raises(EngineError, match="not finite"):
        await engine.generate(request(prompt(9)))
    engine.close()


async def test_new_weights_drop_what_was_computed_under_the_old_ones(make_llama: Callable[..., Any]) -> None:
    model = make_llama()
    engine = TransformersEngine(model)
    before = await engine.generate(request(prompt(30), 8))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(-1.1)
    engine.set_weights_version(3)
    after = await engine.generate(request(prompt(30), 8))
    engine.close()
    assert (before.weights_version, after.weights_version) == (0, 3)
    assert after.response_ids.tolist() == plain_greedy(model, prompt(30), 8)
    assert after.response_ids.tolist() != before.response_ids.tolist()


async def test_weights_cannot_change_under_a_request(engine: TransformersEngine) -> None:
    running = asyncio.create_task(engine.generate(request(prompt(9), 200)))
    await asyncio.sleep(0.01)
    with pytest.raises(EngineError, match="1 requests were in flight"):
        engine.set_weights_version(1)
    assert (await running).weights_version == 0


async def test_closing_fails_what_is_in_flight(llama: Any) -> None:
    engine = TransformersEngine(llama)
    running = asyncio.create_task(engine.generate(request(prompt(9), 240)))
    await asyncio.sleep(0.01)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        await running
    with pytest.raises(EngineError, match="closed"):
        await engine.generate(request(prompt(9)))


async def test_a_small_prefix_memory_changes_no_reply(llama: Any) -> None:
    engine = TransformersEngine(llama, max_batch=3, prefix_bytes=100_000)
    for turn in range(3):
        prompts = [prompt(20 + 9 * turn, seed) for seed in range(9)]
        replies = await asyncio.gather(*(engine.generate(request(p, 9)) for p in prompts))
        for prompt_ids, reply in zip(prompts, replies, strict=True):
            assert reply.response_ids.tolist() == plain_greedy(llama, prompt_ids, 9)
    engine.close()


def test_a_model_with_sliding_windows_is_refused() -> None:
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        sliding_window=16,
    )
    with pytest.raises(UnsupportedModel, match="does not use full attention in each layer"):
        TransformersEngine(MistralForCausalLM(config))


@pytest.mark.parametrize("family", ["Qwen2", "Qwen3"])
async def test_other_families_generate_as_plain_generate_does(family: str) -> None:
    import transformers

    torch.manual_seed(1)
    config = getattr(transformers, f"{family}Config")(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=128,
        initializer_range=0.2,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    engine = TransformersEngine(model)
    prompts = [prompt(length) for length in (4, 25)]
    replies = await asyncio.gather(*(engine.generate(request(p, 10)) for p in prompts))
    engine.close()
    for prompt_ids, reply in zip(prompts, replies, strict=True):
        assert reply.response_ids.tolist() == plain_greedy(model, prompt_ids, 10)


async def test_a_bfloat16_model_generates(make_llama: Callable[..., Any]) -> None:
    engine = TransformersEngine(make_llama().to(torch.bfloat16))
    reply = await engine.generate(request(prompt(20), 10, temperature=1.0))
    engine.close()
    assert len(reply.response_ids) == 10
    assert np.isfinite(reply.logprobs).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1; it is 0"),
        ({"temperature": -1.0}, "temperature must be 0"),
        ({"temperature": float("nan")}, "temperature must be 0"),
        ({"top_p": 0.0}, "top_p must be in"),
        ({"prompt_ids": np.zeros(0, np.int32)}, "non-empty vector"),
    ],
)
def test_bad_requests_name_the_field(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        GenerateRequest(**{"prompt_ids": prompt(3), "max_new_tokens": 4, **settings})

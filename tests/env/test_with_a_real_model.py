"""The environment stepped by a real, tiny, random torch model that samples its tokens."""

import asyncio

import numpy as np
import pytest
import torch
from scripted_runs import TASK, Program

from raybolt.env.agent_env import AgentEnv
from raybolt.env.chat import ChatMessage, ChatRequest, ToolSpec
from raybolt.env.policy import Sampled

TOOL = ToolSpec("look", "looks", {"type": "object", "properties": {"q": {"type": "string"}}})


@pytest.fixture(scope="module")
def model():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=610,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=1024,
    )
    return LlamaForCausalLM(config).eval()


def sample(model, prompt_ids, generator, length=12):
    """Up to `length` tokens sampled one by one, and their log-probabilities."""
    ids = torch.tensor(prompt_ids, dtype=torch.long)
    logprobs = []
    with torch.no_grad():
        for _ in range(length):
            scores = torch.log_softmax(model(ids[None]).logits[0, -1], dim=-1)
            token = torch.multinomial(scores.exp(), 1, generator=generator)
            ids = torch.cat([ids, token])
            logprobs.append(float(scores[token]))
    return Sampled(
        ids[len(prompt_ids) :].numpy().astype(np.int32), np.array(logprobs, dtype=np.float32), 1, 1.0
    )


async def chatting(task, policy):
    messages = [ChatMessage("user", "hello")]
    for turn in range(3):
        answer = (await policy.complete(ChatRequest(tuple(messages), (TOOL,)))).message
        # As a framework gives it back: whitespace trimmed.
        messages += [
            ChatMessage("assistant", (answer.content or "").strip()),
            ChatMessage("user", f"go on {turn}"),
        ]
    return 1


async def episode(model, codec, seed):
    env = AgentEnv(Program(chatting), codec=codec)
    generator = torch.Generator().manual_seed(seed)
    observations, _ = await env.areset(TASK)
    while env.end is None:
        actions = {agent: sample(model, prompt, generator) for agent, prompt in observations.items()}
        observations, *_ = await env.astep(actions)
    return env.trajectory


async def test_sampled_tokens_come_back_in_the_next_prompt_whatever_they_are(model, codec):
    for trajectory in await asyncio.gather(*(episode(model, codec, seed) for seed in range(4))):
        for earlier, later in zip(trajectory.calls, trajectory.calls[1:], strict=False):
            begin = np.concatenate([earlier.prompt_ids, earlier.response_ids])
            np.testing.assert_array_equal(later.prompt_ids[: len(begin)], begin)
            assert later.drift is None


async def test_the_recorded_logprobs_are_the_models_on_the_recorded_tokens(model, codec):
    trajectory = await episode(model, codec, seed=5)
    last = trajectory.calls[-1]
    ids = torch.tensor(np.concatenate([last.prompt_ids, last.response_ids]), dtype=torch.long)
    with torch.no_grad():
        scores = torch.log_softmax(model(ids[None]).logits[0], dim=-1)
    # All three replies stand in this one sequence, at the places where they were sampled.
    for call in trajectory.calls:
        places = torch.arange(len(call.prompt_ids), len(call.prompt_ids) + len(call.response_ids))
        np.testing.assert_allclose(scores[places - 1, ids[places]].numpy(), call.logprobs, atol=1e-4)


async def test_a_seed_reproduces_a_run_exactly(model, codec):
    one, two = await asyncio.gather(episode(model, codec, 3), episode(model, codec, 3))
    for first, second in zip(one.calls, two.calls, strict=True):
        np.testing.assert_array_equal(first.prompt_ids, second.prompt_ids)
        np.testing.assert_array_equal(first.response_ids, second.response_ids)
        assert first.reply == second.reply

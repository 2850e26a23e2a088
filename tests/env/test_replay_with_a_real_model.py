"""Forks whose replies a real, tiny, random torch model samples: the same beginning, other ends."""

import numpy as np
import pytest
import torch
from scripted_runs import Program

from raybolt.env.chat import ChatMessage, ChatRequest
from raybolt.env.fork import fork
from raybolt.env.limits import RunLimits
from raybolt.env.policy import RunEnd, Sampled
from raybolt.env.recorder import SpanRecorder
from raybolt.env.run import AgentRun
from raybolt.env.stepper import RunStepper
from raybolt.env.task import Task
from raybolt.env.trajectory import trajectory_from_spans
from raybolt.store import LocalStore


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


def sampler(model, seed, length=8):
    """A policy that samples `length` tokens one by one."""
    generator = torch.Generator().manual_seed(seed)

    async def answer(prompt):
        ids, logprobs = torch.tensor(prompt.prompt_ids, dtype=torch.long), []
        with torch.no_grad():
            for _ in range(length):
                scores = torch.log_softmax(model(ids[None]).logits[0, -1], dim=-1)
                token = torch.multinomial(scores.exp(), 1, generator=generator)
                ids = torch.cat([ids, token])
                logprobs.append(float(scores[token]))
        new = ids[len(prompt.prompt_ids) :].numpy().astype(np.int32)
        return Sampled(new, np.array(logprobs, np.float32), 1, 1.0)

    return answer


class Chatting:
    name, limits, reward, trainable = "chatting", RunLimits(), None, None

    def program(self):
        return Program(self.run)

    async def run(self, task, policy):
        messages = [ChatMessage("user", "hello")]
        for turn in range(3):
            answer = (await policy.complete(ChatRequest(tuple(messages)))).message
            messages += [answer, ChatMessage("user", f"go on {turn}")]
        return 1


async def trajectory(store, rollout_id):
    spans = await store.query_spans(rollout_id, "latest")
    return trajectory_from_spans(spans, rollout_id=rollout_id, attempt_id="x")


async def test_forks_of_sampled_runs_share_every_token_up_to_the_fork(model, codec):
    agent, answer = Chatting(), sampler(model, seed=1)
    async with LocalStore(None) as store:
        started = await store.start_rollout("hello", task_id="t")
        recorder = SpanRecorder(started.rollout_id, started.attempt.attempt_id)
        stepper = RunStepper(AgentRun(agent.program(), Task("t", "hello"), recorder=recorder), codec)
        while not isinstance(prompts := await stepper.next(), RunEnd):
            stepper.act({prompt.call.call_id: await answer(prompt) for prompt in prompts})
        await store.add_many_spans(recorder.drain())
        await store.update_attempt(started.rollout_id, "latest", status="succeeded")
        then = await trajectory(store, started.rollout_id)
        made = await fork(agent, store, started.rollout_id, 1, 2, answer=sampler(model, seed=2), codec=codec)
        forks = [await trajectory(store, rollout_id) for rollout_id in made.rollout_ids]
    assert made.errors == {}
    for each in forks:
        first, second, third = each.calls
        for name in ("prompt_ids", "response_ids", "logprobs"):
            np.testing.assert_array_equal(getattr(first, name), getattr(then.calls[0], name))
        np.testing.assert_array_equal(second.prompt_ids, then.calls[1].prompt_ids)
        begin = np.concatenate([second.prompt_ids, second.response_ids])
        np.testing.assert_array_equal(third.prompt_ids[: len(begin)], begin)
        assert (second.drift, third.drift) == (None, None)
    ends = {tuple(each.calls[1].response_ids.tolist()) for each in (then, *forks)}
    assert len(ends) == 3

"""Forks of every kind of agent whose replies the tiny model samples: the same beginning, other ends."""

import itertools

import numpy as np
import pytest
from kits.every import KITS, kit_of
from recorded_agents import TASK, wrapped

import raybolt
from raybolt.env.codec import codec_for
from raybolt.env.policy import RunEnd, Sampled
from raybolt.env.recorded import summary_of, task_metadata
from raybolt.env.recorder import SpanRecorder
from raybolt.env.run import AgentRun
from raybolt.env.stepper import RunStepper
from raybolt.env.trajectory import trajectory_from_spans
from raybolt.rl.engines.base import GenerateRequest
from raybolt.store import LocalStore


def sampling(engine, codec, first_seed):
    """A policy: the model's samples, each by a seed of its own."""
    seeds = itertools.count(first_seed)

    async def answer(prompt):
        request = GenerateRequest(
            prompt_ids=prompt.prompt_ids,
            max_new_tokens=6,
            temperature=4.0,  # the tiny model is sure of what it says
            seed=next(seeds),
            stop_ids=codec.stop_ids,
        )
        generation = await engine.generate(request)
        return Sampled(generation.response_ids, generation.logprobs, 3, 4.0)

    return answer


async def trajectory(store, rollout_id):
    spans = await store.query_spans(rollout_id, "latest")
    return trajectory_from_spans(spans, rollout_id=rollout_id, attempt_id="x")


async def record(store, agent, codec, answer):
    started = await store.start_rollout(TASK.input, task_id="t1", metadata=task_metadata(TASK))
    recorder = SpanRecorder(started.rollout_id, started.attempt.attempt_id)
    run = AgentRun(agent.program(), TASK, recorder=recorder, limits=agent.limits, reward=agent.reward)
    stepper = RunStepper(run, codec)
    while not isinstance(prompts := await stepper.next(), RunEnd):
        stepper.act({prompt.call.call_id: await answer(prompt) for prompt in prompts})
    assert not prompts.failed, prompts
    await store.add_many_spans(recorder.drain())
    await store.update_attempt(
        started.rollout_id, "latest", status="succeeded", metadata=summary_of(run.trajectory)
    )
    return started.rollout_id


@pytest.mark.parametrize("framework", KITS)
async def test_forks_share_every_sampled_token_up_to_the_fork(framework, engine):
    kit, codec = kit_of(framework), codec_for("tiny")
    limits = raybolt.RunLimits(max_calls=4, max_seconds=120)
    agent = wrapped(kit, kit.two_roles(kit.ways[0]), limits=limits)
    async with LocalStore(None) as store:
        rollout_id = await record(store, agent, codec, sampling(engine, codec, 1))
        made = await raybolt.fork(
            agent, store, rollout_id, 1, 2, answer=sampling(engine, codec, 100), codec=codec
        )
        assert made.errors == {}
        then = await trajectory(store, rollout_id)
        forks = [await trajectory(store, each) for each in made.rollout_ids]
        (handle,) = await store.take_groups(1)
        assert (handle.num_rollouts, handle.num_succeeded) == (2, 2)
    for each in forks:
        assert [call.role for call in each.calls] == ["writer", "critic"]
        for name in ("prompt_ids", "response_ids", "logprobs"):
            np.testing.assert_array_equal(getattr(each.calls[0], name), getattr(then.calls[0], name))
        np.testing.assert_array_equal(each.calls[1].prompt_ids, then.calls[1].prompt_ids)
        assert each.calls[1].weights_version == 3
    ends = {tuple(each.calls[1].response_ids.tolist()) for each in (then, *forks)}
    assert len(ends) > 1

"""The kits' agents on a real model: what was sampled is what is kept, and what earlier turns are made of."""

import json

import numpy as np
import pytest
from kits.every import KITS, kit_of

from raybolt.adapters.check import call
from raybolt.env.policy import Sampled
from raybolt.env.task import Task
from raybolt.rl.engines.base import GenerateRequest

WAYS = [
    pytest.param(framework, way, id=f"{framework}-{way}")
    for framework in KITS
    for way in ("factory", "built")
    if (framework, way) != ("python", "factory")
]
VERSION = 7


def shout(word: str) -> str:
    """Says a word loudly."""
    return word.upper()


async def generated(engine, env, prompt_ids):
    request = GenerateRequest(
        prompt_ids=prompt_ids, max_new_tokens=12, temperature=1.0, seed=3, stop_ids=env.codec.stop_ids
    )
    reply = await engine.generate(request)
    return Sampled(reply.response_ids, reply.logprobs, VERSION, 1.0)


async def episode(env, act):
    """The trajectory, and the actions in their order; `act(observation, info)` gives each."""
    actions = []
    observations, infos = await env.areset(Task("task", "Tell me about the rain."))
    while env.end is None:
        given = {agent: await act(seen, infos[agent]) for agent, seen in observations.items()}
        actions += given.values()
        observations, _, _, _, infos = await env.astep(given)
    return env.trajectory, actions


def assert_kept(trajectory, actions):
    assert len(trajectory.calls) == len(actions)
    for kept, action in zip(trajectory.calls, actions, strict=True):
        np.testing.assert_array_equal(kept.response_ids, action.response_ids)
        assert kept.weights_version == VERSION
        if action.logprobs is not None:
            np.testing.assert_array_equal(kept.logprobs, action.logprobs)


@pytest.mark.parametrize(("framework", "way"), WAYS)
async def test_what_the_model_samples_for_two_agents_is_what_is_kept(framework, way, engine):
    kit = kit_of(framework)
    env = kit.wrap(kit.two_roles(way), reward=lambda task, result, trajectory: 1.0).env("tiny")
    trajectory, actions = await episode(env, lambda prompt_ids, info: generated(engine, env, prompt_ids))
    assert [each.role for each in trajectory.calls] == ["writer", "critic"]
    assert_kept(trajectory, actions)
    assert trajectory.total_reward == 1.0
    said = trajectory.calls[0].reply.content
    assert said
    assert said in "\n".join(message.content or "" for message in trajectory.calls[1].messages)


@pytest.mark.parametrize(("framework", "way"), WAYS)
async def test_the_turn_after_a_tool_begins_with_the_very_tokens_of_the_turn_before(framework, way, engine):
    kit = kit_of(framework)
    agent = kit.wrap(kit.with_tools(way, [shout]), reward=lambda task, result, trajectory: 1.0)
    env = agent.env("tiny")

    async def act(prompt_ids, info):
        request = info["request"]
        if any(message.role == "tool" for message in request.messages):
            return await generated(engine, env, prompt_ids)
        wanted = call(("shout", {"word": "rain"})).message
        return Sampled(env.codec.encode_reply(request, wanted), None, VERSION, 1.0)

    trajectory, actions = await episode(env, act)
    assert len(actions) >= 2
    assert_kept(trajectory, actions)
    assert {each.drift for each in trajectory.calls} == {None}
    for earlier, later in zip(trajectory.calls, trajectory.calls[1:], strict=False):
        known = np.concatenate([earlier.prompt_ids, earlier.response_ids])
        np.testing.assert_array_equal(later.prompt_ids[: len(known)], known)
    assert json.loads(trajectory.calls[0].reply.tool_calls[0].arguments) == {"word": "rain"}

"""The views of a wrapped agent, with a real tiny model that generates."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import view_agents as agents
from tiny_engine import tiny_engine

import raybolt
from raybolt.env.chat import ChatRequest, Completion
from raybolt.env.check import RULES, check_env
from raybolt.env.codec import codec_for
from raybolt.env.memory import CodecMemory
from raybolt.rl.engines.base import GenerateRequest
from raybolt.rl.engines.transformers import TransformersEngine

AGENT = raybolt.wrap(agents.duo, reward=lambda task, result, trajectory: float(len(trajectory.calls)))
CODEC = codec_for("tiny")
SIZES = {"max_tokens": 200, "max_new_tokens": 8}


@pytest.fixture(scope="module")
def engine() -> Iterator[TransformersEngine]:
    with tiny_engine() as engine:
        yield engine


async def generate(engine: TransformersEngine, prompt_ids: np.ndarray) -> np.ndarray:
    request = GenerateRequest(
        prompt_ids=prompt_ids, max_new_tokens=8, temperature=0.0, stop_ids=CODEC.stop_ids
    )
    return (await engine.generate(request)).response_ids


def padded_reply(engine: TransformersEngine, observation: dict[str, Any]) -> np.ndarray:
    prompt_ids = observation["tokens"][: observation["length"]]
    response_ids = asyncio.run(generate(engine, prompt_ids))
    return np.pad(response_ids, (0, 8 - len(response_ids)), constant_values=7)


@pytest.mark.usefixtures("openai_client")
def test_one_role_is_decided_on_while_a_frozen_model_plays_the_other(engine):
    async def frozen(request: ChatRequest) -> Completion:
        return CODEC.decode(await generate(engine, CODEC.encode(request, CodecMemory())), request)

    env = AGENT.gym_env("writer", others=frozen, tasks=agents.TASKS, **SIZES)
    observation, info = env.reset(seed=1)
    action = padded_reply(engine, observation)
    _, reward, terminated, _, _ = env.step(action)
    assert (reward, terminated) == (2.0, True)
    writer, critic = env.trajectory.calls
    assert writer.response_ids.tolist() == action[: len(writer.response_ids)].tolist()
    assert writer.prompt_ids.tolist() == observation["tokens"][: observation["length"]].tolist()
    assert (critic.role, len(critic.prompt_ids) > 0) == ("critic", True)
    assert info["role"] == "writer"


@pytest.mark.usefixtures("openai_client")
def test_both_roles_act_in_the_parallel_view(engine):
    pytest.importorskip("pettingzoo", reason="the view needs the extra pettingzoo")
    env = AGENT.parallel_env(tasks=agents.TASKS, **SIZES)
    for task in agents.TASKS[:3]:
        observations, _ = env.reset(options={"task": task})
        taken: list[list[int]] = []
        while env.agents:
            asked = [agent for agent in env.agents if observations[agent]["length"]]
            actions = {agent: padded_reply(engine, observations[agent]) for agent in asked}
            taken += [action.tolist() for action in actions.values()]
            observations, rewards, *_ = env.step(actions)
        assert rewards == {"writer": 2.0, "critic": 2.0}
        said = [call.response_ids.tolist() for call in env.env.trajectory.calls]
        assert said == [action[: len(ids)] for action, ids in zip(taken, said, strict=True)]


@pytest.mark.usefixtures("openai_client")
def test_an_agent_whose_calls_a_model_answers_keeps_all_rules(engine):
    def reply(request: ChatRequest) -> np.ndarray:
        return asyncio.run(generate(engine, CODEC.encode(request, CodecMemory())))

    assert check_env(AGENT, agents.TASKS[:2], reply=reply) == tuple(RULES)

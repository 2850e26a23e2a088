"""Every way to bring an agent, on a real model: the tokens that were sampled are the tokens that are kept."""

import asyncio

import numpy as np
import pytest
from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI, OpenAI
from tiny_model import episode

import raybolt

NOWHERE = "http://127.0.0.1:9/v1"


@tool
def run_sql(query: str) -> str:
    """Run a SQLite query and see its rows."""
    return "no rows"


def factory(llm):
    return create_agent(llm, [run_sql], system_prompt="Answer with one SQLite query.")


def built_agent():
    return factory(ChatOpenAI(model="gpt-5", api_key="unused", base_url=NOWHERE))


def two_turns(question):
    with OpenAI(api_key="unused", base_url=NOWHERE, max_retries=0) as client:
        messages = [{"role": "user", "content": question}]
        for _ in range(2):
            reply = client.chat.completions.create(model="gpt-5", messages=messages)
            messages += [reply.choices[0].message, {"role": "user", "content": "and again"}]


async def two_turns_async(question):
    async with AsyncOpenAI(api_key="unused", base_url=NOWHERE, max_retries=0) as client:
        messages = [{"role": "user", "content": question}]
        for _ in range(2):
            reply = await client.chat.completions.create(model="gpt-5", messages=messages)
            messages += [reply.choices[0].message, {"role": "user", "content": "and again"}]


@pytest.mark.parametrize("agent", [factory, built_agent, two_turns, two_turns_async])
async def test_sampled_tokens_reach_the_trajectory_and_are_reused_as_they_were(agent, engine):
    wrapped = raybolt.wrap(
        agent() if agent is built_agent else agent,
        reward=lambda task, result, trajectory: float(len(trajectory.calls)),
        limits=raybolt.RunLimits(max_calls=6, max_seconds=30),
    )
    task = raybolt.Task("t", "singer(singer_id, name, age)\nShow the name of each singer.")
    trajectories = await asyncio.gather(*(episode(wrapped.env("tiny"), engine, task) for _ in range(3)))
    for trajectory in trajectories:
        assert trajectory.total_reward == len(trajectory.calls)
        for call in trajectory.calls:
            assert call.weights_version == 3
            assert call.logprobs.shape == call.response_ids.shape
            assert call.drift is None
        for earlier, later in zip(trajectory.calls, trajectory.calls[1:], strict=False):
            known = np.concatenate([earlier.prompt_ids, earlier.response_ids])
            np.testing.assert_array_equal(later.prompt_ids[: len(known)], known)
    first, *others = trajectories
    for other in others:  # greedy: one run is like another
        np.testing.assert_array_equal(first.calls[0].response_ids, other.calls[0].response_ids)
    if agent in (two_turns, two_turns_async):
        assert len(first.calls) == 2


def test_a_wrapped_agent_creates_environments_for_rllib():
    agent = raybolt.wrap(factory, limits=raybolt.RunLimits(max_calls=2))
    env = agent({"model": "tiny"})
    observations, infos = env.reset(options={"task": raybolt.Task("t", "hello")})
    assert list(observations) == ["agent"]
    assert infos["agent"]["request"].tools[0].name == "run_sql"
    assert env.limits.max_calls == 2
    env.close()

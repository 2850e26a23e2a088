"""The OpenAI Agents SDK and the Responses API on a real model: sampled tokens are the tokens kept."""

import asyncio

import numpy as np
import pytest
from agents import Agent, Runner, function_tool
from openai import AsyncOpenAI, OpenAI
from tiny_model import episode

import raybolt
from raybolt.env.policy import Sampled

NOWHERE = "http://127.0.0.1:9/v1"


@function_tool
def run_sql(query: str) -> str:
    """Run a SQLite query and see its rows."""
    return "no rows"


def factory(llm):
    async def ask(question):
        draft = (await Runner.run(Agent("writer", model=llm, tools=[run_sql]), question)).final_output
        return await Runner.run(Agent("critic", model=llm), f"{question}\n{draft}")

    return ask


BUILT = Agent("writer", instructions="Answer with one SQLite query.", tools=[run_sql])


def blocking(question):
    first = Runner.run_sync(BUILT, question)
    return Runner.run_sync(BUILT, [*first.to_input_list(), {"role": "user", "content": "and again"}])


async def streamed(question):
    first = Runner.run_streamed(BUILT, question)
    async for _ in first.stream_events():
        pass
    second = Runner.run_streamed(BUILT, [*first.to_input_list(), {"role": "user", "content": "and again"}])
    async for _ in second.stream_events():
        pass


def responses(question):
    with OpenAI(api_key="unused", base_url=NOWHERE, max_retries=0) as client:
        first = client.responses.create(model="gpt-5", input=question)
        client.responses.create(model="gpt-5", input="and again", previous_response_id=first.id)


async def responses_streamed(question):
    async with AsyncOpenAI(api_key="unused", base_url=NOWHERE, max_retries=0) as client:
        items = [{"role": "user", "content": question}]
        for _ in range(2):
            async for event in await client.responses.create(model="gpt-5", input=items, stream=True):
                last = event
            items += [*last.response.output, {"role": "user", "content": "and again"}]


@pytest.mark.parametrize("agent", [factory, blocking, streamed, responses, responses_streamed])
async def test_sampled_tokens_reach_the_trajectory_and_are_reused_as_they_were(agent, engine):
    wrapped = raybolt.wrap(
        agent,
        reward=lambda task, result, trajectory: float(len(trajectory.calls)),
        limits=raybolt.RunLimits(max_calls=8, max_seconds=30),
    )
    task = raybolt.Task("t", "singer(singer_id, name, age)\nShow the name of each singer.")
    trajectories = await asyncio.gather(*(episode(wrapped.env("tiny"), engine, task) for _ in range(3)))
    for trajectory in trajectories:
        assert trajectory.total_reward == len(trajectory.calls) >= 2
        for call in trajectory.calls:
            assert call.weights_version == 3
            assert call.logprobs.shape == call.response_ids.shape
            assert call.drift is None
        if agent is factory:
            assert {call.role for call in trajectory.calls} == {"writer", "critic"}
            continue
        for earlier, later in zip(trajectory.calls, trajectory.calls[1:], strict=False):
            known = np.concatenate([earlier.prompt_ids, earlier.response_ids])
            np.testing.assert_array_equal(later.prompt_ids[: len(known)], known)
    first, *others = trajectories
    for other in others:  # greedy: one run is like another
        np.testing.assert_array_equal(first.calls[0].response_ids, other.calls[0].response_ids)


async def test_tokens_of_tool_calls_run_tools_and_hand_over():
    """The replies, which a model this small would not find, are given as tokens of its vocabulary."""
    critic = Agent("critic", instructions="Repair the query.")
    writer = Agent("writer", tools=[run_sql], handoffs=[critic])
    agent = raybolt.wrap(writer, reward=lambda task, result, trajectory: 1.0)
    env = agent.env("tiny")
    task = raybolt.Task("t", "singer(singer_id, name, age)\nShow the name of each singer.")
    replies = iter(
        [
            '<tool_call>{"name": "run_sql", "arguments": {"query": "SELECT name FROM singer"}}</tool_call>',
            '<tool_call>{"name": "transfer_to_critic", "arguments": {}}</tool_call>',
            "SELECT name FROM singer",
        ]
    )
    observations, _ = await env.areset(task)
    roles = []
    while env.end is None:
        ((agent_id, _),) = observations.items()
        roles.append(agent_id)
        ids = env.codec.tokenizer(next(replies), add_special_tokens=False)["input_ids"]
        observations, *_ = await env.astep({agent_id: Sampled(np.array([*ids, env.codec.end_id], np.int32))})
    assert roles == ["writer", "writer", "critic"]
    assert env.end.result.final_output == "SELECT name FROM singer"
    first, second, third = env.trajectory.calls
    assert (first.drift, second.drift) == (None, None)
    assert "what stands before them changed" in third.drift  # the critic's instructions

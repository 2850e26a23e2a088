"""AutoGen's agents and teams on a real model: the tokens that were sampled are the tokens that are kept."""

import asyncio

import numpy as np
import pytest
from autogen_agentchat.agents import AssistantAgent, SocietyOfMindAgent
from autogen_agentchat.messages import ModelClientStreamingChunkEvent
from autogen_agentchat.teams import RoundRobinGroupChat, SelectorGroupChat, Swarm
from autogen_agentchat.tools import AgentTool
from autogen_ext.models.openai import OpenAIChatCompletionClient
from tiny_model import episode

import raybolt

QUESTION = "singer(singer_id, name, age)\nShow the name of each singer."
TASK = raybolt.Task("t", QUESTION)


def run_sql(query: str) -> str:
    """Run a SQLite query and see its rows."""
    return "no rows"


def writer(llm, name="writer"):
    return AssistantAgent(name, llm, system_message="Answer with one SQLite query.")


def with_tool(llm):
    return AssistantAgent("writer", llm, tools=[run_sql], max_tool_iterations=3, reflect_on_tool_use=True)


def pair(llm):
    return RoundRobinGroupChat([writer(llm), writer(llm, "critic")], max_turns=4)


def selector(llm):
    members = [writer(llm), writer(llm, "critic"), writer(llm, "editor")]
    return SelectorGroupChat(members, model_client=llm, max_turns=2)


def swarm(llm):
    first = AssistantAgent("writer", llm, handoffs=["critic"])
    return Swarm([first, writer(llm, "critic")], max_turns=2)


def society(llm):
    return SocietyOfMindAgent("society", RoundRobinGroupChat([writer(llm)], max_turns=1), llm)


def boss(llm):
    return AssistantAgent("boss", llm, tools=[AgentTool(writer(llm))], max_tool_iterations=2)


def streaming(llm):
    async def ask(question: str) -> str:
        agent = AssistantAgent("writer", llm, model_client_stream=True)
        events = [event async for event in agent.run_stream(task=question)]
        return "".join(e.content for e in events if isinstance(e, ModelClientStreamingChunkEvent))

    return ask


def built():
    nowhere = "http://127.0.0.1:9/v1"
    return pair(OpenAIChatCompletionClient(model="gpt-4o", api_key="x", base_url=nowhere, max_retries=0))


ROLES = [
    (with_tool, {"writer"}),
    (pair, {"writer", "critic"}),
    (selector, {"SelectorGroupChatManager", "writer", "critic", "editor"}),
    (swarm, {"writer", "critic"}),
    (society, {"society", "writer"}),
    (boss, {"boss", "writer"}),
    (streaming, {"writer"}),
    (built, {"writer", "critic"}),
]


@pytest.mark.parametrize(("agent", "roles"), ROLES)
async def test_sampled_tokens_reach_the_trajectory_of_every_role(agent, roles, engine):
    wrapped = raybolt.wrap(
        built() if agent is built else agent,
        reward=lambda task, result, trajectory: float(len(trajectory.calls)),
        limits=raybolt.RunLimits(max_calls=20, max_seconds=60),
    )
    trajectories = await asyncio.gather(
        *(episode(wrapped.env("tiny"), engine, TASK, max_new_tokens=16) for _ in range(3))
    )
    for trajectory in trajectories:
        assert trajectory.total_reward == len(trajectory.calls)
        assert {call.role for call in trajectory.calls} <= roles
        for call in trajectory.calls:
            assert call.weights_version == 3
            assert call.logprobs.shape == call.response_ids.shape
            assert call.drift is None
    first, *others = trajectories
    for other in others:  # greedy: one run is like another
        for one, same in zip(first.calls, other.calls, strict=True):
            np.testing.assert_array_equal(one.response_ids, same.response_ids)


async def test_what_a_role_said_before_is_reused_token_by_token(engine):
    wrapped = raybolt.wrap(pair, reward=lambda task, result, trajectory: 1.0)
    trajectory = await episode(wrapped.env("tiny"), engine, TASK, max_new_tokens=16)
    assert [call.role for call in trajectory.calls] == ["writer", "critic", "writer", "critic"]
    for earlier, later in zip(trajectory.calls, trajectory.calls[2:], strict=False):
        known = np.concatenate([earlier.prompt_ids, earlier.response_ids])
        np.testing.assert_array_equal(later.prompt_ids[: len(known)], known)

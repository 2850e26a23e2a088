"""LangChain's streams, parallel nodes and hand-written graphs on a real model."""

import asyncio
import operator
from typing import Annotated, TypedDict

import numpy as np
import pytest
from kits.langchain_kit import LangChainKit, openai_model
from langchain_core.language_models import FakeListChatModel
from langgraph.graph import START, StateGraph
from langgraph.types import Send
from tiny_model import episode

import raybolt

KIT = LangChainKit()
QUESTION = "singer(singer_id, name, age)\nShow the name of each singer."


class Plan(TypedDict):
    question: str
    drafts: Annotated[list[str], operator.add]


def several_drafts():
    """A built graph whose writer works three times at once."""
    llm = openai_model()

    async def writer(state: Plan):
        return {"drafts": [(await llm.ainvoke(state["question"])).text]}

    graph = StateGraph(Plan)
    graph.add_node(writer)
    graph.add_conditional_edges(START, lambda state: [Send("writer", state)] * 3)
    return graph.compile()


AGENTS = {
    "stream": (KIT.streaming("built"), QUESTION, ["writer"]),
    "batch": (KIT.parallel("built"), QUESTION, ["writer"] * 3),
    "parallel nodes": (several_drafts(), {"question": QUESTION}, ["writer"] * 3),
    "late model": (KIT.late_model(), QUESTION, ["writer"]),
}


def num_calls(task, result, trajectory):
    return float(len(trajectory.calls))


@pytest.mark.parametrize("name", AGENTS)
async def test_sampled_tokens_reach_the_trajectory(name, engine):
    brought, task_input, roles = AGENTS[name]
    agent = raybolt.wrap(brought, reward=num_calls, limits=raybolt.RunLimits(max_calls=6, max_seconds=60))
    task = raybolt.Task("t", task_input)
    trajectories = await asyncio.gather(
        *(episode(agent.env("tiny"), engine, task, max_new_tokens=16) for _ in range(3))
    )
    for trajectory in trajectories:
        assert [call.role for call in trajectory.calls] == roles
        for call in trajectory.calls:
            assert call.weights_version == 3
            assert call.logprobs.shape == call.response_ids.shape
            np.testing.assert_array_equal(call.response_ids, trajectories[0].calls[0].response_ids)


async def test_only_the_trainable_role_is_asked_of_the_model(engine):
    agent = raybolt.wrap(
        KIT.two_roles("factory"),
        reward=num_calls,
        framework="langchain",
        trainable=["writer"],
        frozen=FakeListChatModel(responses=["Fine."]),
    )
    writer, critic = (
        await episode(agent.env("tiny"), engine, raybolt.Task("t", QUESTION), max_new_tokens=16)
    ).calls
    assert (writer.role, writer.trainable, writer.weights_version) == ("writer", True, 3)
    assert (critic.role, critic.trainable, critic.weights_version) == ("critic", False, None)
    assert critic.response_ids is None or len(critic.response_ids) == 0

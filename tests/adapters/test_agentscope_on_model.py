"""AgentScope's agents on a real model: the tokens that were sampled are the tokens that are kept."""

import asyncio

import numpy as np
import pytest
from kits.agentscope_kit import AgentScopeKit, agent, openai_model
from tiny_model import episode

import raybolt

KIT = AgentScopeKit()
QUESTION = "singer(singer_id, name, age)\nShow the name of each singer."
TASK = raybolt.Task("t", QUESTION)


def run_sql(query: str) -> str:
    """Run a SQLite query and see its rows."""
    return "no rows"


async def two_turns(question: str):
    """A built agent, asked twice: its second prompt extends the first."""
    from agentscope.message import UserMsg

    await WRITER.reply(UserMsg(name="user", content=question))
    return await WRITER.reply(UserMsg(name="user", content="and again"))


WRITER = agent("writer", openai_model(stream=True))


AGENTS = {
    "factory with a tool": (KIT.with_tools("factory", [run_sql]), ["writer"]),
    "two roles": (KIT.two_roles("factory"), ["writer", "critic"]),
    "two roles, built": (KIT.two_roles("built"), ["writer", "critic"]),
    "two turns of a built agent that streams": (two_turns, ["writer", "writer"]),
}


@pytest.mark.parametrize("name", AGENTS)
async def test_sampled_tokens_reach_the_trajectory_and_are_reused_as_they_were(name, engine):
    brought, roles = AGENTS[name]
    wrapped = raybolt.wrap(
        brought,
        reward=lambda task, result, trajectory: float(len(trajectory.calls)),
        limits=raybolt.RunLimits(max_calls=6, max_seconds=60),
    )
    trajectories = await asyncio.gather(*(episode(wrapped.env("tiny"), engine, TASK) for _ in range(3)))
    for trajectory in trajectories:
        assert [call.role for call in trajectory.calls] == roles
        assert trajectory.total_reward == len(roles)
        for call in trajectory.calls:
            assert call.weights_version == 3
            assert call.logprobs.shape == call.response_ids.shape
            if call.role == "writer":  # the critic reads the writer's reply as a message of its own
                assert call.drift is None
    first, *others = trajectories
    for other in others:  # greedy: one run is like another
        np.testing.assert_array_equal(first.calls[-1].response_ids, other.calls[-1].response_ids)
    if roles == ["writer", "writer"]:
        earlier, later = first.calls
        known = np.concatenate([earlier.prompt_ids, earlier.response_ids])
        np.testing.assert_array_equal(later.prompt_ids[: len(known)], known)

"""CrewAI's crews and Flows on a real model: the tokens that were sampled are the tokens that are kept."""

import asyncio

import pytest
from crewai import BaseLLM, Crew, Process
from crewai.flow.flow import Flow, listen, start
from crewai.tools import tool
from kits.crewai_kit import ask, member, model_at
from tiny_model import episode

import raybolt
from raybolt.adapters.check import NOWHERE

QUESTION = "singer(singer_id, name, age)\nShow the name of each singer."
TASK = raybolt.Task("t", QUESTION)


@tool
def run_sql(query: str) -> str:
    """Run a SQLite query and see its rows."""
    return "no rows"


def pair(llm: BaseLLM) -> Crew:
    writer, critic = member("writer", llm, tools=[run_sql]), member("critic", llm)
    return Crew(agents=[writer, critic], tasks=[ask(writer), ask(critic, "Judge it.")])


def managed(llm: BaseLLM) -> Crew:
    writer = member("writer", llm)
    return Crew(agents=[writer], tasks=[ask(None)], process=Process.hierarchical, manager_llm=llm)


def at_once(llm: BaseLLM) -> Crew:
    writers = [member("writer", llm), member("editor", llm)]
    tasks = [ask(who, f"{{question}} {who.role}", async_execution=True) for who in writers]
    return Crew(agents=writers, tasks=[*tasks, ask(writers[0], "Join them.")], stream=True)


class LateFlow(Flow):
    """Asks a model and an agent that it makes when it runs."""

    @start()
    def draft(self) -> str:
        return str(model_at(NOWHERE).call(self.state["input"]))

    @listen(draft)
    async def check(self, text: str) -> str:
        return str(await member("critic", model_at(NOWHERE)).kickoff_async(f"Check: {text}"))


@pytest.mark.parametrize(
    ("agent", "roles"),
    [
        (pair, {"writer", "critic"}),
        (pair(model_at(NOWHERE)), {"writer", "critic"}),
        (managed, {"Crew Manager"}),
        (at_once, {"writer", "editor"}),
        (LateFlow, {"draft", "critic"}),
    ],
    ids=["factory", "built", "managed", "at-once", "flow"],
)
async def test_sampled_tokens_reach_the_trajectory_with_their_roles(engine, agent, roles):
    wrapped = raybolt.wrap(
        agent, reward=lambda task, result, trajectory: float(len(trajectory.calls)), limits=LIMITS
    )
    trajectories = await asyncio.gather(
        *(episode(wrapped.env("tiny"), engine, TASK, max_new_tokens=12) for _ in range(3))
    )
    for trajectory in trajectories:
        assert {call.role for call in trajectory.calls} == roles
        assert trajectory.total_reward == len(trajectory.calls)
        for call in trajectory.calls:
            assert call.weights_version == 3
            assert 0 < len(call.response_ids) == len(call.logprobs)
            assert call.drift is None
    first, *others = (len(trajectory.calls) for trajectory in trajectories)  # greedy: all runs are alike
    assert others == [first, first]


LIMITS = raybolt.RunLimits(max_calls=8, max_seconds=60)

"""How AutoGen's agents and teams end before their time: quickly, and leaving nothing behind."""

import asyncio
import logging
import time

import pytest
from autogen_agentchat.agents import AssistantAgent, BaseChatAgent
from autogen_agentchat.messages import TextMessage
from autogen_agentchat.teams import DiGraphBuilder, GraphFlow, RoundRobinGroupChat, SelectorGroupChat
from autogen_agentchat.tools import AgentTool
from autogen_core import CancellationToken
from autogen_ext.models.replay import ReplayChatCompletionClient
from recorded_agents import call_tool, record, say

import raybolt
from raybolt.adapters.autogen.model import PolicyClient
from raybolt.adapters.patching import active_patches
from raybolt.env.replay import replay
from raybolt.store import LocalStore

LIMITS = raybolt.RunLimits(max_calls=3, max_seconds=0.3)


async def sleep_long() -> str:
    """Sleeps."""
    await asyncio.sleep(30)
    return "awake"


class Sleeper(BaseChatAgent):
    """An agent of the user's own that heeds no cancellation token."""

    @property
    def produced_message_types(self):
        return (TextMessage,)

    async def on_messages(self, messages, cancellation_token):
        await asyncio.sleep(30)

    async def on_reset(self, cancellation_token): ...


def agent(llm):
    return AssistantAgent("writer", llm, tools=[sleep_long], max_tool_iterations=20)


def team(llm):
    return RoundRobinGroupChat([agent(llm)])


def selected(llm):
    return SelectorGroupChat([agent(llm), AssistantAgent("critic", llm)], model_client=llm)


def nested(llm):
    return RoundRobinGroupChat([RoundRobinGroupChat([agent(llm)])])


def as_tool(llm):
    return RoundRobinGroupChat(
        [AssistantAgent("boss", llm, tools=[AgentTool(agent(llm))], max_tool_iterations=20)]
    )


def side_by_side(llm):
    members = [AssistantAgent("start", llm), agent(llm), Sleeper("sleeper", "Sleeps.")]
    graph = DiGraphBuilder()
    for member in members:
        graph.add_node(member)
    graph.add_edge(members[0], members[1]).add_edge(members[0], members[2])
    return GraphFlow(members, graph.build())


def of_a_function(llm):
    async def ask(question: str) -> str:
        return (await team(llm).run(task=question)).stop_reason

    return ask


def own_token(llm):
    async def ask(question: str) -> str:
        token = CancellationToken()
        return (await nested(llm).run(task=question, cancellation_token=token)).stop_reason

    return ask


BUILDS = [agent, team, selected, nested, as_tool, side_by_side, of_a_function, own_token]


async def leftover_tasks():
    for _ in range(20):  # what was cancelled may take a few rounds to leave
        await asyncio.sleep(0)
    return asyncio.all_tasks() - {asyncio.current_task()}


@pytest.mark.parametrize("build", BUILDS)
async def test_a_tool_that_sleeps_does_not_outlive_its_run(agent_run, script, build, caplog):
    def policy(request):
        names = {tool.name for tool in request.tools}
        if "sleep_long" in names:
            return script.call(("sleep_long", {}))
        return script.call(("writer", {"task": "x"})) if "writer" in names else script.say("writer")

    began = time.monotonic()
    ran = await agent_run(build, "go", policy, limits=LIMITS, framework="autogen")
    assert ran.end.error == "the agent took more than 0.3 seconds"
    assert time.monotonic() - began < 1.3
    assert await leftover_tasks() == set()
    assert active_patches() == []
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("build", BUILDS)
async def test_the_call_over_the_limit_ends_everything_at_once(agent_run, script, build, caplog):
    def policy(request):
        if any(tool.name == "writer" for tool in request.tools):
            return script.call(("writer", {"task": "x"}))
        return script.say("writer") if not request.tools else script.call(("unknown", {}))

    limits = raybolt.RunLimits(max_calls=3, max_seconds=20)
    began = time.monotonic()
    ran = await agent_run(build, "go", policy, limits=limits, framework="autogen")
    if build is not as_tool:
        assert ran.end.error == "the agent made more than 3 LLM calls"
    assert ran.end.origin == "limit"
    assert time.monotonic() - began < 1.3
    assert await leftover_tasks() == set()
    assert active_patches() == []
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def two_at_once(llm):
    members = [AssistantAgent("start", llm), agent(llm), AssistantAgent("other", llm, tools=[sleep_long])]
    graph = DiGraphBuilder()
    for member in members:
        graph.add_node(member)
    graph.add_edge(members[0], members[1]).add_edge(members[0], members[2])
    return GraphFlow(members, graph.build())


@pytest.mark.parametrize("build", [team, selected, nested, two_at_once])
async def test_code_around_a_team_sees_the_policys_abort(agent_run, script, build):
    seen = []

    def around(llm):
        async def ask(question: str) -> None:
            try:
                await build(llm).run(task=question)
            except BaseException as error:
                seen.append(type(error).__name__)
                raise

        return ask

    def policy(request):
        if request.role == "other":
            return script.call(("sleep_long", {}))
        return script.call(("unknown", {})) if request.tools else script.say("writer")

    limits = raybolt.RunLimits(max_calls=4, max_seconds=20)
    await agent_run(around, "go", policy, limits=limits, framework="autogen")
    assert seen == ["PolicyAbort"]


async def test_a_token_of_the_users_own_stops_the_team_and_not_the_run(agent_run, script):
    def build(llm):
        async def ask(question: str) -> str:
            token = CancellationToken()
            asyncio.get_running_loop().call_later(0.05, token.cancel)
            try:
                await team(llm).run(task=question, cancellation_token=token)
            except asyncio.CancelledError:
                return (await AssistantAgent("critic", llm).run(task="again")).messages[-1].content

        return ask

    def policy(request):
        return script.call(("sleep_long", {})) if request.role == "writer" else script.say("fine")

    ran = await agent_run(build, "go", policy, framework="autogen")
    assert ran.result == "fine"
    assert await leftover_tasks() == set()


class Slow(ReplayChatCompletionClient):
    """A client of the user's own that takes its time and heeds no cancellation token."""

    async def create(self, messages, **options):
        await asyncio.sleep(30)


@pytest.mark.parametrize("build", [agent, team, selected, nested])
async def test_the_agents_own_slow_model_does_not_outlive_its_run(agent_run, script, build):
    info = {**PolicyClient.of(None).model_info}
    built = build(Slow([], model_info=info))
    began = time.monotonic()
    ran = await agent_run(built, "go", lambda request: script.say("x"), limits=LIMITS, trainable=["nobody"])
    assert ran.end.error == "the agent took more than 0.3 seconds"
    assert time.monotonic() - began < 1.3
    assert await leftover_tasks() == set()


@pytest.mark.parametrize(
    ("build", "until"), [(agent, 0), (team, 1), (selected, 0), (selected, 1), (nested, 0), (own_token, 0)]
)
async def test_a_replay_that_is_left_at_a_call_leaves_nothing_behind(build, until, caplog):
    def policy(request):
        names = {tool.name for tool in request.tools}
        return call_tool("writer", {"task": "x"}) if "writer" in names else say("writer")

    limited = raybolt.RunLimits(max_calls=3)
    agent_of = raybolt.wrap(build, framework="autogen", reward=lambda *_: 1.0, limits=limited)
    async with LocalStore(None) as store:
        rollout_id, _ = await record(store, agent_of, policy)
        async with await replay(agent_of, store, rollout_id, until=until) as at:
            assert at.call is not None
            began = time.monotonic()
        assert time.monotonic() - began < 1.3
    assert await leftover_tasks() == set()
    assert active_patches() == []
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []

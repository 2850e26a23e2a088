"""Built agents and teams of AutoGen: every run its own memory, whatever the object went through before."""

import asyncio
import threading

import pytest
from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.teams import RoundRobinGroupChat, SelectorGroupChat
from autogen_core import SingleThreadedAgentRuntime
from autogen_core.model_context import UnboundedChatCompletionContext
from autogen_core.models import UserMessage
from autogen_ext.models.openai import OpenAIChatCompletionClient
from autogen_ext.models.replay import ReplayChatCompletionClient

import raybolt
from raybolt.adapters.autogen.copies import Turns
from raybolt.adapters.patching import active_patches


def nowhere():
    return OpenAIChatCompletionClient(
        model="gpt-4o", api_key="unused", base_url="http://127.0.0.1:9/v1", max_retries=0
    )


def pair(client, **options):
    return RoundRobinGroupChat(
        [AssistantAgent("writer", client), AssistantAgent("critic", client)], **options
    )


def echo(request):
    """Repeats the task, so that runs can be told apart."""
    from raybolt.env.chat import ChatMessage, Completion

    question = next(m.content for m in request.messages if m.role == "user")
    return Completion(ChatMessage("assistant", f"{request.role}: {question}"))


def texts(ran):
    return [message.content for message in ran.result.messages]


async def test_thirty_two_runs_of_one_built_team_never_see_one_another(agent_run):
    agent = raybolt.wrap(pair(nowhere(), termination_condition=MaxMessageTermination(3)))
    runs = await asyncio.gather(*(agent_run(agent, f"q{k}", echo, delay_s=0.005) for k in range(32)))
    for k, ran in enumerate(runs):
        assert texts(ran) == [f"q{k}", f"writer: q{k}", f"critic: q{k}"]
        assert all(f"q{k}" in str(m.content) for r in ran.requests for m in r.messages[1:])
        assert len(ran.spans) == 5
    assert active_patches() == []


async def test_a_built_agent_starts_every_run_as_it_stands(agent_run):
    context = UnboundedChatCompletionContext([UserMessage(content="You like rain.", source="user")])
    writer = AssistantAgent("writer", nowhere(), system_message=None, model_context=context)
    for question in ("first", "second"):
        ran = await agent_run(writer, question, echo)
        assert [m.content for m in ran.requests[0].messages] == ["You like rain.", question]
    assert len(await context.get_messages()) == 1


async def test_a_team_that_has_run_before_can_be_wrapped(agent_run):
    client = ReplayChatCompletionClient(["one", "two"])
    team = pair(client, max_turns=2)
    await team.run(task="before")
    runs = await asyncio.gather(*(agent_run(team, f"q{k}", echo) for k in range(3)))
    for k, ran in enumerate(runs):
        assert ran.result.messages[0].content == f"q{k}"
        assert len(ran.requests) == 2


async def test_a_selectors_client_is_answered_even_after_its_first_run(agent_run, script):
    client = ReplayChatCompletionClient(["critic", "what?"])
    members = [AssistantAgent("writer", client), AssistantAgent("critic", client)]
    team = SelectorGroupChat(members, model_client=client, max_turns=1)
    await team.run(task="before")
    ran = await agent_run(team, "again", lambda request: script.say("writer"))
    assert [request.role for request in ran.requests] == ["SelectorGroupChatManager", "writer"]
    assert len(client.create_calls) == 2


def test_a_built_team_runs_in_one_event_loop_after_another(agent_run):
    agent = raybolt.wrap(pair(nowhere(), max_turns=2))
    for question in ("first", "second"):
        ran = asyncio.run(agent_run(agent, question, echo))
        assert texts(ran)[0] == question


class Notebook:
    """The user's own object; its method is a tool."""

    def __init__(self):
        self.lines = []

    def note(self, line: str) -> str:
        """Notes a line."""
        self.lines.append(line)
        return "noted"


async def test_objects_whose_methods_are_tools_are_shared_by_the_runs(agent_run, script):
    notebook = Notebook()
    writer = AssistantAgent("writer", nowhere(), tools=[notebook.note], reflect_on_tool_use=True)
    agent = raybolt.wrap(writer)
    policy = script.tool_then("done", ("note", {"line": "x"}))
    await asyncio.gather(*(agent_run(agent, "go", policy) for _ in range(3)))
    assert notebook.lines == ["x", "x", "x"]


class Locked(AssistantAgent):
    """An agent that cannot be copied."""

    def __init__(self, name, client, **options):
        super().__init__(name, client, **options)
        self.lock = threading.Lock()


@pytest.mark.parametrize("as_team", [False, True])
async def test_what_cannot_be_copied_serves_one_run_after_another(agent_run, as_team):
    locked = Locked("writer", nowhere(), system_message=None)
    agent = raybolt.wrap(RoundRobinGroupChat([locked], max_turns=1) if as_team else locked)
    runs = await asyncio.gather(*(agent_run(agent, f"q{k}", echo, delay_s=0.002) for k in range(8)))
    for k, ran in enumerate(runs):
        assert [m.content for m in ran.requests[0].messages] == [f"q{k}"]


async def test_an_agent_that_a_tools_function_holds_is_never_shared_by_two_runs(agent_run, script):
    expert = AssistantAgent("expert", nowhere(), system_message=None)

    async def ask(question: str) -> str:
        """Asks the expert."""
        return (await expert.run(task=question)).messages[-1].content

    boss = AssistantAgent("boss", nowhere(), tools=[ask], reflect_on_tool_use=True)

    def policy_of(k):
        def policy(request):
            if request.role == "expert":
                return script.say(f"answer {request.messages[-1].content}")
            return script.tool_then("done", ("ask", {"question": f"q{k}"}))(request)

        return policy

    agent = raybolt.wrap(boss)
    runs = await asyncio.gather(*(agent_run(agent, "go", policy_of(k), delay_s=0.002) for k in range(6)))
    for k, ran in enumerate(runs):
        asked = next(request for request in ran.requests if request.role == "expert")
        assert [m.content for m in asked.messages] == [f"q{k}"]
        assert ran.requests[-1].messages[-1].content == f"answer q{k}"


async def test_a_run_that_gives_up_waiting_for_its_turn_lets_the_others_have_theirs(agent_run):
    locked = Locked("writer", nowhere())
    patient = raybolt.wrap(locked, limits=raybolt.RunLimits(max_seconds=20))
    hurried = raybolt.wrap(locked, limits=raybolt.RunLimits(max_seconds=0.1))
    first, gone, last = await asyncio.gather(
        agent_run(patient, "q0", echo, delay_s=0.6),
        agent_run(hurried, "q1", echo),
        agent_run(patient, "q2", echo),
    )
    assert gone.end.error == "the agent took more than 0.1 seconds"
    assert texts(first)[-1] == "writer: q0"
    assert texts(last)[-1] == "writer: q2"


async def test_a_turn_that_comes_in_the_moment_of_leaving_is_passed_on():
    turns = Turns()

    async def take():
        async with turns.turn():
            return "mine"

    async with turns.turn():
        leaving, patient = asyncio.create_task(take()), asyncio.create_task(take())
        await asyncio.sleep(0)
    leaving.cancel()  # it has been given the turn, and does not know yet
    assert await asyncio.wait_for(patient, 5) == "mine"
    assert leaving.cancelled()


async def test_a_team_on_a_runtime_of_the_users_own_is_refused_with_the_remedy(agent_run):
    team = RoundRobinGroupChat([AssistantAgent("writer", nowhere())], runtime=SingleThreadedAgentRuntime())
    ran = await agent_run(team, "go", echo)
    assert "runs on a runtime of your own, which all runs would share" in ran.end.error


class ShapedLikeAClient:
    """No ChatCompletionClient, but AutoGen only calls it."""

    model_info = nowhere().model_info

    async def create(self, messages, **options):
        raise AssertionError("the policy answers")

    def create_stream(self, messages, **options):
        raise AssertionError("the policy answers")


async def test_a_client_that_is_only_shaped_like_one_is_answered(agent_run):
    ran = await agent_run(AssistantAgent("writer", ShapedLikeAClient()), "go", echo)
    assert texts(ran) == ["go", "writer: go"]
    assert active_patches() == []


async def test_a_factory_without_parameters_brings_its_own_clients(agent_run):
    def build():
        return pair(OpenAIChatCompletionClient(model="gpt-4o", api_key="x", max_retries=0), max_turns=2)

    ran = await agent_run(build, "go", echo, framework="autogen")
    assert texts(ran) == ["go", "writer: go", "critic: go"]


def test_the_framework_is_told_from_the_object():
    assert raybolt.wrap(pair(nowhere())).adapter.framework == "autogen"
    assert raybolt.wrap(AssistantAgent("writer", nowhere())).name == "writer"
    assert raybolt.wrap(pair(nowhere(), name="duo")).name == "duo"


async def test_a_plain_function_with_a_team_inside_is_answered_traced_and_has_its_roles(agent_run):
    async def answer(question: str) -> str:
        return (await pair(nowhere(), max_turns=2).run(task=question)).messages[-1].content

    ran = await agent_run(answer, "go", echo, framework="python")
    assert ran.result == "critic: go"
    assert [request.role for request in ran.requests] == ["writer", "critic"]
    assert ran.parent_name(ran.span("chat critic")) == "agent critic"

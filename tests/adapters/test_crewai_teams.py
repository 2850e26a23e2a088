"""Crews with managers, Flows, streams and tasks at the same time: what CrewAI does in threads of its own."""

import asyncio
from typing import Any

import pytest
from crewai import Agent, BaseLLM, Crew, Process, Task
from crewai.flow.flow import Flow, listen, start
from crewai.project import CrewBase, agent, crew, task
from kits.crewai_kit import ask, member, model_at

import raybolt
from raybolt.adapters.check import NOWHERE
from raybolt.adapters.check.drive import Stage
from raybolt.env.chat import ChatMessage
from raybolt.env.limits import RunLimits


def pair(llm: BaseLLM) -> Crew:
    writer, critic = member("writer of {topic}", llm), member("critic", llm)
    return Crew(agents=[writer, critic], tasks=[ask(writer, "Write on {topic}."), ask(critic, "Judge it.")])


# Delegation and managers


def hierarchy(llm: BaseLLM, **options: Any) -> Crew:
    writer, critic = member("writer", llm), member("critic", llm)
    return Crew(
        agents=[writer, critic],
        tasks=[ask(None, "Have {topic} written.")],
        process=Process.hierarchical,
        **options,
    )


def with_manager_llm(llm: BaseLLM) -> Crew:
    return hierarchy(llm, manager_llm=llm)


def with_manager_agent(llm: BaseLLM) -> Crew:
    return hierarchy(llm, manager_agent=member("boss", llm))


def delegating(script: Any, manager: str, tool_name: str = "delegate_work_to_coworker") -> Any:
    key = "task" if tool_name.startswith("delegate") else "question"

    def policy(request):
        if request.role != manager:
            return script.say(f"{request.role} says so")
        work = {key: "Write on rain.", "context": "It rains.", "coworker": "Writer"}
        return script.tool_then("managed", (tool_name, work))(request)

    return policy


@pytest.mark.parametrize(
    ("build", "manager"), [(with_manager_llm, "Crew Manager"), (with_manager_agent, "boss")]
)
@pytest.mark.parametrize("tool_name", ["delegate_work_to_coworker", "ask_question_to_coworker"])
@pytest.mark.parametrize("way", ["factory", "built"])
async def test_a_manager_hands_work_over_as_a_span(agent_run, script, build, manager, tool_name, way):
    agent = build if way == "factory" else build(model_at(NOWHERE))
    ran = await agent_run(agent, "rain", delegating(script, manager, tool_name), name="firm")
    assert ran.result.raw == "managed"
    assert [request.role for request in ran.requests] == [manager, "writer", manager]
    span = ran.span(f"handoff {manager} -> writer")
    assert span.attributes["raybolt.kind"] == "handoff"
    assert span.attributes["raybolt.handoff.source"] == manager
    assert span.attributes["raybolt.handoff.target"] == "writer"
    assert ran.parent_name(span) == f"execute_tool {tool_name}"
    assert ran.parent_name(ran.span("agent writer")) == span.name
    assert ran.parent_name(ran.span("chat writer")) == "agent writer"
    assert "writer says so" in ran.requests[2].messages[-1].content


async def test_work_for_nobody_is_no_hand_over(agent_run, script):
    work = {"task": "Dance.", "context": "", "coworker": "dancer"}
    policy = script.tool_then("well", ("delegate_work_to_coworker", work))
    ran = await agent_run(with_manager_llm, "rain", policy)
    assert not [span for span in ran.spans if span.attributes.get("raybolt.kind") == "handoff"]
    assert "coworker mentioned not found" in ran.requests[1].messages[-1].content


# Flows and functions


class LateClass(Flow):
    """Makes its models, and even the class of one, when it runs."""

    @start()
    def draft(self) -> str:
        return model_at(NOWHERE).call(self.state["input"])

    @listen(draft)
    async def check(self, text: str) -> str:
        class Made(BaseLLM):
            def call(self, messages: Any, **kwargs: Any) -> str:
                raise AssertionError("the policy answers")

        return Made(model="made").call([{"role": "user", "content": f"check {text}"}])

    @listen(check)
    async def sign(self, text: str) -> str:
        crew = pair(model_at(NOWHERE))
        signed = await crew.kickoff_async({"topic": text})
        return str(signed)


@pytest.mark.parametrize("agent", [LateClass, LateClass()], ids=["class", "built"])
async def test_a_flow_is_answered_wherever_it_makes_its_models(agent_run, script, agent):
    ran = await agent_run(agent, "rain", lambda request: script.say(f"<{request.role}>"))
    assert ran.result == "<critic>"
    roles = [request.role for request in ran.requests]
    assert roles == ["draft", "check", "writer of {topic}", "critic"]
    assert ran.requests[1].messages == (ChatMessage("user", "check <draft>"),)
    assert ran.parent_name(ran.span("chat draft")) == "node draft"
    assert ran.parent_name(ran.span("agent critic")) == "task"


@CrewBase
class Office:
    """As `crewai create` lays a crew out."""

    agents_config: dict = {}  # noqa: RUF012
    tasks_config: dict = {}  # noqa: RUF012

    @agent
    def writer(self) -> Agent:
        return member("writer", model_at(NOWHERE))

    @task
    def write(self) -> Task:
        return ask(self.writer(), "Write on {topic}.")

    @crew
    def crew(self) -> Crew:
        return Crew(agents=self.agents, tasks=self.tasks)


async def test_a_crewbase_class_gives_every_run_agents_of_its_own(agent_run, script):
    wrapped = raybolt.wrap(Office().crew, framework="crewai")
    runs = await asyncio.gather(
        *(agent_run(wrapped, topic, lambda request: script.say("x"), delay_s=0.01) for topic in "abcd")
    )
    for topic, ran in zip("abcd", runs, strict=True):
        (request,) = ran.requests
        assert f"Write on {topic}." in request.messages[-1].content


# Streams, several calls at once, ends


def streamed(llm: BaseLLM) -> Crew:
    crew = pair(llm)
    crew.stream = True
    return crew


@pytest.mark.parametrize("way", ["factory", "built"])
async def test_a_streaming_crew_is_run_to_its_end(agent_run, script, way):
    agent = streamed if way == "factory" else streamed(model_at(NOWHERE))
    ran = await agent_run(agent, "rain", lambda request: script.say(request.role))
    assert ran.result.raw == "critic"


async def test_a_consumer_of_an_llms_stream_gets_the_reply_in_one_piece(agent_run, script):
    def build(llm: BaseLLM):
        def solve(question: str) -> list[str]:
            return [frame.content for frame in llm.stream_events(question).llm if frame.content]

        return solve

    ran = await agent_run(build, "2 + 2?", lambda request: script.say("it is four"))
    assert ran.result == ["it is four"]


def three_at_once(llm: BaseLLM) -> Crew:
    writers = [member("writer", llm) for _ in range(3)]
    tasks = [ask(who, f"Write {{topic}} {n}.", async_execution=True) for n, who in enumerate(writers)]
    editor = member("editor", llm)
    return Crew(agents=[*writers, editor], tasks=[*tasks, ask(editor, "Join them.", context=tasks)])


@pytest.mark.parametrize("way", ["factory", "built"])
async def test_tasks_with_async_execution_ask_at_once(script, way):
    agent = raybolt.wrap(three_at_once if way == "factory" else three_at_once(model_at(NOWHERE)))
    stage = Stage(agent, "rain")
    contents = [call.request.messages[-1].content or "" for call in await stage.waiting(3)]
    for number in range(3):
        assert sum(f"Write rain {number}." in content for content in contents) == 1
    ran = await stage.play(lambda request: script.say(request.role))
    assert ran.roles == ["writer", "writer", "writer", "editor"]
    assert "writer\n\n----------\n\nwriter" in (ran.requests[3].messages[-1].content or "")


@pytest.mark.parametrize("build", [three_at_once, streamed, with_manager_llm])
@pytest.mark.parametrize("way", ["factory", "built"])
async def test_a_call_too_many_ends_the_run_from_whatever_thread(agent_run, script, build, way):
    agent = build if way == "factory" else build(model_at(NOWHERE))
    limits = RunLimits(max_calls=1, max_seconds=20)
    policy = delegating(script, "Crew Manager")
    ran = await asyncio.wait_for(agent_run(agent, "rain", policy, limits=limits), 10)
    assert (ran.end.error, ran.end.origin) == ("the agent made more than 1 LLM calls", "limit")

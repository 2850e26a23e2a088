"""Built crews, agents and Flows: every run has a copy as its author made it."""

from pathlib import Path
from typing import Any

import pytest
from crewai import BaseLLM, Crew, Process, Task
from crewai.flow.flow import Flow, listen, start
from crewai.tools import tool
from kits.crewai_kit import ask, member, model_at
from pydantic import BaseModel

import raybolt
from raybolt.adapters.check import ModelServer
from raybolt.adapters.crewai.copies import own_copy
from raybolt.adapters.patching import active_patches


@pytest.fixture(autouse=True)
def _private(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """These tests also kick agents off outside any run, where raybolt does not keep CrewAI quiet."""
    monkeypatch.setenv("CREWAI_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("CREWAI_TRACING_ENABLED", "false")
    monkeypatch.setenv("CREWAI_STORAGE_DIR", str(tmp_path))


class Echo(BaseLLM):
    """A model of the user's own, without a server behind it."""

    def call(self, messages: Any, *args: Any, **kwargs: Any) -> str:
        self._track_token_usage_internal({"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3})
        return "echo"


class Answer(BaseModel):
    number: int


def crew_on(llm: BaseLLM, **options: Any) -> Crew:
    writer = member("writer of {topic}", llm)
    return Crew(agents=[writer], tasks=[ask(writer, "Write on {topic}.", **options)])


async def test_a_crew_that_has_run_already_is_copied_as_it_was_written(agent_run, script):
    crew = crew_on(Echo(model="own"))
    await crew.kickoff_async({"topic": "snow"})
    assert crew.tasks[0].description == "Write on snow."
    ran = await agent_run(crew, "rain", lambda request: script.say("x"))
    assert "You are writer of rain." in ran.requests[0].messages[0].content
    assert "Write on rain." in ran.requests[0].messages[1].content
    assert ran.requests[0].role == "writer of {topic}"
    assert crew.tasks[0].description == "Write on snow."
    assert ran.result.tasks_output[0] is not crew.tasks[0].output


async def test_a_manager_of_an_earlier_run_is_not_taken_over(agent_run, script):
    writer = member("writer", Echo(model="own"))
    crew = Crew(
        agents=[writer],
        tasks=[ask(None, "Have {topic} written.")],
        process=Process.hierarchical,
        manager_llm=Echo(model="own"),
    )
    await crew.kickoff_async({"topic": "snow"})
    copied = own_copy(crew)
    assert copied.manager_agent is None
    ran = await agent_run(crew, "rain", lambda request: script.say(request.role))
    assert ran.result.raw == "Crew Manager"
    assert "Have rain written." in ran.requests[0].messages[1].content


def test_agents_are_matched_by_identity_even_with_one_role_or_outside_the_crews_list():
    llm = Echo(model="own")
    first, second, guest = (member("writer", llm, max_iter=count) for count in (3, 4, 5))
    tasks = [ask(who, f"Write {n}.") for n, who in enumerate((first, second, guest))]
    tasks[2].context = [tasks[0]]
    copied = own_copy(Crew(agents=[first, second], tasks=tasks))
    assert [task.agent.max_iter for task in copied.tasks] == [3, 4, 5]
    assert copied.tasks[0].agent is copied.agents[0]
    assert copied.tasks[1].agent is copied.agents[1]
    assert copied.tasks[2].agent is not guest
    assert copied.tasks[2].context == [copied.tasks[0]]


def test_a_copy_keeps_what_the_author_has_set():
    def guard(output: Any) -> tuple[bool, Any]:
        return True, output.raw

    def note(output: Any) -> None: ...

    crew = crew_on(
        Echo(model="own"), output_pydantic=Answer, guardrail=guard, callback=note, async_execution=True
    )
    (task,) = own_copy(crew).tasks
    assert task.output_pydantic is Answer
    assert task.guardrail is guard
    assert task.callback is note
    assert task.async_execution


def test_copies_count_their_own_tokens_and_uses_of_tools():
    @tool
    def once() -> str:
        """Works once."""
        return "done"

    once.max_usage_count = 1
    llm = Echo(model="own")
    crew = Crew(agents=[member("writer", llm, tools=[once])], tasks=[])
    crew.tasks = [ask(crew.agents[0], "Write.")]
    one, other = own_copy(crew), own_copy(crew)
    assert one.kickoff().token_usage.total_tokens == 3
    assert other.kickoff().token_usage.total_tokens == 3
    assert llm.get_token_usage_summary().total_tokens == 0
    tools = [copied.agents[0].tools[0] for copied in (one, other)]
    assert tools[0] is not tools[1]
    assert tools[0] is not once


class State(BaseModel):
    topic: str = "nothing"


class Notebook(Flow[State]):
    """A Flow with a model, an agent, and notes on the object itself."""

    def __init__(self, llm: BaseLLM) -> None:
        super().__init__()
        self.writers = {"one": member("writer", llm)}
        self.notes: list[str] = []

    @start()
    async def write(self) -> str:
        reply = await self.writers["one"].kickoff_async(self.state.topic)
        self.notes.append(f"{self.state.topic}: {reply.raw}")
        return reply.raw

    @listen(write)
    def read(self, text: str) -> tuple[str, list[str]]:
        return text, list(self.notes)


@pytest.mark.parametrize("has_run", [False, True])
async def test_a_built_flow_starts_afresh_in_every_run(agent_run, script, has_run):
    flow = Notebook(Echo(model="own"))
    if has_run:
        await flow.kickoff_async({"topic": "snow"})
        flow.notes.clear()
    agent = raybolt.wrap(flow)
    for topic in ("rain", "hail"):
        ran = await agent_run(agent, topic, lambda request: script.say("wet"))
        assert ran.result == ("wet", [f"{topic}: wet"])
        assert topic in ran.requests[0].messages[-1].content
        assert ran.requests[0].role == "writer"
    assert flow.notes == []
    assert flow.state.topic == ("snow" if has_run else "nothing")


def test_a_flows_state_is_kept_as_its_author_has_set_it():
    flow = Notebook(Echo(model="own"))
    flow.state.topic = "fog"
    copied = own_copy(flow)
    assert copied.state.topic == "fog"
    assert copied.state.id != flow.state.id
    copied.state.topic = "haze"
    assert flow.state.topic == "fog"


async def test_after_a_run_the_users_own_models_are_as_before(agent_run, script):
    crew = crew_on(Echo(model="own"))
    ran = await agent_run(crew, "rain", lambda request: script.say("x"))
    assert ran.result.raw == "x"
    assert active_patches() == []
    assert (await crew.kickoff_async({"topic": "snow"})).raw == "echo"
    assert (await raybolt.wrap(crew).arun(raybolt.Task("t", "rain"))).raw == "echo"


def test_a_crew_that_nobody_wrapped_is_traced_on_its_own_models(tmp_path):
    with ModelServer().serving() as server, raybolt.trace(tmp_path / "traces", name="desk") as run:
        result = crew_on(model_at(server.url)).kickoff({"topic": "rain"})
    assert result.raw == "own reply 1"
    assert active_patches() == []
    spans = {span.span_id: span for span in run.recorder.spans}
    nested = [(span.name, getattr(spans.get(span.parent_id), "name", None)) for span in spans.values()]
    assert nested == [
        ("invoke_agent desk", None),
        ("task", "invoke_agent desk"),
        ("agent writer of {topic}", "task"),
        ("chat writer of {topic}", "agent writer of {topic}"),
    ]
    chat = list(spans.values())[-1].attributes
    assert chat["raybolt.trainable"] is False
    assert (chat["gen_ai.usage.input_tokens"], chat["gen_ai.usage.output_tokens"]) == (11, 5)


def test_what_cannot_be_run_is_refused_with_what_can(agent_run):
    with pytest.raises(raybolt.UnsupportedAgent, match="cannot be kicked off; pass a function build"):
        raybolt.wrap(Task(description="Write.", expected_output="A text."))
    with pytest.raises(raybolt.UnsupportedAgent, match="its one required parameter must be the LLM"):
        raybolt.wrap(lambda question, depth: Crew(), framework="crewai")

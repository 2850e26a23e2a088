"""Small agents of CrewAI, written as its users write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from crewai import LLM, Agent, BaseLLM, Crew, CrewOutput, Task
from crewai.flow.flow import Flow, and_, listen, start
from crewai.tools import tool
from pydantic import BaseModel

from raybolt.adapters.check import NOWHERE, AgentKit, Way, call
from raybolt.env.chat import ChatRequest, Completion


def model_at(base_url: str) -> BaseLLM:
    return LLM(model="openai/gpt-4o", api_key="unused", base_url=base_url, timeout=5, max_retries=0)


def member(role: str, llm: BaseLLM, **options: Any) -> Agent:
    return Agent(role=role, goal="Answer well.", backstory="You are brief.", llm=llm, **options)


def ask(agent: Agent | None, description: str = "{question}", **options: Any) -> Task:
    return Task(description=description, expected_output="A text.", agent=agent, **options)


class CrewAIKit(AgentKit):
    """Crews, but for the single agent and the Flow with a late model."""

    framework: ClassVar[str] = "crewai"
    # Its event bus, and what importing its memory starts.
    idle_threads: ClassVar[tuple[str, ...]] = ("CrewAI*", "LanceDB*", "Otel*")

    def solo(self, way: Way) -> Any:
        return _brought(way, lambda llm: member("writer", llm))

    def with_tools(self, way: Way, tools: Sequence[Callable[..., Any]]) -> Any:
        def build(llm: BaseLLM) -> Crew:
            writer = member("writer", llm, tools=[tool(function) for function in tools])
            return Crew(agents=[writer], tasks=[ask(writer)])

        return _brought(way, build)

    def two_roles(self, way: Way) -> Any:
        return _brought(way, _two_roles)

    def hand_off(self, way: Way) -> Any:
        def build(llm: BaseLLM) -> Crew:
            writer = member("writer", llm, allow_delegation=True)
            return Crew(agents=[writer, member("critic", llm)], tasks=[ask(writer)])

        return _brought(way, build)

    def hand_off_reply(self, request: ChatRequest) -> Completion:
        work = {"task": "Judge the rain.", "context": "It rains.", "coworker": "critic"}
        return call(("delegate_work_to_coworker", work))

    def structured(self, way: Way, schema: type[BaseModel]) -> Any:
        def build(llm: BaseLLM) -> Crew:
            writer = member("writer", llm)
            return Crew(agents=[writer], tasks=[ask(writer, output_pydantic=schema)])

        return _brought(way, lambda llm: CrewFlow(build(llm)))

    def streaming(self, way: Way) -> Any:
        def build(llm: BaseLLM) -> Crew:
            writer = member("writer", llm)
            return Crew(agents=[writer], tasks=[ask(writer)], stream=True)

        return _brought(way, build)

    def parallel(self, way: Way) -> Any:
        return _brought(way, ThreeAtOnce)

    def late_model(self) -> Any:
        return LateFlow()

    def text(self, result: Any) -> str:
        return str(result)

    def own_model(self, base_url: str) -> Any:
        return model_at(base_url)

    def own_agent(self, base_url: str) -> Any:
        return _two_roles(model_at(base_url))


class LateFlow(Flow):
    """A Flow that makes its agent when it runs."""

    @start()
    def write(self) -> str:
        writer = member("writer", model_at(NOWHERE))
        return str(writer.kickoff(self.state["input"]))


class CrewFlow(Flow):
    """A Flow that unpacks what its crew answers."""

    def __init__(self, crew: Crew) -> None:
        super().__init__()
        self.crew = crew

    @start()
    def write(self) -> Any:
        result = self.crew.kickoff({"question": self.state["input"]})
        assert isinstance(result, CrewOutput)
        return result.pydantic


class ThreeAtOnce(Flow):
    """A Flow whose writers all work at the same time."""

    def __init__(self, llm: BaseLLM) -> None:
        super().__init__()
        self.llm = llm

    def write(self) -> str:
        return str(member("writer", self.llm).kickoff(self.state["input"]))

    @start()
    def first(self) -> str:
        return self.write()

    @start()
    def second(self) -> str:
        return self.write()

    @start()
    def third(self) -> str:
        return self.write()

    @listen(and_(first, second, third))
    def join(self) -> str:
        return "; ".join(self.method_outputs)


def _brought(way: Way, build: Callable[[BaseLLM], Any]) -> Any:
    return build if way == "factory" else build(model_at(NOWHERE))


def _two_roles(llm: BaseLLM) -> Crew:
    writer, critic = member("writer", llm), member("critic", llm)
    return Crew(agents=[writer, critic], tasks=[ask(writer), ask(critic, "Judge the text.")])

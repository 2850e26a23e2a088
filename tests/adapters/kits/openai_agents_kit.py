"""Small agents on the OpenAI Agents SDK, as its users write them, for the adapter conformance checks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from agents import Agent, Model, OpenAIResponsesModel, Runner, RunResult, function_tool
from openai import AsyncOpenAI
from pydantic import BaseModel

from raybolt.adapters.check.kit import NOWHERE, AgentKit, Way
from raybolt.adapters.check.scripted import call
from raybolt.env.chat import ChatRequest, Completion

Build = Callable[[Model | None], Any]


class OpenAIAgentsKit(AgentKit):
    """Factories; built agents, and functions that call `Runner` themselves, with models nobody answers."""

    framework: ClassVar[str] = "openai-agents"

    def solo(self, way: Way) -> Any:
        return self._brought(way, lambda llm: Agent("writer", model=llm))

    def with_tools(self, way: Way, tools: Sequence[Callable[..., Any]]) -> Any:
        functions = [function_tool(tool) for tool in tools]
        return self._brought(way, lambda llm: Agent("writer", model=llm, tools=functions))

    def two_roles(self, way: Way) -> Any:
        return self._brought_function(way, _pair)

    def hand_off(self, way: Way) -> Any:
        def build(llm: Model | None) -> Agent[Any]:
            return Agent("writer", model=llm, handoffs=[Agent("critic", model=llm)])

        return self._brought(way, build)

    def hand_off_reply(self, request: ChatRequest) -> Completion:
        return call(("transfer_to_critic", {}))

    def structured(self, way: Way, schema: type[BaseModel]) -> Any:
        def build(llm: Model | None) -> Any:
            async def ask(question: str) -> Any:
                agent = Agent("writer", model=llm, output_type=schema)
                return (await Runner.run(agent, question)).final_output

            return ask

        return self._brought_function(way, build)

    def streaming(self, way: Way) -> Any:
        def build(llm: Model | None) -> Any:
            async def ask(question: str) -> str:
                run = Runner.run_streamed(Agent("writer", model=llm), question)
                events = [event async for event in run.stream_events()]
                return "".join(
                    event.data.delta
                    for event in events
                    if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
                )

            return ask

        return self._brought_function(way, build)

    def parallel(self, way: Way) -> Any:
        def build(llm: Model | None) -> Any:
            async def ask(question: str) -> str:
                writer = Agent("writer", model=llm)
                results = await asyncio.gather(*(Runner.run(writer, question) for _ in range(3)))
                return "\n".join(map(self.text, results))

            return ask

        return self._brought_function(way, build)

    def late_model(self) -> Any:
        def build() -> Any:
            def ask(question: str) -> RunResult:
                return Runner.run_sync(Agent("writer", model=_model(NOWHERE)), question)

            return ask

        return build

    def text(self, result: Any) -> str:
        return str(result.final_output) if isinstance(result, RunResult) else result

    def own_model(self, base_url: str) -> Any:
        return _model(base_url)

    def own_agent(self, base_url: str) -> Any:
        def build() -> Any:
            return _pair(OpenAIResponsesModel("gpt-test", _client(base_url)))

        return build

    def _brought(self, way: Way, build: Build) -> Any:
        return build if way == "factory" else build(_model(NOWHERE))

    def _brought_function(self, way: Way, build: Build) -> Any:
        """A function over agents is brought by the one that makes it."""

        def made() -> Any:
            return build(OpenAIResponsesModel("gpt-test", _client(NOWHERE)))

        def factory(llm: Model) -> Any:
            return build(llm)

        return factory if way == "factory" else made


def _pair(llm: Model | None) -> Any:
    async def ask(question: str) -> RunResult:
        draft = await Runner.run(Agent("writer", model=llm), question)
        return await Runner.run(Agent("critic", model=llm), f"{question}\n{draft.final_output}")

    return ask


def _model(base_url: str) -> Model:
    return OpenAIResponsesModel("gpt-test", _client(base_url))


def _client(base_url: str) -> AsyncOpenAI:
    return AsyncOpenAI(api_key="unused", base_url=base_url, max_retries=0)

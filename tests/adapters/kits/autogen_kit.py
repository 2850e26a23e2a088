"""Small agents in AutoGen, as its users write them, for the adapter conformance checks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.base import TaskResult
from autogen_agentchat.conditions import HandoffTermination, TextMessageTermination
from autogen_agentchat.messages import StructuredMessage
from autogen_agentchat.teams import RoundRobinGroupChat, Swarm
from autogen_core.models import ChatCompletionClient, ModelInfo
from autogen_ext.models.openai import OpenAIChatCompletionClient
from pydantic import BaseModel

from raybolt.adapters.check.kit import NOWHERE, AgentKit, Way
from raybolt.adapters.check.scripted import call
from raybolt.env.chat import ChatRequest, Completion

Build = Callable[[ChatCompletionClient], Any]


class AutoGenKit(AgentKit):
    """Factories, and built agents whose clients nobody answers."""

    framework: ClassVar[str] = "autogen"

    def solo(self, way: Way) -> Any:
        return self._brought(way, lambda llm: AssistantAgent("writer", llm))

    def with_tools(self, way: Way, tools: Sequence[Callable[..., Any]]) -> Any:
        return self._brought(
            way,
            lambda llm: AssistantAgent("writer", llm, tools=list(tools), max_tool_iterations=8),
        )

    def two_roles(self, way: Way) -> Any:
        return self._brought(way, _pair)

    def hand_off(self, way: Way) -> Any:
        def team(llm: ChatCompletionClient) -> Swarm:
            writer = AssistantAgent("writer", llm, handoffs=["critic"])
            critic = AssistantAgent("critic", llm)
            stop = TextMessageTermination("critic") | HandoffTermination("user")
            return Swarm([writer, critic], termination_condition=stop)

        return self._brought(way, team)

    def hand_off_reply(self, request: ChatRequest) -> Completion:
        return call(("transfer_to_critic", {}))

    def structured(self, way: Way, schema: type[BaseModel]) -> Any:
        def build(llm: ChatCompletionClient) -> Any:
            async def ask(question: str) -> Any:
                agent = AssistantAgent("writer", llm, output_content_type=schema)
                message = (await agent.run(task=question)).messages[-1]
                assert isinstance(message, StructuredMessage)
                return message.content

            return ask

        return self._brought_function(way, build)

    def streaming(self, way: Way) -> Any:
        def build(llm: ChatCompletionClient) -> Any:
            async def ask(question: str) -> str:
                agent = AssistantAgent("writer", llm, model_client_stream=True)
                chunks = [
                    event.content
                    async for event in agent.run_stream(task=question)
                    if getattr(event, "type", "") == "ModelClientStreamingChunkEvent"
                ]
                return "".join(chunks)

            return ask

        return self._brought_function(way, build)

    def parallel(self, way: Way) -> Any:
        def build(llm: ChatCompletionClient) -> Any:
            async def ask(question: str) -> str:
                writers = [AssistantAgent("writer", llm) for _ in range(3)]
                results = await asyncio.gather(*(writer.run(task=question) for writer in writers))
                return "\n".join(map(self.text, results))

            return ask

        return self._brought_function(way, build)

    def late_model(self) -> Any:
        def build() -> Any:
            async def ask(question: str) -> TaskResult:
                return await AssistantAgent("writer", _client(NOWHERE)).run(task=question)

            return ask

        return build

    def text(self, result: Any) -> str:
        return result.messages[-1].to_model_text() if isinstance(result, TaskResult) else result

    def own_model(self, base_url: str) -> Any:
        return _client(base_url)

    def own_agent(self, base_url: str) -> Any:
        return _pair(_client(base_url))

    def _brought(self, way: Way, build: Build) -> Any:
        return build if way == "factory" else build(_client(NOWHERE))

    def _brought_function(self, way: Way, build: Build) -> Any:
        """A function is no object that AutoGen could have built: its factory makes the client, too."""

        def make() -> Any:
            return build(OpenAIChatCompletionClient(**_settings(NOWHERE)))

        return build if way == "factory" else make


def _pair(llm: ChatCompletionClient) -> RoundRobinGroupChat:
    return RoundRobinGroupChat([AssistantAgent("writer", llm), AssistantAgent("critic", llm)], max_turns=2)


def _client(base_url: str) -> OpenAIChatCompletionClient:
    return OpenAIChatCompletionClient(**_settings(base_url))


def _settings(base_url: str) -> dict[str, Any]:
    info = ModelInfo(
        vision=False, function_calling=True, json_output=True, structured_output=True, family="unknown"
    )
    return {"model": "test", "api_key": "x", "base_url": base_url, "model_info": info, "max_retries": 0}

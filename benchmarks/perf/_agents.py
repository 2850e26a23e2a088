"""The same small agent in every framework: on a scripted model of the framework's own, and to be wrapped.

It asks for one tool until its last LLM call. Both sides do the same work in a run: they build the agent, its
model included, and run it. Frameworks are imported when their agent is asked for.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, ClassVar, cast

QUESTION = "How many singers are there?"
INSTRUCTIONS = "Answer with one SQLite query."
QUERY = '{"query": "SELECT 1"}'
MAX_TURNS = 20


def run_sql(query: str) -> str:
    """Run a SQLite query and see its rows."""
    return "3"


class Side(ABC):
    """One framework's agent."""

    name: ClassVar[str]

    @abstractmethod
    def agent(self, num_calls: int) -> Any:
        """What `wrap` is given: a factory, or a function; it makes as many calls as its policy wants."""

    @abstractmethod
    async def native(self, num_calls: int) -> Any:
        """A run on a scripted model of the framework's own."""


class LangChain(Side):
    name = "langchain"

    def __init__(self) -> None:
        from langchain.agents import create_agent
        from langchain_core.language_models import GenericFakeChatModel
        from langchain_core.messages import AIMessage
        from langchain_core.utils.function_calling import convert_to_openai_tool

        class Scripted(GenericFakeChatModel):
            """LangChain's own scripted model, with tools."""

            def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
                return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools])

        def build(llm: Any) -> Any:
            return create_agent(llm, [run_sql], system_prompt=INSTRUCTIONS)

        self._build, self._scripted, self._message = build, Scripted, AIMessage

    def agent(self, num_calls: int) -> Any:
        return self._build

    async def native(self, num_calls: int) -> Any:
        calls = [
            self._message(
                "", tool_calls=[{"name": "run_sql", "args": {"query": "SELECT 1"}, "id": f"c{turn}"}]
            )
            for turn in range(num_calls - 1)
        ]
        agent = self._build(self._scripted(messages=iter([*calls, self._message("3")])))
        return await agent.ainvoke({"messages": [{"role": "user", "content": QUESTION}]})


class AutoGen(Side):
    name = "autogen"

    def __init__(self) -> None:
        from autogen_agentchat.agents import AssistantAgent

        def build(llm: Any) -> Any:
            return AssistantAgent(
                "writer", llm, tools=[run_sql], system_message=INSTRUCTIONS, max_tool_iterations=MAX_TURNS
            )

        self._build = build

    def agent(self, num_calls: int) -> Any:
        return self._build

    async def native(self, num_calls: int) -> Any:
        from autogen_core import FunctionCall
        from autogen_core.models import CreateResult, ModelInfo, RequestUsage
        from autogen_ext.models.replay import ReplayChatCompletionClient

        usage = RequestUsage(prompt_tokens=1, completion_tokens=1)
        calls = [
            CreateResult(
                finish_reason="function_calls",
                content=[FunctionCall(id=f"c{turn}", name="run_sql", arguments=QUERY)],
                usage=usage,
                cached=False,
            )
            for turn in range(num_calls - 1)
        ]
        info = ModelInfo(
            vision=False, function_calling=True, json_output=True, structured_output=True, family="unknown"
        )
        return await self._build(ReplayChatCompletionClient([*calls, "3"], info)).run(task=QUESTION)


class CrewAI(Side):
    name = "crewai"

    def __init__(self) -> None:
        os.environ.setdefault("CREWAI_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("CREWAI_TRACING_ENABLED", "false")
        from crewai import Agent, BaseLLM, Crew, Task
        from crewai.tools import tool

        class Scripted(BaseLLM):
            turns_left: int = 0

            def call(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
                self.turns_left -= 1
                if not self.turns_left:
                    return "3"
                function = {"name": "run_sql", "arguments": QUERY}
                return [{"id": f"c{self.turns_left}", "type": "function", "function": function}]

            def supports_function_calling(self) -> bool:
                return True

        def build(llm: Any) -> Any:
            writer = Agent(
                role="writer", goal="Answer.", backstory=INSTRUCTIONS, llm=llm, tools=[tool(run_sql)]
            )
            task = Task(description="{question}", expected_output="A number.", agent=writer)
            return Crew(agents=[writer], tasks=[task])

        self._build, self._scripted = build, Scripted

    def agent(self, num_calls: int) -> Any:
        return self._build

    async def native(self, num_calls: int) -> Any:
        llm = self._scripted(model="scripted", provider="scripted", turns_left=num_calls)
        return await self._build(llm).kickoff_async({"question": QUESTION})


class OpenAIAgents(Side):
    name = "openai-agents"

    def __init__(self) -> None:
        from agents import Agent, Model, ModelResponse, Usage, function_tool
        from openai.types.responses import (
            ResponseFunctionToolCall,
            ResponseOutputMessage,
            ResponseOutputText,
        )

        tool = function_tool(run_sql)

        def build(llm: Any) -> Any:
            return Agent("writer", instructions=INSTRUCTIONS, model=llm, tools=[tool])

        class Scripted(Model):
            def __init__(self, num_calls: int) -> None:
                self._turns_left = num_calls

            async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
                self._turns_left -= 1
                output: Any = ResponseFunctionToolCall(
                    arguments=QUERY, call_id=f"c{self._turns_left}", name="run_sql", type="function_call"
                )
                if not self._turns_left:
                    text = ResponseOutputText(text="3", type="output_text", annotations=[])
                    output = ResponseOutputMessage(
                        id="m", content=[text], role="assistant", status="completed", type="message"
                    )
                return ModelResponse(output=[output], usage=Usage(), response_id=None)

            def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
                raise NotImplementedError("the agent does not stream")

        self._build, self._scripted = build, Scripted

    def agent(self, num_calls: int) -> Any:
        return self._build

    async def native(self, num_calls: int) -> Any:
        from agents import RunConfig, Runner

        agent = self._build(self._scripted(num_calls))
        config = RunConfig(tracing_disabled=True)
        return await Runner.run(agent, QUESTION, max_turns=MAX_TURNS, run_config=config)


class AgentScope(Side):
    name = "agentscope"

    def __init__(self) -> None:
        from agentscope.agent import Agent
        from agentscope.credential import CredentialBase
        from agentscope.formatter import OpenAIChatFormatter
        from agentscope.message import TextBlock, ToolCallBlock
        from agentscope.model import ChatModelBase, ChatResponse
        from agentscope.permission import PermissionContext, PermissionMode
        from agentscope.state import AgentState
        from agentscope.tool import FunctionTool, Toolkit

        class Scripted(ChatModelBase):
            def __init__(self, num_calls: int) -> None:
                super().__init__(
                    credential=CredentialBase(),
                    model="scripted",
                    parameters=self.Parameters(),
                    stream=False,
                    max_retries=0,
                    context_size=128_000,
                )
                self.formatter = OpenAIChatFormatter()
                self._turns_left = num_calls

            async def _call_api(
                self, *args: Any, **kwargs: Any
            ) -> ChatResponse | AsyncGenerator[ChatResponse, None]:
                self._turns_left -= 1
                block: Any = TextBlock(text="3")
                if self._turns_left:
                    block = ToolCallBlock(id=f"c{self._turns_left}", name="run_sql", input=QUERY)
                return ChatResponse(content=[block], is_last=True)

        def build(llm: ChatModelBase) -> Agent:
            return Agent(
                name="writer",
                system_prompt=INSTRUCTIONS,
                model=llm,
                toolkit=Toolkit(tools=[FunctionTool(cast(Any, run_sql))]),
                state=AgentState(permission_context=PermissionContext(mode=PermissionMode.BYPASS)),
            )

        self._build, self._scripted = build, Scripted

    def agent(self, num_calls: int) -> Any:
        return self._build

    async def native(self, num_calls: int) -> Any:
        from agentscope.message import UserMsg

        return await self._build(self._scripted(num_calls)).reply(UserMsg(name="user", content=QUESTION))


class PlainPython(Side):
    """The `openai` client; on the native side, its transport answers at once."""

    name = "python"

    def __init__(self) -> None:
        import httpx

        self._native = openai_client(httpx.MockTransport(canned))
        self._real = openai_client(httpx.AsyncHTTPTransport())

    def agent(self, num_calls: int) -> Any:
        async def writer(question: str) -> None:
            await converse(self._real, num_calls)

        return writer

    async def native(self, num_calls: int) -> Any:
        await converse(self._native, num_calls)


async def converse(client: Any, num_calls: int) -> None:
    """A plain Python agent."""
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    for _ in range(num_calls):
        reply = await client.chat.completions.create(model="m", messages=messages)
        messages += [reply.choices[0].message, {"role": "user", "content": "go on"}]


def openai_client(transport: Any) -> Any:
    """An asynchronous client of the `openai` package that sends through `transport`."""
    import httpx
    from openai import AsyncOpenAI

    return AsyncOpenAI(api_key="unused", http_client=httpx.AsyncClient(transport=transport))


def canned(request: Any) -> Any:
    """A complete answer of a chat endpoint."""
    import httpx

    message = {"role": "assistant", "content": "3", "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    body = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    return httpx.Response(200, json=body | {"usage": usage})


SIDES: tuple[type[Side], ...] = (LangChain, AutoGen, CrewAI, OpenAIAgents, AgentScope, PlainPython)

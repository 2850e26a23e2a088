"""Small AgentScope agents, written as its users write them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from agentscope.agent import Agent, InjectionConfig
from agentscope.credential import OpenAICredential
from agentscope.message import Msg, UserMsg
from agentscope.model import ChatModelBase, OpenAIChatModel
from agentscope.permission import PermissionContext, PermissionMode
from agentscope.state import AgentState
from agentscope.tool import FunctionTool, Toolkit
from pydantic import BaseModel

from raybolt.adapters.check import AgentKit, NotOffered, Way
from raybolt.adapters.check.kit import NOWHERE
from raybolt.env.chat import ChatRequest, Completion

PROMPTS = {"writer": "You write.", "critic": "You judge what the writer wrote."}


def openai_model(base_url: str = NOWHERE, *, stream: bool = False) -> OpenAIChatModel:
    credential = OpenAICredential(api_key="unused", base_url=base_url)
    return OpenAIChatModel(
        credential, "gpt-5-mini", stream=stream, max_retries=0, client_kwargs={"max_retries": 0}
    )


def agent(name: str, llm: ChatModelBase, tools: Sequence[Callable[..., Any]] = ()) -> Agent:
    """One agent that may use its tools without asking, and is not told what time it is."""
    return Agent(
        name=name,
        system_prompt=PROMPTS[name],
        model=llm,
        toolkit=Toolkit(tools=[FunctionTool(tool) for tool in tools]),
        state=AgentState(permission_context=PermissionContext(mode=PermissionMode.BYPASS)),
        injection_config=InjectionConfig(inject_runtime_state=False),
    )


def conversation(llm: ChatModelBase) -> Callable[[str], Any]:
    """A function that runs two agents: AgentScope leaves who speaks when to plain Python."""
    writer, critic = agent("writer", llm), agent("critic", llm)

    async def converse(question: str) -> Msg:
        draft = await writer.reply(UserMsg(name="user", content=question))
        return await critic.reply(draft)

    return converse


class AgentScopeKit(AgentKit):
    framework: ClassVar[str] = "agentscope"

    def solo(self, way: Way) -> Any:
        def build(llm: ChatModelBase) -> Agent:
            return agent("writer", llm)

        return brought(way, build)

    def with_tools(self, way: Way, tools: Sequence[Callable[..., Any]]) -> Any:
        def build(llm: ChatModelBase) -> Agent:
            return agent("writer", llm, tools)

        return brought(way, build)

    def two_roles(self, way: Way) -> Any:
        if way == "built":
            return self.own_agent(NOWHERE)

        def build(llm: ChatModelBase) -> Callable[[str], Any]:
            return conversation(llm)

        return build

    def hand_off(self, way: Way) -> Any:
        raise NotOffered("AgentScope's agents do not hand over: plain code says who speaks next")

    def hand_off_reply(self, request: ChatRequest) -> Completion:
        raise NotOffered("AgentScope's agents do not hand over: plain code says who speaks next")

    def structured(self, way: Way, schema: type[BaseModel]) -> Any:
        def build(llm: ChatModelBase) -> Callable[[str], Any]:
            writer = agent("writer", llm)

            async def ask(question: str) -> Any:
                reply = await writer.reply(UserMsg(name="user", content=question), structured_schema=schema)
                return reply.structured_output

            return ask

        return brought(way, build)

    def streaming(self, way: Way) -> Any:
        def build(llm: ChatModelBase) -> Callable[[str], Any]:
            llm.stream = True
            writer = agent("writer", llm)

            async def ask(question: str) -> str:
                events = writer.reply_stream(UserMsg(name="user", content=question))
                return "".join([event.delta async for event in events if hasattr(event, "delta")])

            return ask

        return brought(way, build)

    def parallel(self, way: Way) -> Any:
        def build(llm: ChatModelBase) -> Callable[[str], Any]:
            async def ask(question: str) -> str:
                writers = [agent("writer", llm) for _ in range(3)]
                message = UserMsg(name="user", content=question)
                replies = await asyncio.gather(*(writer.reply(message) for writer in writers))
                return " ".join(reply.get_text_content() or "" for reply in replies)

            return ask

        return brought(way, build)

    def late_model(self) -> Any:
        async def ask(question: str) -> Msg:
            return await agent("writer", openai_model()).reply(UserMsg(name="user", content=question))

        return ask

    def text(self, result: Any) -> str:
        return result if isinstance(result, str) else result.get_text_content() or ""

    def own_model(self, base_url: str) -> Any:
        return openai_model(base_url)

    def own_agent(self, base_url: str) -> Any:
        return conversation(openai_model(base_url))


def brought(way: Way, build: Callable[[ChatModelBase], Any]) -> Any:
    """The factory, or what a user who builds at once has: an agent, or a function over one."""
    if way == "factory":
        return build
    return build(openai_model())

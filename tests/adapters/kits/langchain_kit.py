"""Small LangChain and LangGraph agents, written as their users write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import ToolMessage
from langchain_core.runnables import Runnable
from langchain_core.tools import InjectedToolCallId, tool
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command
from pydantic import BaseModel

from raybolt.adapters.check import NOWHERE, AgentKit, Way, call
from raybolt.env.chat import ChatRequest, Completion


def openai_model(base_url: str = NOWHERE) -> ChatOpenAI:
    return ChatOpenAI(model="gpt-5-mini", api_key="unused", base_url=base_url, max_retries=0)


def two_nodes(llm: BaseChatModel) -> Runnable[Any, Any]:
    """A hand-written graph: its nodes' names are the roles."""

    async def writer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await llm.ainvoke([("system", "Write."), *state["messages"]])]}

    def critic(state: MessagesState) -> dict[str, Any]:
        return {"messages": [llm.invoke([("system", "Judge."), ("user", state["messages"][-1].text)])]}

    graph = StateGraph(MessagesState)
    graph.add_node(writer)
    graph.add_node(critic)
    graph.add_edge(START, "writer")
    graph.add_edge("writer", "critic")
    graph.add_edge("critic", END)
    return graph.compile()


def handing_over(llm: BaseChatModel) -> Runnable[Any, Any]:
    """Two agents as nodes, and a tool whose command goes from one to the other."""

    @tool
    def transfer_to_critic(tool_call_id: Annotated[str, InjectedToolCallId]) -> Command:
        """Hand over to the critic."""
        told = ToolMessage("The critic takes over.", tool_call_id=tool_call_id)
        return Command(goto="critic", graph=Command.PARENT, update={"messages": [told]})

    graph = StateGraph(MessagesState)
    graph.add_node("writer", create_agent(llm, [transfer_to_critic], name="writer"))
    graph.add_node("critic", create_agent(llm, name="critic"))
    graph.add_edge(START, "writer")
    return graph.compile()


def one_node(node: Callable[..., Any]) -> Runnable[Any, Any]:
    graph = StateGraph(MessagesState)
    graph.add_node("writer", node)
    graph.add_edge(START, "writer")
    return graph.compile()


class LangChainKit(AgentKit):
    framework: ClassVar[str] = "langchain"

    def solo(self, way: Way) -> Any:
        return brought(way, lambda llm: create_agent(llm, name="writer"))

    def with_tools(self, way: Way, tools: Sequence[Callable[..., Any]]) -> Any:
        return brought(way, lambda llm: create_agent(llm, list(tools), name="writer"))

    def two_roles(self, way: Way) -> Any:
        return brought(way, two_nodes)

    def hand_off(self, way: Way) -> Any:
        return brought(way, handing_over)

    def hand_off_reply(self, request: ChatRequest) -> Completion:
        return call(("transfer_to_critic", {}))

    def structured(self, way: Way, schema: type[BaseModel]) -> Any:
        def build(llm: BaseChatModel) -> Runnable[Any, Any]:
            agent = create_agent(llm, response_format=schema, name="writer")
            return agent | (lambda state: state["structured_response"])

        return brought(way, build)

    def streaming(self, way: Way) -> Any:
        def build(llm: BaseChatModel) -> Runnable[Any, Any]:
            async def writer(state: MessagesState) -> dict[str, Any]:
                return {"messages": ["".join([chunk.text async for chunk in llm.astream(state["messages"])])]}

            return one_node(writer)

        return brought(way, build)

    def parallel(self, way: Way) -> Any:
        def build(llm: BaseChatModel) -> Runnable[Any, Any]:
            async def writer(state: MessagesState) -> dict[str, Any]:
                replies = await llm.abatch([state["messages"]] * 3)
                return {"messages": [" ".join(reply.text for reply in replies)]}

            return one_node(writer)

        return brought(way, build)

    def late_model(self) -> Any:
        async def writer(state: MessagesState) -> dict[str, Any]:
            return {"messages": [await openai_model().ainvoke(state["messages"])]}

        return one_node(writer)

    def text(self, result: Any) -> str:
        return result["messages"][-1].text

    def own_model(self, base_url: str) -> Any:
        return openai_model(base_url)

    def own_agent(self, base_url: str) -> Any:
        return two_nodes(openai_model(base_url))


def brought(way: Way, build: Callable[[BaseChatModel], Any]) -> Any:
    """The factory, or what it makes on a model of OpenAI's."""
    return build if way == "factory" else build(openai_model())

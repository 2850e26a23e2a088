"""A LangChain agent that answers questions by SQL: it writes a query, sees rows or the error, may rewrite."""

from __future__ import annotations

from typing import Any

from langchain.agents import AgentState, create_agent
from langchain.tools import ToolRuntime
from langchain_core.language_models import BaseChatModel
from langchain_core.tools import StructuredTool, ToolException
from langgraph.graph.state import CompiledStateGraph

from raybolt.benchmarks.sql.conversation import ERROR_MARK, SYSTEM_PROMPT, show_rows
from raybolt.benchmarks.sql.database import QueryError, run_query


class SqlState(AgentState[Any]):
    """The chat, and the path of the database that it is about."""

    database: str


def run_sql(query: str, runtime: ToolRuntime) -> str:
    """Run a SQLite query and see its rows."""
    try:
        return show_rows(run_query(runtime.state["database"], query))
    except QueryError as error:
        raise ToolException(f"{ERROR_MARK}{error}") from None


def build_agent(llm: BaseChatModel) -> CompiledStateGraph[Any, Any, Any, Any]:
    """A `create_agent` graph with one tool, `run_sql`, on the database that its input names.

    Its input is `{"messages": […], "database": path}`, as `conversation.agent_input` makes it. The path is
    part of the graph's state, so that any number of runs at once share one graph and never each other's
    database.
    """
    tool = StructuredTool.from_function(run_sql, handle_tool_error=True)
    return create_agent(llm, [tool], system_prompt=SYSTEM_PROMPT, state_schema=SqlState, name="sql")

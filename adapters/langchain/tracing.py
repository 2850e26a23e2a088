"""Spans of tools, agents and graph nodes, from LangChain's own callbacks: no change to the agent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import ToolMessage
from langchain_core.tracers.context import register_configure_hook

from raybolt.env.context import RunContext, current_run
from raybolt.env.recorder import OpenSpan, as_attribute
from raybolt.store import names

_tracer: ContextVar[RunTracer | None] = ContextVar("raybolt_langchain_tracer", default=None)
register_configure_hook(_tracer, inheritable=True)  # LangChain then adds the handler to every call it makes

_AGENT_KIND = "agent"
_NODE_KIND = "node"


@contextmanager
def traced() -> Iterator[None]:
    """Inside the block, LangChain's tools and agents are recorded as spans of the present run, if any."""
    context = current_run.get()
    if context is None or _tracer.get() is not None:
        yield
        return
    token = _tracer.set(RunTracer(context))
    try:
        yield
    finally:
        _tracer.reset(token)


class RunTracer(BaseCallbackHandler):
    """Opens and closes the spans of one run.

    While a tool or an agent works, it is the place in the run where its code stands, so that its LLM calls
    and whatever it emits become its children. That works because LangChain calls inline handlers in the
    context that it then copies for the tool. The LLM calls themselves are recorded by the run.
    """

    run_inline = True
    ignore_llm = True
    ignore_chat_model = True
    ignore_retriever = True

    def __init__(self, root: RunContext) -> None:
        self._root = root
        self._open: dict[UUID, tuple[OpenSpan, RunContext]] = {}  # run id -> its span, the place around it

    def on_tool_start(
        self,
        serialized: dict[str, Any] | None,
        input_str: str,
        *,
        run_id: UUID,
        inputs: dict[str, Any] | None = None,
        tool_call_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        name = (serialized or {}).get("name") or kwargs.get("name") or "tool"
        attributes = {
            names.OPERATION: names.EXECUTE_TOOL,
            names.TOOL_NAME: name,
            names.TOOL_ARGUMENTS: as_attribute(input_str if inputs is None else inputs),
        }
        if tool_call_id:
            attributes[names.TOOL_CALL_ID] = tool_call_id
        self._begin(run_id, f"{names.EXECUTE_TOOL} {name}", attributes, self._place().role)

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        message = output if isinstance(output, ToolMessage) else None
        result = {names.TOOL_RESULT: as_attribute(output if message is None else message.content)}
        span = self._finish(run_id)
        if span is None:
            return
        if message is not None and message.status == "error":
            span.end("error", str(message.content), result)
        else:
            span.end(attributes=result)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._fail(run_id, error)

    def on_chain_start(
        self,
        serialized: dict[str, Any] | None,
        inputs: Any,
        *,
        run_id: UUID,
        metadata: Mapping[str, Any] | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        found = _agent_or_node(name, metadata or {})
        if found is None:
            return
        role, attributes = found
        if self._place() == self._root and role == self._root.role:
            return  # the agent that was wrapped: the run's own span is its span
        self._begin(run_id, f"{attributes[names.KIND]} {role}", attributes, role)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        span = self._finish(run_id)
        if span is not None:
            span.end()

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._fail(run_id, error)

    def _place(self) -> RunContext:
        """Where the calling code stands; the run's root for threads that were started without a context."""
        return current_run.get() or self._root

    def _begin(self, run_id: UUID, name: str, attributes: Mapping[str, Any], role: str) -> None:
        around = self._place()
        values = {**attributes, names.AGENT_NAME: role}
        span = around.run.recorder.begin(name, parent_id=around.span_id, attributes=values)
        self._open[run_id] = (span, around)
        current_run.set(replace(around, span_id=span.span_id, role=role))

    def _finish(self, run_id: UUID) -> OpenSpan | None:
        """The span to end, with the place around it restored; None for what was never opened."""
        span, around = self._open.pop(run_id, (None, None))
        if around is not None:
            current_run.set(around)
        return span

    def _fail(self, run_id: UUID, error: BaseException) -> None:
        span = self._finish(run_id)
        if span is not None:
            span.fail(error, {names.ERROR_TYPE: type(error).__name__})


def _agent_or_node(name: str | None, metadata: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Role and attributes of a chain that is an agent (`create_agent`) or a hand-written node, else None."""
    agent = metadata.get("lc_agent_name")
    if agent is not None:
        return (
            (agent, {names.OPERATION: names.INVOKE_AGENT, names.KIND: _AGENT_KIND}) if name == agent else None
        )
    made_by_create_agent = metadata.get("ls_integration") == "langchain_create_agent"
    if name is None or made_by_create_agent or name != metadata.get("langgraph_node"):
        return None
    return name, {names.KIND: _NODE_KIND}

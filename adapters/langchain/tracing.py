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

from raybolt.adapters.langchain.place import Place
from raybolt.adapters.langchain.replayed import tools_replayed
from raybolt.env.context import RunContext, current_run
from raybolt.env.raised import raised_attribute
from raybolt.env.recorder import OpenSpan, as_attribute
from raybolt.env.replayed import recorded_answer
from raybolt.env.results import missing_attribute
from raybolt.store import names

_tracer: ContextVar[RunTracer | None] = ContextVar("raybolt_langchain_tracer", default=None)
register_configure_hook(_tracer, inheritable=True)  # LangChain then adds the handler to every call it makes

_AGENT_KIND = "agent"
_NODE_KIND = "node"
_HANDOFF_KIND = "handoff"


@contextmanager
def traced() -> Iterator[None]:
    """Inside the block, LangChain's tools and agents are recorded as spans of the present run, if any."""
    context = current_run.get()
    if context is None or _tracer.get() is not None:
        yield
        return
    token = _tracer.set(RunTracer(context))
    try:
        with tools_replayed():
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
        self._open: dict[UUID, tuple[OpenSpan, Place]] = {}

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
        self._begin(run_id, f"{names.EXECUTE_TOOL} {name}", attributes, self._present().role, is_tool=True)
        answer = recorded_answer(name, attributes[names.TOOL_ARGUMENTS], tool_call_id)
        if answer is not None:
            span, place = self._open[run_id]
            answer.repeat_inside(span)
            place.keep_answer(replace(answer, call_id=tool_call_id))

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        message = output if isinstance(output, ToolMessage) else None
        given = output if message is None else message.content
        result = {names.TOOL_RESULT: as_attribute(given), **missing_attribute(given)}
        if message is not None and message.artifact is not None:
            result[names.RESULT_MISSING] = "it has an artifact beside its content, which is not recorded"
        span, place = self._finish(run_id)
        if span is None or place is None:
            return
        for target in hand_off_targets(output):
            self._hand_off(place, target)
        if message is not None and message.status == "error":
            span.end("error", str(message.content), result)
        else:
            span.end(attributes=result)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._leave(run_id, error)

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
        present = self._present()
        if present.span_id == self._root.span_id and role == present.role:
            return  # the agent that was wrapped: the run's own span is its span
        if isinstance(present, Place) and present.is_tool and names.OPERATION in attributes:
            self._hand_off(present, role)
        self._begin(run_id, f"{attributes[names.KIND]} {role}", attributes, role)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        span, place = self._finish(run_id)
        if span is None or place is None:
            return
        for target in hand_off_targets(outputs):
            if target not in place.handed_to:
                self._hand_off(place, target)
        span.end()

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._leave(run_id, error)

    def _present(self) -> RunContext:
        """Where the calling code stands; the run's root for threads that were started without a context."""
        return current_run.get() or self._root

    def _begin(
        self, run_id: UUID, name: str, attributes: Mapping[str, Any], role: str, *, is_tool: bool = False
    ) -> None:
        around = self._present()
        values = {**attributes, names.AGENT_NAME: role}
        span = around.run.recorder.begin(name, parent_id=around.span_id, attributes=values)
        place = Place(around.run, span.span_id, role, around=around, is_tool=is_tool)
        self._open[run_id] = (span, place)
        current_run.set(place)

    def _finish(self, run_id: UUID) -> tuple[OpenSpan | None, Place | None]:
        """The span to end and its place, left by now; nothing for what was never opened."""
        span, place = self._open.pop(run_id, (None, None))
        if place is not None:
            place.leave()
        return span, place

    def _leave(self, run_id: UUID, error: BaseException) -> None:
        """Ends what an exception left; LangGraph's control flow (a command to the parent graph) is none."""
        span, place = self._finish(run_id)
        if span is None or place is None:
            return
        if any(cls.__name__ == "GraphBubbleUp" for cls in type(error).__mro__):
            span.end()
        else:
            raised = raised_attribute(error) if place.is_tool else {}
            span.fail(error, {names.ERROR_TYPE: type(error).__name__, **raised})

    def _hand_off(self, place: Place, target: str) -> None:
        """Records that whoever works, or worked, at `place` hands over."""
        if isinstance(place.around, Place):
            place.around.handed_to.add(target)
        source = place.own_role
        if source == target:
            return
        attributes = {
            names.KIND: _HANDOFF_KIND,
            names.AGENT_NAME: source,
            names.HANDOFF_SOURCE: source,
            names.HANDOFF_TARGET: target,
        }
        name = f"handoff {source} -> {target}"
        place.run.recorder.record(name, parent_id=place.own_span_id, attributes=attributes)


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


def hand_off_targets(output: Any) -> Iterator[str]:
    """The nodes that a node's or a tool's output sends the graph to, by `Command(goto=…)`."""
    for command in output if isinstance(output, list) else [output]:
        goto = getattr(command, "goto", None)
        if type(command).__name__ != "Command" or not goto:  # LangGraph may not be installed
            continue
        for step in goto if isinstance(goto, list | tuple) else [goto]:
            target = getattr(step, "node", step)
            if target != "__end__":
                yield str(target)

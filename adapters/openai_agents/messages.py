"""The SDK's model calls and replies, to and from the canonical chat types.

The SDK speaks the items of OpenAI's Responses API, so most of the work is done by `openai_python`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agents import (
    AgentOutputSchemaBase,
    FunctionTool,
    Handoff,
    ModelResponse,
    ModelSettings,
    Tool,
    TResponseInputItem,
    Usage,
)
from openai.types import responses as api
from pydantic import BaseModel

from raybolt.adapters.openai_python.memory import ResponseMemory
from raybolt.adapters.openai_python.readable import readable
from raybolt.adapters.openai_python.replies import OwnReply, reply_from_response
from raybolt.adapters.openai_python.responses import (
    chat_request_from_responses,
    completion_to_response,
    response_events,
)
from raybolt.env.chat import ChatRequest, Completion
from raybolt.store.errors import InvalidValue

_EVENTS: dict[str, type[BaseModel]] = {
    "response.created": api.ResponseCreatedEvent,
    "response.in_progress": api.ResponseInProgressEvent,
    "response.output_item.added": api.ResponseOutputItemAddedEvent,
    "response.content_part.added": api.ResponseContentPartAddedEvent,
    "response.output_text.delta": api.ResponseTextDeltaEvent,
    "response.output_text.done": api.ResponseTextDoneEvent,
    "response.content_part.done": api.ResponseContentPartDoneEvent,
    "response.function_call_arguments.delta": api.ResponseFunctionCallArgumentsDeltaEvent,
    "response.function_call_arguments.done": api.ResponseFunctionCallArgumentsDoneEvent,
    "response.output_item.done": api.ResponseOutputItemDoneEvent,
    "response.completed": api.ResponseCompletedEvent,
}


@dataclass(frozen=True, slots=True)
class ModelCall:
    """What the SDK hands to `Model.get_response` and `Model.stream_response`."""

    system_instructions: str | None
    input: str | list[TResponseInputItem]
    model_settings: ModelSettings
    tools: Sequence[Tool]
    output_schema: AgentOutputSchemaBase | None
    handoffs: Sequence[Handoff[Any, Any]]
    tracing: Any = None
    previous_response_id: str | None = None
    conversation_id: str | None = None
    prompt: Any = None

    def body(self) -> dict[str, Any]:
        """The call as the body of a Responses request."""
        return {
            "instructions": self.system_instructions,
            "input": self.input if isinstance(self.input, str) else [_item(item) for item in self.input],
            "tools": [*map(_tool, self.tools), *map(_handoff, self.handoffs)],
            "tool_choice": self.model_settings.tool_choice,
            "text": {"format": _format(self.output_schema)},
            "temperature": self.model_settings.temperature,
            "max_output_tokens": self.model_settings.max_tokens,
            "previous_response_id": self.previous_response_id,
            "conversation": self.conversation_id,
            "prompt": self.prompt,
        }


@dataclass(frozen=True, slots=True)
class Asked:
    """One call, read."""

    request: ChatRequest
    refusal: InvalidValue | None
    """Why no policy can answer, if so; `request` is then only good for the record of another model's call."""
    expanded: Mapping[str, Any] = field(default_factory=dict)


def asked(call: ModelCall, memory: ResponseMemory, *, role: str) -> Asked:
    """The canonical request of a call; earlier responses that it goes on from are in `memory`."""
    body = call.body()
    try:
        return _read(body, memory, role, None)
    except InvalidValue as error:
        return _read(readable(body), memory, role, error)


def _read(body: Mapping[str, Any], memory: ResponseMemory, role: str, refusal: InvalidValue | None) -> Asked:
    expanded = memory.expanded(body)
    return Asked(chat_request_from_responses(expanded, role=role), refusal, expanded)


def _item(item: Any) -> Mapping[str, Any]:
    return item.model_dump(exclude_unset=True) if isinstance(item, BaseModel) else item


def _tool(tool: Tool) -> dict[str, Any]:
    if not isinstance(tool, FunctionTool):  # one that OpenAI's servers run
        return {"type": getattr(tool, "name", type(tool).__name__)}
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.params_json_schema,
    }


def _handoff(handoff: Handoff[Any, Any]) -> dict[str, Any]:
    return {
        "type": "function",
        "name": handoff.tool_name,
        "description": handoff.tool_description,
        "parameters": handoff.input_json_schema,
    }


def _format(schema: AgentOutputSchemaBase | None) -> dict[str, Any] | None:
    if schema is None or schema.is_plain_text():
        return None
    return {
        "type": "json_schema",
        "name": "final_output",
        "schema": schema.json_schema(),
        "strict": schema.is_strict_json_schema(),
    }


def response_to(asked: Asked, completion: Completion, memory: ResponseMemory) -> dict[str, Any]:
    """The policy's answer as a `response` object, remembered for calls that go on from it."""
    response = completion_to_response(
        completion, model="raybolt-policy", response_id=f"resp_{uuid.uuid4().hex}"
    )
    memory.remember(asked.expanded, response)
    return response


def model_response(response: Mapping[str, Any]) -> ModelResponse:
    """The same as what `Model.get_response` returns."""
    parsed = api.Response.model_validate(response)
    assert parsed.usage is not None
    usage = Usage(
        requests=1,
        input_tokens=parsed.usage.input_tokens,
        output_tokens=parsed.usage.output_tokens,
        total_tokens=parsed.usage.total_tokens,
    )
    return ModelResponse(output=parsed.output, usage=usage, response_id=parsed.id)


def stream_events(response: Mapping[str, Any]) -> Iterator[Any]:
    """The same as what `Model.stream_response` yields.

    A reply that the length limit cut off is complete here: the SDK ends a streamed run over it, though not
    one without a stream, and a run must not end otherwise because its events are looked at.
    """
    for event in response_events(response):
        if event["type"] == "response.incomplete":
            event = {**event, "type": "response.completed"}
        yield _EVENTS[event["type"]].model_validate(event)


def own_reply(response: ModelResponse | api.Response, model: Any) -> OwnReply | None:
    """What another model of the SDK said; None if it is neither text nor a function call."""
    body = {
        "output": [item.model_dump() for item in response.output],
        "model": getattr(model, "model", None),
        "usage": {
            "input_tokens": getattr(response.usage, "input_tokens", None),
            "output_tokens": getattr(response.usage, "output_tokens", None),
        },
    }
    return reply_from_response(body)

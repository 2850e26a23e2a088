"""What CrewAI's models are given and give back, to and from the canonical chat types."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from crewai.utilities.agent_utils import extract_tool_call_info
from pydantic import BaseModel, ValidationError

from raybolt.env.chat import ChatMessage, Completion, ToolCall, ToolSpec, message_from_dict, tool_from_dict

ToolCallDict = dict[str, Any]


def messages_from_crewai(messages: str | Sequence[Mapping[str, Any]]) -> tuple[ChatMessage, ...]:
    """The canonical messages; a text alone is the user's. Keys that only a provider knows are dropped.

    Raises InvalidValue for a role no chat template knows and for content that is not text.
    """
    if isinstance(messages, str):
        return (ChatMessage("user", messages),)
    return tuple(message_from_dict(message) for message in messages)


def tools_from_crewai(tools: Sequence[Mapping[str, Any]] | None) -> tuple[ToolSpec, ...]:
    """The tool schemas, which CrewAI has in OpenAI's form."""
    return tuple(tool_from_dict(tool) for tool in tools or ())


def response_format(model: type[BaseModel] | None) -> dict[str, Any] | None:
    """What the agent expects of the reply, as in OpenAI's API."""
    if model is None:
        return None
    schema = {"name": model.__name__, "schema": model.model_json_schema()}
    return {"type": "json_schema", "json_schema": schema}


def reply_to_crewai(
    completion: Completion, model: type[BaseModel] | None
) -> str | BaseModel | list[ToolCallDict]:
    """The reply as CrewAI's models give it: tool calls, an instance of `model` if it fits, else the text.

    A reply that was meant as a tool call and cannot be read is a text, as it is from a model server.
    """
    message = completion.message
    if message.tool_calls:
        return [_tool_call_to_dict(call) for call in message.tool_calls]
    content = message.content or ""
    if model is None:
        return content
    try:
        return model.model_validate_json(content)
    except ValidationError:
        return content  # CrewAI's own converter then deals with it


def _tool_call_to_dict(call: ToolCall) -> ToolCallDict:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def message_from_result(result: Any) -> ChatMessage:
    """What a model of the agent's own replied, in canonical form."""
    if isinstance(result, BaseModel):
        return ChatMessage("assistant", result.model_dump_json())
    if not isinstance(result, list):
        return ChatMessage("assistant", str(result))
    found = (extract_tool_call_info(call) for call in result)
    calls = (ToolCall(call_id, name, _as_json(arguments)) for call_id, name, arguments in filter(None, found))
    return ChatMessage("assistant", None, tuple(calls))


def _as_json(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False, default=str)

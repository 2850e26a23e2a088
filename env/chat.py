"""The canonical chat: what every framework's LLM call is turned into, and what a policy answers.

The dictionary form is the one of OpenAI's chat completions, since every framework can produce it.
Values are immutable; an adapter converts once on the way in and once on the way out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

import numpy as np

from raybolt.store.errors import InvalidValue

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "tool_calls", "length"]
TokenIds = np.ndarray[tuple[int], np.dtype[np.int32]]
Logprobs = np.ndarray[tuple[int], np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool that the assistant asks for."""

    id: str
    name: str
    arguments: str
    """JSON text of an object, as the model wrote it."""


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a conversation."""

    role: Role
    content: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    """Only of an assistant."""
    tool_call_id: str | None = None
    """Only of a tool: the call it answers."""
    name: str | None = None


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool that the assistant may call."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """JSON schema of the arguments; empty for a tool without any."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One LLM call, as the agent made it."""

    messages: tuple[ChatMessage, ...]
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: str | None = None
    """"none" hides the tools; "auto", "required" or a tool's name are wishes that a policy may miss."""
    response_format: Mapping[str, Any] | None = None
    """As in OpenAI's API. Recorded and handed on; it does not constrain what is sampled."""
    temperature: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    role: str = "agent"
    """Who asks: the agent's name inside the framework."""

    @property
    def usable_tools(self) -> tuple[ToolSpec, ...]:
        """The tools that the reply may call."""
        return () if self.tool_choice == "none" else self.tools


@dataclass(frozen=True, slots=True)
class Completion:
    """The answer to one `ChatRequest`, with the tokens behind it where they are known."""

    message: ChatMessage
    finish_reason: FinishReason = "stop"
    prompt_ids: TokenIds | None = field(default=None, compare=False)
    response_ids: TokenIds | None = field(default=None, compare=False)
    """The sampled tokens, the end-of-turn token included unless the length limit cut it off."""
    logprobs: Logprobs | None = field(default=None, compare=False)
    """Log-probability of each response token under the distribution it was sampled from."""
    weights_version: int | None = None
    """Version of the weights that sampled it; None for an answer that no trained policy gave."""
    parse_error: str | None = None
    """Why a tool call in the reply could not be read; the message then carries the raw text."""


def message_from_dict(message: Mapping[str, Any]) -> ChatMessage:
    """The canonical form of an OpenAI-style message dictionary.

    A list of content parts is joined to one text; "developer" counts as "system" and "function" as "tool".

    Raises:
        InvalidValue: the role is unknown, or a content part is no text (an image, say).
    """
    role = {"developer": "system", "function": "tool"}.get(message.get("role", ""), message.get("role"))
    if role not in get_args(Role):
        raise InvalidValue(
            f"message role is {message.get('role')!r}; expected one of {', '.join(get_args(Role))}"
        )
    return ChatMessage(
        role=cast(Role, role),
        content=content_text(message.get("content")),
        tool_calls=tuple(_tool_call_from_dict(call) for call in message.get("tool_calls") or ()),
        tool_call_id=message.get("tool_call_id"),
        name=message.get("name"),
    )


def message_to_dict(message: ChatMessage) -> dict[str, Any]:
    """The OpenAI-style dictionary of a message; fields that say nothing are left out."""
    result: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        result["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        result["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        result["name"] = message.name
    return result


def tool_from_dict(tool: Mapping[str, Any]) -> ToolSpec:
    """The canonical form of an OpenAI-style tool: `{"type": "function", "function": {…}}` or its inside."""
    function = tool.get("function", tool)
    if not isinstance(function.get("name"), str):
        raise InvalidValue(
            f"tool has no name: {json.dumps(tool, default=str)[:200]}; only function tools are supported"
        )
    return ToolSpec(
        name=function["name"],
        description=function.get("description") or "",
        parameters=function.get("parameters") or {},
    )


def tool_to_dict(tool: ToolSpec) -> dict[str, Any]:
    """The OpenAI-style dictionary of a tool, as chat templates expect it."""
    parameters = dict(tool.parameters) or {"type": "object", "properties": {}}
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}


def content_text(content: str | Sequence[Any] | None) -> str | None:
    """The text of a message's content, be it a string, a list of text parts or None.

    Raises:
        InvalidValue: a part is no text.
    """
    if content is None or isinstance(content, str):
        return content
    return "".join(_part_text(part) for part in content)


def _part_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return cast(str, part["text"])
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    raise InvalidValue(f"message content has a part of type {kind!r}; only text parts are supported")


def _tool_call_from_dict(call: Mapping[str, Any]) -> ToolCall:
    function = call.get("function", call)
    arguments = function.get("arguments")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments or {})
    return ToolCall(id=str(call.get("id") or ""), name=str(function.get("name")), arguments=text)

"""AutoGen's messages, tools and results, to and from the canonical chat types."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from autogen_core import FunctionCall
from autogen_core.models import (
    AssistantMessage,
    CreateResult,
    FunctionExecutionResultMessage,
    LLMMessage,
    RequestUsage,
    SystemMessage,
    UserMessage,
)
from autogen_core.tools import Tool, ToolSchema
from pydantic import BaseModel

from raybolt.env.chat import (
    ChatMessage,
    ChatRequest,
    Completion,
    FinishReason,
    ToolCall,
    ToolSpec,
    content_text,
    tool_from_dict,
)
from raybolt.env.tool_calls import UNREADABLE
from raybolt.store.errors import InvalidValue


def chat_request(messages: Sequence[LLMMessage], options: Mapping[str, Any], role: str) -> ChatRequest:
    """The canonical request of `client.create(messages, **options)`.

    Raises InvalidValue for a message whose content is not text.
    """
    tools = tuple(_tool(tool) for tool in options.get("tools") or ())
    extra = options.get("extra_create_args") or {}
    stop = extra.get("stop") or ()
    return ChatRequest(
        messages=messages_from_autogen(messages),
        tools=tools,
        tool_choice=_tool_choice(options.get("tool_choice", "auto")) if tools else None,
        response_format=_response_format(options.get("json_output"), extra),
        temperature=extra.get("temperature"),
        max_tokens=extra.get("max_completion_tokens") or extra.get("max_tokens"),
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        role=role,
    )


def messages_from_autogen(messages: Iterable[LLMMessage]) -> tuple[ChatMessage, ...]:
    """The canonical messages; one message of several tool results becomes one message each."""
    return tuple(converted for message in messages for converted in _message(message))


def _message(message: LLMMessage) -> Iterable[ChatMessage]:
    if isinstance(message, SystemMessage):
        return (ChatMessage("system", message.content),)
    if isinstance(message, UserMessage):
        return (ChatMessage("user", content_text(message.content), name=message.source),)
    if isinstance(message, AssistantMessage):
        return (_assistant_message(message.content, message.thought),)
    if isinstance(message, FunctionExecutionResultMessage):
        return (
            ChatMessage("tool", result.content, tool_call_id=result.call_id, name=result.name)
            for result in message.content
        )
    raise InvalidValue(f"message of type {type(message).__name__} is none of AutoGen's LLM messages")


def _assistant_message(content: str | list[FunctionCall], thought: str | None) -> ChatMessage:
    """A reply as the policy gave it: the text beside tool calls is what AutoGen keeps as a thought.

    The agent's name stays out: the policy spoke without one, and the tokens of earlier turns are only reused
    if the conversation still renders as it did.
    """
    if isinstance(content, str):
        return ChatMessage("assistant", content)
    calls = tuple(ToolCall(call.id, call.name, call.arguments) for call in content)
    return ChatMessage("assistant", thought, tool_calls=calls)


def _tool(tool: Tool | ToolSchema) -> ToolSpec:
    return tool_from_dict(tool if isinstance(tool, dict) else tool.schema)


def _tool_choice(choice: Tool | str | None) -> str | None:
    return choice if choice is None or isinstance(choice, str) else choice.name


def _response_format(wanted: Any, extra: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if isinstance(wanted, type) and issubclass(wanted, BaseModel):
        schema = {"name": wanted.__name__, "schema": wanted.model_json_schema()}
        return {"type": "json_schema", "json_schema": schema}
    given = extra.get("response_format")
    if isinstance(given, Mapping):
        return given
    return {"type": "json_object"} if wanted is True else None


def result_to_autogen(completion: Completion) -> CreateResult:
    """The reply as AutoGen's own result.

    Arguments that are no JSON go on as they are: the agent answers such a call with an error. Text in which
    no call could be read at all is a text.
    """
    message = completion.message
    calls = [FunctionCall(call.id, call.arguments, call.name) for call in message.tool_calls]
    return CreateResult(
        finish_reason="function_calls" if calls else _finish_reason(completion.finish_reason),
        content=calls or message.content or "",
        thought=message.content or None if calls else None,
        usage=_usage(completion),
        cached=False,
    )


def _finish_reason(reason: FinishReason) -> Any:
    return "length" if reason == "length" else "stop"


def _usage(completion: Completion) -> RequestUsage:
    num_in = 0 if completion.prompt_ids is None else len(completion.prompt_ids)
    num_out = 0 if completion.response_ids is None else len(completion.response_ids)
    return RequestUsage(prompt_tokens=num_in, completion_tokens=num_out)


def reply_from_autogen(result: CreateResult) -> tuple[ChatMessage, FinishReason]:
    """The canonical message and finish reason of what an agent's own model replied."""
    message = _assistant_message(result.content, result.thought)
    reasons: dict[str, FinishReason] = {"function_calls": "tool_calls", "length": "length"}
    return message, reasons.get(result.finish_reason, "stop")


def arguments_of(call: FunctionCall) -> Any:
    """The call's arguments, parsed if they are JSON."""
    try:
        return json.loads(call.arguments)
    except UNREADABLE:
        return call.arguments

"""LangChain's messages and tools, to and from the canonical chat types."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.messages import ChatMessage as RoleMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import InvalidToolCall
from langchain_core.messages.tool import ToolCall as ParsedToolCall
from langchain_core.utils.function_calling import convert_to_openai_tool

from raybolt.env.chat import ChatMessage, Completion, Role, ToolCall, ToolSpec, tool_from_dict
from raybolt.store.errors import InvalidValue

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "human": "user",
    "user": "user",
    "ai": "assistant",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
# Blocks that only repeat what an AIMessage says in `tool_calls`, or that a policy never sees again.
_SKIPPED_BLOCKS = frozenset(
    {"tool_call", "tool_use", "function_call", "invalid_tool_call", "reasoning", "thinking"}
)


def messages_from_langchain(
    messages: Iterable[BaseMessage], *, lenient: bool = False
) -> tuple[ChatMessage, ...]:
    """The canonical messages; a reply that the policy gave earlier comes back saying what it said.

    Raises InvalidValue for a role no chat template knows and, unless `lenient`, for content that is not text.
    """
    return tuple(_message_from_langchain(message, lenient) for message in messages)


def _message_from_langchain(message: BaseMessage, lenient: bool) -> ChatMessage:
    role = _role(message)
    content = _text(message, lenient)
    if isinstance(message, AIMessage):
        # `create_agent` writes the agent's name on every reply. The policy gave it without one, and tokens of
        # earlier turns are only reused if the conversation still renders as it did, so the name stays out.
        calls = _tool_calls(message)
        return ChatMessage(role=role, content=content or None if calls else content, tool_calls=calls)
    call_id = message.tool_call_id if isinstance(message, ToolMessage) else None
    return ChatMessage(role=role, content=content, tool_call_id=call_id, name=message.name)


def reply_from_langchain(message: AIMessage) -> ChatMessage:
    """What a model of the agent's own replied; content that is not text is named in its place."""
    return _message_from_langchain(message, lenient=True)


def _role(message: BaseMessage) -> Role:
    name = message.role if isinstance(message, RoleMessage) else message.type
    name = name.removesuffix("MessageChunk").lower()
    if name not in _ROLES:
        raise InvalidValue(
            f"message role {name!r} is not one a chat model knows; use one of {sorted(set(_ROLES.values()))}"
        )
    return _ROLES[name]


def _text(message: BaseMessage, lenient: bool = True) -> str:
    if isinstance(message.content, str):
        return message.content
    return "".join(_block_text(block, lenient) for block in message.content)


def _block_text(block: str | dict[str, Any], lenient: bool) -> str:
    if isinstance(block, str):
        return block
    kind = block.get("type")
    if kind in {"text", "output_text", "input_text"}:
        return str(block["text"])
    if kind in _SKIPPED_BLOCKS:
        return ""
    if kind is None and isinstance(block.get("json"), (dict, list)):
        return json.dumps(block["json"])
    if lenient:
        return f"[{kind}]"
    raise InvalidValue(f"message content has a block of type {kind!r}; a raybolt policy reads text only")


def _tool_calls(message: AIMessage) -> tuple[ToolCall, ...]:
    calls = [
        ToolCall(call["id"] or "", call["name"], json.dumps(call["args"], ensure_ascii=False))
        for call in message.tool_calls
    ]
    for invalid in message.invalid_tool_calls:
        text = invalid["args"] or ""
        if text not in _text(message):  # what our own replies put there they also keep as content
            calls.append(ToolCall(invalid["id"] or "", invalid["name"] or "", text))
    return tuple(calls)


def _parsed_object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def message_to_langchain(completion: Completion, *, position: int = 0) -> AIMessage:
    """The reply as LangChain's own message; what does not parse becomes an `invalid_tool_calls` entry.

    `position` is the reply's place in the conversation; it keeps the ids of unreadable calls apart.
    """
    message = completion.message
    calls: list[ParsedToolCall] = []
    invalid: list[InvalidToolCall] = []
    for call in message.tool_calls:
        args = _parsed_object(call.arguments)
        if args is None:
            error = "the arguments are not a JSON object"
            invalid.append(_invalid(call.id, call.name, call.arguments, error))
        else:
            calls.append(ParsedToolCall(name=call.name, args=args, id=call.id, type="tool_call"))
    if completion.parse_error:
        invalid.append(
            _invalid(f"invalid_call_{position}", None, message.content or "", completion.parse_error)
        )
    return AIMessage(
        content=message.content or "",
        tool_calls=calls,
        invalid_tool_calls=invalid,
        response_metadata={"finish_reason": completion.finish_reason},
        usage_metadata=_usage(completion),
    )


def _invalid(call_id: str, name: str | None, args: str, error: str) -> InvalidToolCall:
    return InvalidToolCall(type="invalid_tool_call", id=call_id, name=name, args=args, error=error)


def _usage(completion: Completion) -> UsageMetadata | None:
    if completion.prompt_ids is None or completion.response_ids is None:
        return None
    num_in, num_out = len(completion.prompt_ids), len(completion.response_ids)
    return UsageMetadata(input_tokens=num_in, output_tokens=num_out, total_tokens=num_in + num_out)


def tools_from_langchain(tools: Sequence[Any], *, lenient: bool = False) -> tuple[ToolSpec, ...]:
    """The tool schemas, from whatever form (OpenAI's, Anthropic's…) a provider's `bind_tools` gave them.

    Raises InvalidValue, unless `lenient`, for a tool that a provider runs itself.
    """
    specs = []
    for tool in tools:
        converted = convert_to_openai_tool(tool)
        if "function" not in converted:
            if lenient:
                continue
            raise InvalidValue(
                f"tool {tool!r} is one a provider runs on its own servers; a raybolt policy can only call "
                "tools that run in the agent"
            )
        specs.append(tool_from_dict(converted))
    return tuple(specs)

"""Tool calls written as text: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`.

The form that Hermes and Qwen models were taught, and the one used for chat templates that know no tools.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from raybolt.env.chat import ChatMessage, ToolCall, ToolSpec, tool_to_dict

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
UNREADABLE = (ValueError, RecursionError)
"""What reading JSON that a model wrote may raise: it is none, or has thousands of digits or brackets."""
_BLOCK = re.compile(rf"{_OPEN}(.*?){_CLOSE}", re.DOTALL)


class MalformedToolCall(ValueError):
    """A reply holds something that looks like a tool call and cannot be read; never leaves this room."""


def parse_reply(text: str, id_prefix: str) -> tuple[str | None, tuple[ToolCall, ...]]:
    """The content and the tool calls of a reply; content is None when there is nothing beside the calls.

    Calls get the ids `{id_prefix}_0`, `{id_prefix}_1`, …

    Raises:
        MalformedToolCall: a call is not closed, is no JSON, or names no tool or no arguments object.
    """
    if _OPEN not in text:
        return text.strip() or None, ()
    blocks = _BLOCK.findall(text)
    content = _BLOCK.sub("", text)
    if _OPEN in content:
        raise MalformedToolCall(f"a {_OPEN} is not closed by {_CLOSE}")
    calls = tuple(_parse_call(block, f"{id_prefix}_{index}") for index, block in enumerate(blocks))
    return content.strip() or None, calls


def canonical_arguments(arguments: str) -> Any:
    """The arguments as a JSON value, so that spacing does not matter; the text itself if it is no JSON."""
    try:
        return json.loads(arguments)
    except UNREADABLE:
        return arguments


def tools_as_text(tools: Sequence[ToolSpec]) -> str:
    """What a system message says about the tools, for a chat template that says nothing."""
    listed = "\n".join(json.dumps(tool_to_dict(tool)["function"], ensure_ascii=False) for tool in tools)
    return (
        "You can use the tools listed below. To use one, write\n"
        f'{_OPEN}{{"name": "the tool", "arguments": {{"its": "arguments"}}}}{_CLOSE}\n'
        "and end your message; the result comes in the next message.\n"
        f"<tools>\n{listed}\n</tools>"
    )


def call_as_text(call: ToolCall) -> str:
    """The call as the model has to write it."""
    value = {"name": call.name, "arguments": canonical_arguments(call.arguments)}
    return f"{_OPEN}{json.dumps(value, ensure_ascii=False)}{_CLOSE}"


def without_tool_turns(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The conversation for a template that knows no tools: calls as text, results as the user's messages.

    Results that follow one another become one message, since many templates want roles to alternate.
    """
    plain: list[ChatMessage] = []
    for index, message in enumerate(messages):
        if message.role == "assistant" and message.tool_calls:
            texts = [message.content or "", *map(call_as_text, message.tool_calls)]
            plain.append(ChatMessage("assistant", "\n".join(text for text in texts if text)))
        elif message.role == "tool":
            result = f"<tool_response>\n{message.content or ''}\n</tool_response>"
            if index and messages[index - 1].role == "tool":
                result = f"{plain.pop().content}\n{result}"
            plain.append(ChatMessage("user", result))
        else:
            plain.append(message)
    return plain


def _parse_call(block: str, call_id: str) -> ToolCall:
    try:
        value = json.loads(block)
    except UNREADABLE as error:
        raise MalformedToolCall(f"no JSON in {_OPEN}: {error}") from None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise MalformedToolCall(f'expected {{"name": …, "arguments": …}}, got {block.strip()[:200]}')
    arguments = value.get("arguments", {})
    if not isinstance(arguments, dict):
        raise MalformedToolCall(f"the arguments of {value['name']!r} are no JSON object: {arguments!r:.200}")
    return ToolCall(call_id, value["name"], json.dumps(arguments, ensure_ascii=False))

"""AgentScope's messages, tools and responses, to and from the canonical chat types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from agentscope.formatter import FormatterBase, OpenAIChatFormatter, OpenAIMultiAgentFormatter
from agentscope.message import Msg, TextBlock, ToolCallBlock
from agentscope.model import ChatResponse, ChatUsage
from agentscope.tool import ToolChoice

from raybolt.env.chat import (
    ChatMessage,
    ChatRequest,
    Completion,
    ToolCall,
    ToolSpec,
    message_from_dict,
    tool_from_dict,
)

_READABLE = (OpenAIChatFormatter, OpenAIMultiAgentFormatter)
_CHAT, _MULTI_AGENT = OpenAIChatFormatter(), OpenAIMultiAgentFormatter()


async def messages_from_agentscope(
    messages: list[Msg], formatter: FormatterBase | None, *, role: str, lenient: bool = False
) -> tuple[ChatMessage, ...]:
    """The canonical messages, laid out as the model's own formatter lays them out.

    A formatter of another provider is replaced by OpenAI's of the same kind: one message each, or the whole
    conversation of several agents as one text. Raises InvalidValue for content that is not text, unless
    `lenient`, which names it in its place.
    """
    formatted = await _readable(formatter).format(messages)
    if lenient:
        formatted = [{**message, "content": _named(message.get("content"))} for message in formatted]
    return tuple(_without_idle_name(message_from_dict(message), role) for message in formatted)


def _readable(formatter: FormatterBase | None) -> FormatterBase:
    if isinstance(formatter, _READABLE):
        return formatter
    return _MULTI_AGENT if "MultiAgent" in type(formatter).__name__ else _CHAT


def _named(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    return "".join(part["text"] if part["type"] == "text" else f"[{part['type']}]" for part in content)


def _without_idle_name(message: ChatMessage, role: str) -> ChatMessage:
    """A name that repeats the role, or the reader's own, says nothing; the policy's replies had none."""
    return replace(message, name=None) if message.name in (message.role, role) else message


def tools_from_agentscope(
    tools: Sequence[Mapping[str, Any]] | None, choice: ToolChoice | None
) -> tuple[ToolSpec, ...]:
    """The tools that the call offers; a choice may narrow them."""
    allowed = choice.tools if choice is not None else None
    specs = (tool_from_dict(tool) for tool in tools or ())
    return tuple(spec for spec in specs if not allowed or spec.name in allowed)


def response_from_completion(
    completion: Completion, request: ChatRequest, *, is_last: bool = True
) -> ChatResponse:
    """The policy's answer as AgentScope's response; arguments stay the text that the model wrote.

    A reply whose tool call could not be read is its raw text, as a provider would hand it on.
    """
    message = completion.message
    taken = {call.id for earlier in request.messages for call in earlier.tool_calls}
    blocks: list[TextBlock | ToolCallBlock] = []
    if message.content or not message.tool_calls:
        blocks.append(TextBlock(text=message.content or ""))
    for call in message.tool_calls:
        # The agent tells finished calls from open ones by their ids, so an id must not come twice.
        call_id = f"{call.id}_{len(request.messages)}" if call.id in taken or not call.id else call.id
        taken.add(call_id)
        blocks.append(ToolCallBlock(id=call_id, name=call.name, input=call.arguments))
    return ChatResponse(content=list(blocks), is_last=is_last, usage=_usage(completion))


def _usage(completion: Completion) -> ChatUsage | None:
    if completion.prompt_ids is None or completion.response_ids is None:
        return None
    num_in, num_out = len(completion.prompt_ids), len(completion.response_ids)
    return ChatUsage(input_tokens=num_in, output_tokens=num_out, time=0.0)


def message_from_response(response: ChatResponse) -> ChatMessage:
    """What a model of the agent's own answered; thoughts and media are left out."""
    calls = tuple(
        ToolCall(block.id, block.name, block.input)
        for block in response.content
        if isinstance(block, ToolCallBlock)
    )
    text = "".join(_texts(response.content))
    return ChatMessage("assistant", text or None if calls else text, calls)


def _texts(blocks: Iterable[Any]) -> Iterable[str]:
    return (block.text for block in blocks if isinstance(block, TextBlock))


def text_of(blocks: Iterable[Any] | str) -> str:
    """The text of a tool's result."""
    return blocks if isinstance(blocks, str) else "".join(_texts(blocks))

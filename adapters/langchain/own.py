"""Calls that a chat model of the agent's own answers: passed on as they come, and recorded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatResult

from raybolt.adapters.capture import own_call
from raybolt.adapters.langchain.messages import reply_from_langchain
from raybolt.adapters.streams import not_captured, stepped, stepped_sync
from raybolt.env.chat import ChatRequest
from raybolt.env.observed import ObservedCall
from raybolt.env.policy import PolicyPort


def own_result(policy: PolicyPort, request: ChatRequest, ask: Callable[[], ChatResult]) -> ChatResult:
    """What the agent's own model says to `ask`."""
    with own_call(policy, request) as seen:
        result = ask()
        tell(seen, result.generations[0].message)
    return result


async def own_result_async(
    policy: PolicyPort, request: ChatRequest, ask: Callable[[], Awaitable[ChatResult]]
) -> ChatResult:
    """As `own_result`."""
    with own_call(policy, request) as seen:
        result = await ask()
        tell(seen, result.generations[0].message)
    return result


def own_stream(
    policy: PolicyPort, request: ChatRequest, stream: Iterator[AIMessageChunk]
) -> Iterator[AIMessageChunk]:
    """The chunks of the agent's own model."""
    with policy.observe(request) as seen:
        total: AIMessageChunk | None = None
        for chunk in stepped_sync(stream, not_captured):
            total = chunk if total is None else total + chunk
            yield chunk
        tell(seen, total)


async def own_stream_async(
    policy: PolicyPort, request: ChatRequest, stream: AsyncIterator[AIMessageChunk]
) -> AsyncIterator[AIMessageChunk]:
    """As `own_stream`."""
    with policy.observe(request) as seen:
        total: AIMessageChunk | None = None
        async for chunk in stepped(stream, not_captured):
            total = chunk if total is None else total + chunk
            yield chunk
        tell(seen, total)


def tell(seen: ObservedCall, reply: BaseMessage | None) -> None:
    """Record the reply; a stream that brought none leaves the call without one."""
    if not isinstance(reply, AIMessage):
        return
    usage = reply.usage_metadata
    seen.reply(
        reply_from_langchain(reply),
        finish_reason="tool_calls" if reply.tool_calls else "stop",
        model=reply.response_metadata.get("model_name"),
        input_tokens=usage["input_tokens"] if usage else None,
        output_tokens=usage["output_tokens"] if usage else None,
    )

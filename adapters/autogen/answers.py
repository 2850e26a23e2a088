"""Answer a call of a model client: by the policy, or by the client that the agent owns, recorded."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, nullcontext
from typing import Any

from autogen_core.models import ChatCompletionClient, CreateResult, LLMMessage

from raybolt.adapters.autogen.messages import chat_request, reply_from_autogen, result_to_autogen
from raybolt.adapters.autogen.places import stoppable, whose_call
from raybolt.adapters.capture import own_call
from raybolt.adapters.streams import not_captured, stepped
from raybolt.env.chat import ChatRequest
from raybolt.env.observed import ObservedCall
from raybolt.env.policy import PolicyPort

Options = Mapping[str, Any]
"""The keyword arguments of `create` and `create_stream`."""


async def answer(
    policy: PolicyPort, own: ChatCompletionClient | None, messages: Sequence[LLMMessage], options: Options
) -> CreateResult:
    """The result of `create(messages, **options)`. A call that the policy does not take is `own`'s."""
    role, manager = whose_call()
    with nullcontext() if manager is None else manager.block():
        request = chat_request(messages, options, role)
        if own is None or policy.takes(request):
            return await _by_policy(policy, request, options)
        with own_call(policy, request) as seen:
            result = await own.create(messages, **options)
            _note(seen, own, result)
        return result


async def answer_stream(
    policy: PolicyPort, own: ChatCompletionClient | None, messages: Sequence[LLMMessage], options: Options
) -> AsyncGenerator[str | CreateResult, None]:
    """The same as a stream: texts, and the result at the end. The policy's text comes in one piece."""
    role, manager = whose_call()
    request = chat_request(messages, options, role)
    if own is None or policy.takes(request):
        chunks = _by_policy_stream(policy, request, options)
    else:
        chunks = _own(policy, own, request, messages, options)
    async with aclosing(chunks if manager is None else manager.stream(chunks)) as stream:
        async for chunk in stream:
            yield chunk


async def _by_policy(policy: PolicyPort, request: ChatRequest, options: Options) -> CreateResult:
    completion = await stoppable(policy.complete(request), options.get("cancellation_token"))
    return result_to_autogen(completion)


async def _by_policy_stream(
    policy: PolicyPort, request: ChatRequest, options: Options
) -> AsyncGenerator[str | CreateResult, None]:
    result = await _by_policy(policy, request, options)
    text = result.content if isinstance(result.content, str) else result.thought
    if text:
        yield text
    yield result


async def _own(
    policy: PolicyPort, own: Any, request: ChatRequest, messages: Sequence[LLMMessage], options: Options
) -> AsyncGenerator[str | CreateResult, None]:
    with policy.observe(request) as seen:
        with not_captured():
            chunks = own.create_stream(messages, **options)
        async with aclosing(stepped(chunks, not_captured)) as stream:
            async for chunk in stream:
                if isinstance(chunk, CreateResult):
                    _note(seen, own, chunk)
                yield chunk


def _note(seen: ObservedCall, own: Any, result: CreateResult) -> None:
    message, finish_reason = reply_from_autogen(result)
    seen.reply(
        message,
        finish_reason=finish_reason,
        model=getattr(own, "_create_args", {}).get("model"),  # AutoGen's own clients all keep it there
        input_tokens=result.usage.prompt_tokens,
        output_tokens=result.usage.completion_tokens,
    )

"""The policy as an AgentScope chat model, and how any chat model's call is answered by a policy."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, TypeAlias

from agentscope.credential import CredentialBase
from agentscope.formatter import FormatterBase, OpenAIChatFormatter
from agentscope.message import Msg
from agentscope.model import ChatModelBase, ChatResponse
from agentscope.tool import ToolChoice

from raybolt.adapters.agentscope.messages import (
    message_from_response,
    messages_from_agentscope,
    response_from_completion,
    tools_from_agentscope,
)
from raybolt.adapters.capture import current_role
from raybolt.adapters.streams import not_captured, stepped
from raybolt.env.chat import ChatRequest
from raybolt.env.observed import ObservedCall
from raybolt.env.policy import PolicyPort
from raybolt.store.errors import InvalidValue

Response: TypeAlias = ChatResponse | AsyncGenerator[ChatResponse, None]


class PolicyModel(ChatModelBase):
    """The chat model that a factory `build(llm)` is given: every call of it is one step of the run.

    Set `stream = True` on it for code that iterates over the model's responses; set `formatter` as on
    AgentScope's own models.
    """

    formatter: FormatterBase

    def __init__(self, port: PolicyPort, frozen: ChatModelBase | None = None) -> None:
        super().__init__(
            credential=CredentialBase(),
            model="raybolt-policy",
            parameters=self.Parameters(),
            stream=False,
            max_retries=0,
            context_size=128_000,
        )
        self.formatter = OpenAIChatFormatter()
        self._port = port
        self._frozen = frozen

    @classmethod
    def of(cls, port: PolicyPort, frozen: ChatModelBase | None = None) -> PolicyModel:
        """A model whose calls go to `port`; those it does not take are answered by `frozen`, if given."""
        return cls(port, frozen)

    def __deepcopy__(self, memo: dict[int, Any]) -> PolicyModel:
        """A model of its own settings; the run it belongs to is the same."""
        copied = type(self)(self._port, self._frozen)
        copied.__dict__.update(self.__dict__)
        return copied

    async def _call_api(
        self,
        model_name: str,
        messages: list[Msg],
        tools: list[dict[str, Any]] | None = None,
        tool_choice: ToolChoice | None = None,
        **kwargs: Any,
    ) -> Response:
        request = await request_for(self._port, self, messages, tools, tool_choice, kwargs)
        if self._frozen is None or self._port.takes(request):
            return await answered_by_policy(self._port, request, stream=self.stream)
        frozen = self._frozen
        answer = await answered_by_own(
            self._port,
            request,
            lambda: frozen(messages=messages, tools=tools, tool_choice=tool_choice, **kwargs),
            frozen.model,
        )
        return await _as_stream(answer, self.stream)


async def request_for(
    policy: PolicyPort,
    model: ChatModelBase,
    messages: list[Msg],
    tools: Sequence[Mapping[str, Any]] | None,
    tool_choice: ToolChoice | None,
    kwargs: Mapping[str, Any],
) -> ChatRequest:
    """The canonical request of a call of `model`.

    Raises InvalidValue for what a policy cannot read (an image, say) if the policy is to read it.
    """
    try:
        return await _chat_request(model, messages, tools, tool_choice, kwargs)
    except InvalidValue:
        request = await _chat_request(model, messages, tools, tool_choice, kwargs, lenient=True)
        if policy.takes(request):
            raise
        return request


async def _chat_request(
    model: ChatModelBase,
    messages: list[Msg],
    tools: Sequence[Mapping[str, Any]] | None,
    tool_choice: ToolChoice | None,
    kwargs: Mapping[str, Any],
    *,
    lenient: bool = False,
) -> ChatRequest:
    """Parameters that only a provider knows are dropped."""
    role, formatter = current_role(), getattr(model, "formatter", None)
    settings = {**vars(model.parameters), **kwargs}
    stop = settings.get("stop")
    return ChatRequest(
        messages=await messages_from_agentscope(messages, formatter, role=role, lenient=lenient),
        tools=tools_from_agentscope(tools, tool_choice),
        tool_choice=tool_choice.mode if tool_choice is not None else None,
        response_format=kwargs.get("response_format"),
        temperature=settings.get("temperature"),
        max_tokens=settings.get("max_tokens"),
        stop=(stop,) if isinstance(stop, str) else tuple(stop or ()),
        role=role,
    )


async def answered_by_policy(policy: PolicyPort, request: ChatRequest, *, stream: bool) -> Response:
    """The policy's answer, in one piece; as a stream of it where the model is one that streams."""
    completion = await policy.complete(request)
    if not stream:
        return response_from_completion(completion, request)
    return _one(response_from_completion(completion, request, is_last=False))


async def answered_by_own(
    policy: PolicyPort, request: ChatRequest, call: Callable[[], Awaitable[Response]], model_name: str
) -> Response:
    """What the agent's own model answers to `call`, passed on as it comes and recorded when complete."""
    with ExitStack() as stack:
        seen = stack.enter_context(policy.observe(request))
        with not_captured():
            answer = await call()
        if isinstance(answer, ChatResponse):
            _tell(seen, answer, model_name)
            return answer
        return _watched(answer, seen, model_name, stack.pop_all())


async def _watched(
    stream: AsyncGenerator[ChatResponse, None], seen: ObservedCall, model_name: str, observing: ExitStack
) -> AsyncGenerator[ChatResponse, None]:
    with observing:
        total = ChatResponse(content=[], is_last=True)
        async for chunk in stepped(stream, not_captured):
            if chunk.is_last:  # nobody asks for more after this one
                _tell(seen, chunk, model_name)
                observing.close()
                yield chunk
                return
            total.append_chat_response(chunk)
            yield chunk
        _tell(seen, total, model_name)


def _tell(seen: ObservedCall, response: ChatResponse, model_name: str) -> None:
    message, usage = message_from_response(response), response.usage
    seen.reply(
        message,
        finish_reason="tool_calls" if message.tool_calls else "stop",
        model=model_name,
        input_tokens=usage.input_tokens if usage else None,
        output_tokens=usage.output_tokens if usage else None,
    )


async def _as_stream(answer: Response, wanted: bool) -> Response:
    """The answer in the form that the caller expects of its model."""
    if isinstance(answer, ChatResponse):
        # A partial response, as of a stream: what comes whole is not shown to those who watch the text grow.
        return _one(replace(answer, is_last=False)) if wanted else answer
    if wanted:
        return answer
    async for chunk in answer:
        if chunk.is_last:
            return chunk
    raise RuntimeError("the frozen model's stream ended without its last response")


async def _one(response: ChatResponse) -> AsyncGenerator[ChatResponse, None]:
    yield response

"""The policy as a LangChain chat model."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, BaseRunManager, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import ensure_config
from langchain_core.tracers._streaming import _StreamingCallbackHandler  # LangGraph uses it, too
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_core.utils.utils import LC_ID_PREFIX
from pydantic import BaseModel, PrivateAttr, ValidationError

from raybolt.adapters.capture import captured_policy, current_role
from raybolt.adapters.langchain.aborts import noted, raised_again
from raybolt.adapters.langchain.messages import (
    message_to_langchain,
    messages_from_langchain,
    tools_from_langchain,
)
from raybolt.adapters.langchain.own import own_result, own_result_async, own_stream, own_stream_async
from raybolt.adapters.streams import stepped, stepped_sync
from raybolt.env.chat import ChatRequest, Completion
from raybolt.env.policy import PolicyPort
from raybolt.store.errors import InvalidValue, RayboltError

_SILENT = RunnableConfig(callbacks=[])  # the policy model's own callbacks tell of the frozen model's reply
_RunManager = CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None


class PolicyChatModel(BaseChatModel):
    """The chat model that a factory `build(llm)` is given: every call of it is one step of the run.

    It never caches. Whoever streams it gets the whole reply as one chunk.
    Without a port it answers by the policy of the run that the caller's context belongs to. A call that the
    policy does not take goes to the frozen model, if there is one, and streams if that one does.
    """

    cache: bool = False
    model_name: str = "raybolt-policy"
    _port: PolicyPort | None = PrivateAttr(default=None)
    _frozen: BaseChatModel | None = PrivateAttr(default=None)

    @classmethod
    def of(cls, port: PolicyPort, frozen: BaseChatModel | None = None) -> PolicyChatModel:
        """A model whose calls all go to `port`, from whatever thread or context they are made.

        Those that the port does not take are answered by `frozen`, if given.
        """
        model = cls()
        model._port = port
        model._frozen = frozen
        return model

    @property
    def _llm_type(self) -> str:
        return "raybolt-policy"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        policy = self._policy()
        request = request_for(policy, messages, stop, metadata_of(run_manager), kwargs)
        if self._frozen is not None and not policy.takes(request):
            model, options = _frozen_call(self._frozen, kwargs)
            result = own_result(
                policy, request, lambda: _as_result(model.invoke(messages, _SILENT, stop=stop, **options))
            )
        else:
            result = _result(policy.complete_sync(request), request, kwargs)
        if run_manager is not None and _is_streamed(run_manager):
            chunk = _announced(result, run_manager)
            run_manager.on_llm_new_token(chunk.message.content, chunk=chunk)
        return result

    async def agenerate(self, *args: Any, **kwargs: Any) -> LLMResult:
        """LangChain's, but an abort comes out as it is."""
        with raised_again():
            return await super().agenerate(*args, **kwargs)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        policy = self._policy()
        request = request_for(policy, messages, stop, metadata_of(run_manager), kwargs)
        if self._frozen is not None and not policy.takes(request):
            model, options = _frozen_call(self._frozen, kwargs)

            async def ask() -> ChatResult:
                return _as_result(await model.ainvoke(messages, _SILENT, stop=stop, **options))

            with noted():
                result = await own_result_async(policy, request, ask)
        else:
            with noted():
                result = _result(await policy.complete(request), request, kwargs)
        if run_manager is not None and _is_streamed(run_manager):
            chunk = _announced(result, run_manager)
            await run_manager.on_llm_new_token(chunk.message.content, chunk=chunk)
        return result

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        yield _chunk(self._generate(messages, stop, run_manager, **kwargs))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        yield _chunk(await self._agenerate(messages, stop, run_manager, **kwargs))

    def _should_stream(self, *, async_api: bool, run_manager: _RunManager = None, **kwargs: Any) -> bool:
        """Only for `stream`: any other call knows who makes it, and tells its listeners itself."""
        return run_manager is None and bool(kwargs.get("stream"))

    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """The policy's reply as one chunk; the frozen model's as it comes."""
        policy = self._policy()
        request = streamed_request(self, policy, input, config, stop, kwargs)
        if self._frozen is None or policy.takes(request):
            stream = super().stream(input, config, stop=stop, **kwargs)
            yield from stepped_sync(stream, partial(_streamed_by, request.role))
            return
        model, options = _frozen_call(self._frozen, kwargs)
        yield from own_stream(policy, request, model.stream(input, config, stop=stop, **options))

    async def astream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        """As `stream`."""
        policy = self._policy()
        request = streamed_request(self, policy, input, config, stop, kwargs)
        if self._frozen is None or policy.takes(request):
            stream = super().astream(input, config, stop=stop, **kwargs)
            chunks: AsyncIterator[AIMessageChunk] = stepped(stream, partial(_streamed_by, request.role))
        else:
            model, options = _frozen_call(self._frozen, kwargs)
            stream = model.astream(input, config, stop=stop, **options)
            chunks = own_stream_async(policy, request, stream)
        async for chunk in chunks:
            yield chunk

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | Any],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[Any, AIMessage]:
        """The model with tools, in OpenAI's form. `tool_choice` is a wish: nothing forces a policy."""
        return self.bind(
            tools=[convert_to_openai_tool(tool) for tool in tools], tool_choice=tool_choice, **kwargs
        )

    def _policy(self) -> PolicyPort:
        port = self._port or captured_policy.get()
        if port is None:
            raise RayboltError(
                "the policy model was called outside an agent run; start one with agent.env(), a Trainer, or "
                "agent.run(task, llm) with an LLM of your own"
            )
        return port


def _frozen_call(
    frozen: BaseChatModel, kwargs: Mapping[str, Any]
) -> tuple[Runnable[Any, Any], dict[str, Any]]:
    """The frozen model with the tools of a call, in its own provider's form, and the call's other options."""
    options = {name: value for name, value in kwargs.items() if name not in ("tools", "tool_choice")}
    if not kwargs.get("tools"):
        return frozen, options
    return frozen.bind_tools(kwargs["tools"], tool_choice=kwargs.get("tool_choice")), options


def _as_result(reply: AIMessage) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=reply)])


def request_for(
    policy: PolicyPort,
    messages: Sequence[BaseMessage],
    stop: Sequence[str] | None,
    metadata: Mapping[str, Any],
    kwargs: Mapping[str, Any],
) -> ChatRequest:
    """The canonical request of a LangChain call.

    Raises InvalidValue for what a policy cannot read (an image, say) if the policy is to read it.
    """
    try:
        return _chat_request(messages, stop, metadata, kwargs)
    except InvalidValue:
        request = _chat_request(messages, stop, metadata, kwargs, lenient=True)
        if policy.takes(request):
            raise
        return request


def streamed_request(
    model: BaseChatModel,
    policy: PolicyPort,
    model_input: LanguageModelInput,
    config: RunnableConfig | None,
    stop: Sequence[str] | None,
    kwargs: Mapping[str, Any],
) -> ChatRequest:
    """The request of a `stream`, before LangChain has begun to run it."""
    metadata = ensure_config(config).get("metadata") or {}
    return request_for(policy, model._convert_input(model_input).to_messages(), stop, metadata, kwargs)


def _chat_request(
    messages: Sequence[BaseMessage],
    stop: Sequence[str] | None,
    metadata: Mapping[str, Any],
    kwargs: Mapping[str, Any],
    *,
    lenient: bool = False,
) -> ChatRequest:
    """Call parameters that only a provider knows are dropped."""
    return ChatRequest(
        messages=messages_from_langchain(messages, lenient=lenient),
        tools=tools_from_langchain(kwargs.get("tools") or (), lenient=lenient),
        tool_choice=_tool_choice(kwargs.get("tool_choice")),
        response_format=_response_format(kwargs.get("response_format")),
        temperature=kwargs.get("temperature"),
        max_tokens=kwargs.get("max_tokens") or kwargs.get("max_completion_tokens"),
        stop=tuple(stop or ()),
        role=_role(metadata),
    )


_stream_role: ContextVar[str | None] = ContextVar("raybolt_langchain_stream_role", default=None)
"""Who streams: LangChain makes such a call without its run manager."""


@contextmanager
def _streamed_by(role: str) -> Iterator[None]:
    token = _stream_role.set(role)
    try:
        yield
    finally:
        _stream_role.reset(token)


def metadata_of(run_manager: _RunManager) -> Mapping[str, Any]:
    """What LangChain knows about the maker of a call."""
    return run_manager.metadata if run_manager is not None else {"lc_agent_name": _stream_role.get()}


def _role(metadata: Mapping[str, Any]) -> str:
    """Who calls: the agent's name, else the graph's node, else the role of the surrounding code.

    `create_agent` calls the LLM in a node named "model"; where the agent has no name that says nothing.
    """
    node = metadata.get("langgraph_node")
    return metadata.get("lc_agent_name") or (node if node != "model" else None) or current_role()


def _tool_choice(choice: Any) -> str | None:
    """LangChain's and the providers' ways to say it, in the canonical one."""
    if isinstance(choice, Mapping):
        return choice.get("function", choice).get("name") or _tool_choice(choice.get("type"))
    if isinstance(choice, bool):
        return "required" if choice else None
    return "required" if choice == "any" else choice


def _response_format(wanted: Any) -> Mapping[str, Any] | None:
    if isinstance(wanted, type) and issubclass(wanted, BaseModel):
        schema = {"name": wanted.__name__, "schema": wanted.model_json_schema()}
        return {"type": "json_schema", "json_schema": schema}
    return wanted


def _result(completion: Completion, request: ChatRequest, kwargs: Mapping[str, Any]) -> ChatResult:
    message = message_to_langchain(completion, position=len(request.messages))
    if request.response_format is not None and not message.tool_calls:
        _attach_parsed(message, kwargs["response_format"])
    return ChatResult(generations=[ChatGeneration(message=message)])


def _attach_parsed(message: AIMessage, wanted: Any) -> None:
    """Put the parsed JSON reply where `ChatOpenAI.with_structured_output` looks for it.

    A reply that does not fit is left as it is: the agent's own parser then says so.
    """
    try:
        if isinstance(wanted, type) and issubclass(wanted, BaseModel):
            message.additional_kwargs["parsed"] = wanted.model_validate_json(str(message.content))
        else:
            message.additional_kwargs["parsed"] = json.loads(str(message.content))
    except (ValidationError, json.JSONDecodeError):
        return


def _is_streamed(run_manager: _RunManager) -> bool:
    """Whether somebody listens for the tokens of this call: `astream_events`, or a graph's messages."""
    return run_manager is not None and any(
        isinstance(handler, _StreamingCallbackHandler) for handler in run_manager.handlers
    )


def _announced(result: ChatResult, run_manager: BaseRunManager) -> ChatGenerationChunk:
    """The reply as the one chunk of a stream; both with one id, so that the end is not taken for more."""
    result.generations[0].message.id = f"{LC_ID_PREFIX}-{run_manager.run_id}"
    return _chunk(result)


def _chunk(result: ChatResult) -> ChatGenerationChunk:
    message = result.generations[0].message
    assert isinstance(message, AIMessage)
    fields = message.model_dump(exclude={"type", "tool_calls", "invalid_tool_calls"})
    calls = [
        *((call["name"], json.dumps(call["args"]), call["id"]) for call in message.tool_calls),
        *((call["name"], call["args"], call["id"]) for call in message.invalid_tool_calls),
    ]
    chunks = [
        tool_call_chunk(name=name, args=args, id=call_id, index=index)
        for index, (name, args, call_id) in enumerate(calls)
    ]
    return ChatGenerationChunk(message=AIMessageChunk(**fields, tool_call_chunks=chunks))

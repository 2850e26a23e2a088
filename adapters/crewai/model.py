"""The policy as a CrewAI model, and the calls that any CrewAI model is given."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from crewai.events.types.llm_events import LLMCallType
from crewai.llms.base_llm import BaseLLM, call_stop_override, call_stream_override, llm_call_context
from crewai.types.usage_metrics import UsageMetrics
from pydantic import BaseModel, PrivateAttr

from raybolt.adapters.capture import captured_policy, current_role, own_call
from raybolt.adapters.crewai.messages import (
    message_from_result,
    messages_from_crewai,
    reply_to_crewai,
    response_format,
    tools_from_crewai,
)
from raybolt.env.chat import ChatRequest, Completion, ToolCall
from raybolt.env.policy import PolicyPort
from raybolt.store.errors import RayboltError

_CONTEXT_WINDOW = 1 << 20  # tokens; CrewAI summarises what comes near it, with LLM calls of its own
_CHARACTERS_PER_TOKEN = 4

own_usage: ContextVar[list[UsageMetrics] | None] = ContextVar("raybolt_crewai_own_usage", default=None)
"""Where the own model's call that is on reports its usage; see `swap`."""


class PolicyLLM(BaseLLM):
    """The model that a factory `build(llm)` is given: every call of it is one step of the run.

    Calls that the policy does not take go to `frozen`, if there is one. Without a port it answers by the
    policy of the run that the caller's context belongs to.
    """

    llm_type: str = "raybolt"
    model: str = "raybolt-policy"
    provider: str = "raybolt"
    _port: PolicyPort | None = PrivateAttr(default=None)
    _frozen: BaseLLM | None = PrivateAttr(default=None)

    @classmethod
    def of(cls, port: PolicyPort, *, frozen: BaseLLM | None = None) -> PolicyLLM:
        """A model whose calls all go to `port`, from whatever thread or context they are made."""
        llm = cls(model="raybolt-policy", provider="raybolt")
        llm._port = port
        llm._frozen = frozen
        return llm

    def call(self, *args: Any, **kwargs: Any) -> Any:
        call = ModelCall.of(self, *args, **kwargs)
        return answered(call, self._policy(), self._own("call", args, kwargs))

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        call = ModelCall.of(self, *args, **kwargs)
        return await aanswered(call, self._policy(), self._own("acall", args, kwargs))

    def supports_function_calling(self) -> bool:
        """True: CrewAI then sends tools as such instead of describing them in its text protocol."""
        return True

    def get_context_window_size(self) -> int:
        return _CONTEXT_WINDOW

    def get_input_tokens_count(self, messages: Any, tools: Any = None, response_model: Any = None) -> int:
        return estimated_tokens(messages)

    def _policy(self) -> PolicyPort:
        port = self._port or captured_policy.get()
        if port is None:
            raise RayboltError(
                "the policy model was called outside an agent run; start one with agent.env(), a Trainer, or "
                "agent.run(task, llm) with an LLM of your own"
            )
        return port

    def _own(self, name: str, args: Any, kwargs: Any) -> OwnModel | None:
        """The same call of the frozen model, with what CrewAI has set for this call on this one."""
        frozen = self._frozen
        if frozen is None:
            return None
        stop, stream = self.stop_sequences or None, bool(self._effective_stream())

        def call() -> Any:
            with call_stop_override(frozen, stop), call_stream_override(frozen, stream):
                return getattr(frozen, name)(*args, **kwargs)

        async def acall() -> Any:
            with call_stop_override(frozen, stop), call_stream_override(frozen, stream):
                return await getattr(frozen, name)(*args, **kwargs)

        return OwnModel(frozen.model, call if name == "call" else acall)


def estimated_tokens(messages: Any) -> int:
    """About how many tokens the messages have; no model's server is asked."""
    parts = messages_from_crewai(messages)
    return sum(len(message.content or "") for message in parts) // _CHARACTERS_PER_TOKEN


@dataclass(frozen=True)
class ModelCall:
    """One call of a model, with the arguments of `BaseLLM.call`."""

    llm: BaseLLM
    messages: Any
    tools: list[dict[str, Any]] | None = None
    available_functions: dict[str, Any] | None = None
    from_task: Any = None
    from_agent: Any = None
    response_model: type[BaseModel] | None = None

    @classmethod
    def of(
        cls,
        llm: BaseLLM,
        messages: Any,
        tools: list[dict[str, Any]] | None = None,
        callbacks: Any = None,
        available_functions: dict[str, Any] | None = None,
        from_task: Any = None,
        from_agent: Any = None,
        response_model: type[BaseModel] | None = None,
        **_: Any,  # what only one provider's model knows
    ) -> ModelCall:
        return cls(llm, messages, tools, available_functions, from_task, from_agent, response_model)

    @property
    def request(self) -> ChatRequest:
        """The call in canonical form."""
        llm = self.llm
        return ChatRequest(
            messages=messages_from_crewai(llm._format_messages(self.messages)),
            tools=tools_from_crewai(self.tools),
            response_format=response_format(self.response_model),
            temperature=llm.temperature,
            max_tokens=int(llm.max_tokens) if llm.max_tokens else None,
            stop=tuple(llm.stop_sequences) if llm.supports_stop_words() else (),
            role=role_of(self.from_agent or getattr(self.from_task, "agent", None)),
        )

    @contextmanager
    def announced(self) -> Iterator[None]:
        """Tells CrewAI's listeners and hooks of the call, as its own models do."""
        source = {"from_task": self.from_task, "from_agent": self.from_agent}
        with llm_call_context():
            self.llm._emit_call_started_event(
                self.messages, self.tools, available_functions=self.available_functions, **source
            )
            try:
                if not isinstance(self.messages, str):
                    self.llm._invoke_before_llm_call_hooks(self.messages, self.from_agent)
                yield
            except BaseException as error:
                self.llm._emit_call_failed_event(f"{type(error).__name__}: {error}", **source)
                raise

    def result(self, completion: Completion) -> Any:
        """The policy's answer as CrewAI wants it: a text, tool calls, an instance, a function's result."""
        usage = self._track_usage(completion)
        reply = reply_to_crewai(completion, self.response_model)
        if isinstance(reply, list) and self.available_functions:
            returned = self._called_function(completion.message.tool_calls[0])
            if returned is not None:
                return returned
            reply = completion.message.content or ""
        if isinstance(reply, str) and self.llm._effective_stream():
            self.llm._emit_stream_chunk_event(
                reply, from_task=self.from_task, from_agent=self.from_agent, call_type=LLMCallType.LLM_CALL
            )
        self.llm._emit_call_completed_event(
            reply,
            LLMCallType.TOOL_CALL if isinstance(reply, list) else LLMCallType.LLM_CALL,
            from_task=self.from_task,
            from_agent=self.from_agent,
            messages=self.messages,
            usage=usage,
            finish_reason=completion.finish_reason,
        )
        if isinstance(reply, str) and not isinstance(self.messages, str):
            return self.llm._invoke_after_llm_call_hooks(self.messages, reply, self.from_agent)
        return reply

    def _called_function(self, called: ToolCall) -> str | None:
        """What the function returns, for callers that leave calling it to the model; None if it failed."""
        try:
            arguments = json.loads(called.arguments)
        except json.JSONDecodeError:
            arguments = {}
        return self.llm._handle_tool_execution(
            called.name, arguments, self.available_functions or {}, self.from_task, self.from_agent
        )

    def _track_usage(self, completion: Completion) -> dict[str, int] | None:
        if completion.prompt_ids is None or completion.response_ids is None:
            return None
        num_in, num_out = len(completion.prompt_ids), len(completion.response_ids)
        usage = {"prompt_tokens": num_in, "completion_tokens": num_out, "total_tokens": num_in + num_out}
        self.llm._track_token_usage_internal(usage)
        return usage


def role_of(agent: Any) -> str:
    """The agent's role as its author wrote it, placeholders unfilled: the same for every task.

    Without an agent, the role of the surrounding code.
    """
    if agent is None:
        return current_role()
    role = getattr(agent, "_original_role", None) or getattr(agent, "role", None)
    return str(role).strip() if role else current_role()


@dataclass(frozen=True)
class OwnModel:
    """The agent's own way to answer a call."""

    model: str
    call: Callable[[], Any]
    """An awaitable for `aanswered`."""


def answered(call: ModelCall, policy: PolicyPort, own: OwnModel | None) -> Any:
    """The policy's answer; the own model's for a call that the policy does not take."""
    request = call.request
    if own is not None and not policy.takes(request):
        with _observed(policy, request, own) as tell:
            return tell(own.call())
    with call.announced():
        return call.result(policy.complete_sync(request))


async def aanswered(call: ModelCall, policy: PolicyPort, own: OwnModel | None) -> Any:
    """`answered` for the models' asynchronous calls."""
    request = call.request
    if own is not None and not policy.takes(request):
        with _observed(policy, request, own) as tell:
            return tell(await own.call())
    with call.announced():
        return call.result(await policy.complete(request))


@contextmanager
def _observed(policy: PolicyPort, request: ChatRequest, own: OwnModel) -> Iterator[Callable[[Any], Any]]:
    """In the block the own model answers; what it gives is recorded by, and comes back from, the function."""
    usage: list[UsageMetrics] = []
    token = own_usage.set(usage)
    try:
        with own_call(policy, request) as seen:

            def tell(result: Any) -> Any:
                message = message_from_result(result)
                seen.reply(
                    message,
                    finish_reason="tool_calls" if message.tool_calls else "stop",
                    model=own.model,
                    input_tokens=sum(each.prompt_tokens for each in usage) if usage else None,
                    output_tokens=sum(each.completion_tokens for each in usage) if usage else None,
                )
                return result

            yield tell
    finally:
        own_usage.reset(token)

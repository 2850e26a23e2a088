"""The policy as a model of the OpenAI Agents SDK, and the fork between it and an agent's own model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from agents import Model, ModelResponse
from openai.types.responses import ResponseCompletedEvent

from raybolt.adapters.capture import captured_policy, current_role, own_call
from raybolt.adapters.openai_agents.messages import (
    Asked,
    ModelCall,
    asked,
    model_response,
    own_reply,
    response_to,
    stream_events,
)
from raybolt.adapters.openai_python.memory import ResponseMemory, run_memory
from raybolt.adapters.streams import not_captured, stepped
from raybolt.env.policy import PolicyPort
from raybolt.store.errors import RayboltError

Respond = Callable[..., Awaitable[ModelResponse]]
Stream = Callable[..., AsyncIterator[Any]]


class PolicyModel(Model):
    """The model that a factory `build(llm)` is given: every call of it is one step of the run.

    A stream of it brings the reply in one piece. Without a port it answers by the policy of the run that the
    caller's context belongs to.
    """

    def __init__(self) -> None:
        self.model = "raybolt-policy"
        self._port: PolicyPort | None = None
        self._frozen: Model | None = None
        self._memory: ResponseMemory | None = None

    @classmethod
    def of(cls, port: PolicyPort, *, frozen: Model | None = None) -> PolicyModel:
        """A model whose calls all go to `port`; `frozen` answers those that the policy does not take."""
        model = cls()
        model._port, model._frozen, model._memory = port, frozen, ResponseMemory()
        return model

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        own = self._frozen.get_response if self._frozen is not None else None
        return await respond(self._policy(), self._responses(), self._frozen, own, *args, **kwargs)

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        own = self._frozen.stream_response if self._frozen is not None else None
        async for event in stream(self._policy(), self._responses(), self._frozen, own, *args, **kwargs):
            yield event

    def _policy(self) -> PolicyPort:
        port = self._port or captured_policy.get()
        if port is None:
            raise RayboltError(
                "the policy model was called outside an agent run; start one with agent.env(), a Trainer, or "
                "agent.run(task, llm) with an LLM of your own"
            )
        return port

    def _responses(self) -> ResponseMemory:
        return self._memory or run_memory.get()


async def respond(
    policy: PolicyPort,
    memory: ResponseMemory,
    model: Model | None,
    own: Respond | None,
    *args: Any,
    **kwargs: Any,
) -> ModelResponse:
    """The answer to a call of `Model.get_response`: the policy's, or that of `own` where it takes no part."""
    question = asked(ModelCall(*args, **kwargs), memory, role=current_role())
    if policy.takes(question.request) or own is None:
        return model_response(await _answer(policy, memory, question))
    with own_call(policy, question.request) as seen:
        response = await own(*args, **kwargs)
        reply = own_reply(response, model)
        if reply is not None:
            reply.tell(seen)
    return response


async def stream(
    policy: PolicyPort,
    memory: ResponseMemory,
    model: Model | None,
    own: Stream | None,
    *args: Any,
    **kwargs: Any,
) -> AsyncIterator[Any]:
    """The same for `Model.stream_response`; the events of an own model are passed on as they come."""
    question = asked(ModelCall(*args, **kwargs), memory, role=current_role())
    if policy.takes(question.request) or own is None:
        for event in stream_events(await _answer(policy, memory, question)):
            yield event
        return
    with policy.observe(question.request) as seen:
        async for event in stepped(own(*args, **kwargs), not_captured):
            if isinstance(event, ResponseCompletedEvent):
                reply = own_reply(event.response, model)
                if reply is not None:
                    reply.tell(seen)
            yield event


async def _answer(policy: PolicyPort, memory: ResponseMemory, question: Asked) -> dict[str, Any]:
    if question.refusal is not None:
        raise question.refusal
    return response_to(question, await policy.complete(question.request), memory)

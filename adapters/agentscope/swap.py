"""Answer the calls of an agent's own chat models by the policy, while one of its runs is on.

A model is called through `_call_api`, which every class of models writes anew; so it is replaced on each
class, whoever holds its objects and whenever they are made: an agent, its fallback, a compression of its
context, a plain function.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from agentscope.message import Msg
from agentscope.model import ChatModelBase
from agentscope.tool import ToolChoice

from raybolt.adapters.agentscope.model import (
    PolicyModel,
    Response,
    answered_by_own,
    answered_by_policy,
    request_for,
)
from raybolt.adapters.capture import captured_policy
from raybolt.adapters.patching import patched


@contextmanager
def models_answered_by_policy() -> Iterator[None]:
    """For runs captured by a policy, the chat models of all classes known now answer by that policy."""
    with ExitStack() as stack:
        for cls in _subclasses(ChatModelBase):
            if "_call_api" in vars(cls):
                stack.enter_context(patched(cls, {"_call_api": _guarded}))
        yield


def _subclasses(base: type[Any]) -> Iterator[type[Any]]:
    for cls in base.__subclasses__():
        if cls is not PolicyModel:
            yield cls
            yield from _subclasses(cls)


def _guarded(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def call_api(
        model: ChatModelBase,
        model_name: str,
        messages: list[Msg],
        tools: list[dict[str, Any]] | None = None,
        tool_choice: ToolChoice | None = None,
        **kwargs: Any,
    ) -> Response:
        def call() -> Any:
            return original(model, model_name, messages, tools, tool_choice, **kwargs)

        policy = captured_policy.get()
        if policy is None:
            answer: Response = await call()
            return answer
        request = await request_for(policy, model, messages, tools, tool_choice, kwargs)
        if policy.takes(request):
            return await answered_by_policy(policy, request, stream=model.stream)
        return await answered_by_own(policy, request, call, model_name)

    return call_api

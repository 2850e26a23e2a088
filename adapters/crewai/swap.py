"""Answer the calls of an agent's own CrewAI models by the policy, while one of its runs is on.

The agent keeps its models: their settings, context windows and ways to call tools stay as they are, and only
`call` and `acall` of every `BaseLLM` class ask the context whether the caller belongs to a captured run. So
models that are made late (inside a Flow's method) answer by the policy, too, and so do classes that are
loaded late: CrewAI imports a provider's class when the first model of it is made.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from crewai.llms.base_llm import BaseLLM
from crewai.types.usage_metrics import UsageMetrics

from raybolt.adapters.capture import captured_policy, current_role
from raybolt.adapters.crewai.messages import messages_from_crewai
from raybolt.adapters.crewai.model import (
    ModelCall,
    OwnModel,
    PolicyLLM,
    aanswered,
    answered,
    estimated_tokens,
    own_usage,
)
from raybolt.adapters.patching import Replace, patched
from raybolt.env.chat import ChatRequest

_lock = threading.Lock()
_active: list[ExitStack] = []  # the runs at work, each with its patches


@contextmanager
def models_answered_by_policy() -> Iterator[None]:
    """For runs captured by a policy, every model of CrewAI answers by that policy."""
    stack = ExitStack()
    with _lock:
        stack.enter_context(patched(BaseLLM, {"_wrap_call_method": _seeing_new_classes}))
        for cls in {BaseLLM, *_subclasses(BaseLLM)}:
            _patch(stack, cls)
        _active.append(stack)
    try:
        with usage_of_own_calls():
            yield
    finally:
        with _lock:
            _active.remove(stack)
            stack.close()


@contextmanager
def usage_of_own_calls() -> Iterator[None]:
    """In the block, models tell the call that is on what they have used; see `model.own_usage`."""
    with patched(BaseLLM, {"_track_token_usage_internal": _telling_usage}):
        yield


def _subclasses(cls: type) -> Iterator[type]:
    subclasses: list[type] = cls.__subclasses__()
    for subclass in subclasses:
        yield subclass
        yield from _subclasses(subclass)


def _patch(stack: ExitStack, cls: type) -> None:
    replacements = {name: make for name, make in _METHODS.items() if name in vars(cls)}
    if not issubclass(cls, PolicyLLM) and replacements:
        stack.enter_context(patched(cls, replacements))


def _seeing_new_classes(original: Any) -> Any:
    """Stands in for the hook that CrewAI calls once for each of `call` and `acall` of a new class."""

    @functools.wraps(original.__func__)
    def wrap_call_method(cls: type[BaseLLM], method_name: str) -> None:
        original.__func__(cls, method_name)
        if method_name == "acall":  # the later of the two
            with _lock:
                for stack in _active:
                    _patch(stack, cls)

    return classmethod(wrap_call_method)


def _call(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def guarded(self: BaseLLM, *args: Any, **kwargs: Any) -> Any:
        policy = captured_policy.get()
        if policy is None:
            return original(self, *args, **kwargs)
        own = OwnModel(self.model, functools.partial(original, self, *args, **kwargs))
        return answered(ModelCall.of(self, *args, **kwargs), policy, own)

    return guarded


def _acall(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def guarded(self: BaseLLM, *args: Any, **kwargs: Any) -> Any:
        policy = captured_policy.get()
        if policy is None:
            return await original(self, *args, **kwargs)
        own = OwnModel(self.model, functools.partial(original, self, *args, **kwargs))
        return await aanswered(ModelCall.of(self, *args, **kwargs), policy, own)

    return guarded


def _count_tokens(original: Callable[..., int]) -> Callable[..., int]:
    """CrewAI counts the tokens of every prompt beforehand; some models ask their server to."""

    @functools.wraps(original)
    def guarded(self: BaseLLM, messages: Any, *args: Any, **kwargs: Any) -> int:
        policy = captured_policy.get()
        if policy is None:
            return original(self, messages, *args, **kwargs)
        if policy.takes(ChatRequest(messages_from_crewai(messages), role=current_role())):
            return estimated_tokens(messages)
        return original(self, messages, *args, **kwargs)

    return guarded


def _telling_usage(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def guarded(self: BaseLLM, usage_data: Any) -> None:
        told, used = own_usage.get(), UsageMetrics.from_provider_dict(usage_data)
        if told is not None and used is not None:
            told.append(used)
        original(self, usage_data)

    return guarded


_METHODS: dict[str, Replace] = {
    "call": _call,
    "acall": _acall,
    "get_input_tokens_count": _count_tokens,
}

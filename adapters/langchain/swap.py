"""Answer the calls of an agent's own chat models by the policy, while one of its runs is on.

Two ways, both in force for the length of a run and both inert for every caller outside it:

- on each model *object* that the agent holds, found by walking the agent: the calls of exactly these models,
  however their class is made, and their `bind_tools` even where the class has none;
- on the base *class*, for models that the agent makes while it runs (inside a node, or a function).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast

from langchain_core.language_models.chat_models import BaseChatModel

from raybolt.adapters.capture import captured_policy
from raybolt.adapters.langchain.model import PolicyChatModel
from raybolt.adapters.patching import Replace, patched

_CALLS = ("_generate_with_cache", "_agenerate_with_cache")  # below callbacks, above caches and rate limits
_STREAMS = ("_stream", "_astream")  # reached by `stream_events(version="v3")` alone
_POLICY_MODEL = PolicyChatModel()  # portless: takes the policy from the caller's context


@contextmanager
def models_answered_by_policy(models: Sequence[BaseChatModel] = ()) -> Iterator[None]:
    """For runs captured by a policy, `models` and every chat model made meanwhile answer by that policy."""
    with ExitStack() as stack:
        stack.enter_context(patched(BaseChatModel, _CLASS_PATCHES))
        for model in models:
            stack.enter_context(patched(model, _object_patches(model)))
        yield


def _class_call(name: str) -> Replace:
    answer = getattr(_POLICY_MODEL, name)

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def guarded(self: BaseChatModel, *args: Any, **kwargs: Any) -> Any:
            if captured_policy.get() is None or isinstance(self, PolicyChatModel):
                return original(self, *args, **kwargs)
            return answer(*args, **kwargs)

        return guarded

    return make


def _object_call(name: str) -> Replace:
    answer = getattr(_POLICY_MODEL, name)

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            return (original if captured_policy.get() is None else answer)(*args, **kwargs)

        return guarded

    return make


def _never_stream(original: Callable[..., bool]) -> Callable[..., bool]:
    @functools.wraps(original)
    def guarded(*args: Any, **kwargs: Any) -> bool:
        return captured_policy.get() is None and original(*args, **kwargs)

    return guarded


def _object_patches(model: BaseChatModel) -> dict[str, Replace]:
    def bind_tools(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if captured_policy.get() is None:
                return original(*args, **kwargs)
            return PolicyChatModel.bind_tools(cast(PolicyChatModel, model), *args, **kwargs)  # it only binds

        return guarded

    calls = {name: _object_call(name) for name in (*_CALLS, *_STREAMS)}
    return {**calls, "_should_stream": _never_stream, "bind_tools": bind_tools}


_CLASS_PATCHES: dict[str, Replace] = {
    **{name: _class_call(name) for name in _CALLS},
    "_should_stream": _never_stream,
}

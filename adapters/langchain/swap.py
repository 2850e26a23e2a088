"""Answer the calls of an agent's own chat models by the policy, while one of its runs is on.

Two ways, both in force for the length of a run and both inert for every caller outside it:

- on the base *class*, for all models, whoever holds them and whenever they are made;
- on each model *object* that the agent holds, found by walking the agent: where its class has its own way to
  be called, and for `bind_tools` where the class has none.

A call that the policy does not take goes on to the model, as it is.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.outputs import ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config, merge_configs

from raybolt.adapters.capture import captured_policy
from raybolt.adapters.langchain.aborts import noted, raised_again
from raybolt.adapters.langchain.model import PolicyChatModel, metadata_of, request_for, streamed_request
from raybolt.adapters.langchain.own import own_result, own_result_async, own_stream, own_stream_async, tell
from raybolt.adapters.patching import Replace, patched
from raybolt.adapters.streams import not_captured, stepped, stepped_sync

_Handler = Callable[..., Any]
"""Called instead of a model's method: with the model, the method bound to it, and the call's arguments."""


@contextmanager
def models_answered_by_policy(models: Sequence[BaseChatModel] = ()) -> Iterator[None]:
    """For runs captured by a policy, `models` and every chat model made meanwhile answer by that policy."""
    with ExitStack() as stack:
        stack.enter_context(
            patched(BaseChatModel, {name: _on_class(handler) for name, handler in _HANDLERS.items()})
        )
        for model in models:
            stack.enter_context(patched(model, _object_patches(model)))
        yield


def _on_class(handler: _Handler) -> Replace:
    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def guarded(model: BaseChatModel, *args: Any, **kwargs: Any) -> Any:
            if captured_policy.get() is None or isinstance(model, PolicyChatModel):
                return original(model, *args, **kwargs)
            return handler(model, functools.partial(original, model), *args, **kwargs)

        return guarded

    return make


def _on_object(model: BaseChatModel, handler: _Handler) -> Replace:
    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if captured_policy.get() is None:
                return original(*args, **kwargs)
            return handler(model, original, *args, **kwargs)

        return guarded

    return make


def _object_patches(model: BaseChatModel) -> dict[str, Replace]:
    own = {
        name: _on_object(model, handler)
        for name, handler in _HANDLERS.items()
        if getattr(type(model), name) is not getattr(BaseChatModel, name)
    }
    return {**own, "bind_tools": _on_object(model, _bind_tools)}


def _bind_tools(model: BaseChatModel, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return original(*args, **kwargs)
    except NotImplementedError:
        return PolicyChatModel.bind_tools(cast(PolicyChatModel, model), *args, **kwargs)  # it only binds


@functools.cache
def _stand_in(output_version: str | None) -> PolicyChatModel:
    """A policy model without a port: it takes the policy from the caller's context."""
    return PolicyChatModel(output_version=output_version)


def _generate(
    model: BaseChatModel,
    original: Callable[..., ChatResult],
    messages: Any,
    stop: Any = None,
    run_manager: Any = None,
    **kwargs: Any,
) -> ChatResult:
    policy = captured_policy.get()
    assert policy is not None
    request = request_for(policy, messages, stop, metadata_of(run_manager), kwargs)
    if policy.takes(request):
        return _stand_in(model.output_version)._generate_with_cache(messages, stop, run_manager, **kwargs)
    return own_result(policy, request, lambda: original(messages, stop, run_manager, **kwargs))


async def _agenerate(
    model: BaseChatModel,
    original: Callable[..., Awaitable[ChatResult]],
    messages: Any,
    stop: Any = None,
    run_manager: Any = None,
    **kwargs: Any,
) -> ChatResult:
    policy = captured_policy.get()
    assert policy is not None
    request = request_for(policy, messages, stop, metadata_of(run_manager), kwargs)
    with noted():
        if policy.takes(request):
            stand_in = _stand_in(model.output_version)
            return await stand_in._agenerate_with_cache(messages, stop, run_manager, **kwargs)
        return await own_result_async(
            policy, request, lambda: original(messages, stop, run_manager, **kwargs)
        )


async def _agenerate_all(
    model: BaseChatModel, original: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any
) -> Any:
    with raised_again():
        return await original(*args, **kwargs)


def _stream(
    model: BaseChatModel,
    original: Callable[..., Iterator[Any]],
    input: Any,
    config: Any = None,
    *,
    stop: Any = None,
    **kwargs: Any,
) -> Iterator[Any]:
    policy = captured_policy.get()
    assert policy is not None
    request = streamed_request(model, policy, input, config, stop, kwargs)
    if policy.takes(request):
        return _stand_in(model.output_version).stream(input, _config(model, config), stop=stop, **kwargs)
    return own_stream(policy, request, original(input, config, stop=stop, **kwargs))


def _astream(
    model: BaseChatModel,
    original: Callable[..., AsyncIterator[Any]],
    input: Any,
    config: Any = None,
    *,
    stop: Any = None,
    **kwargs: Any,
) -> AsyncIterator[Any]:
    policy = captured_policy.get()
    assert policy is not None
    request = streamed_request(model, policy, input, config, stop, kwargs)
    if policy.takes(request):
        return _stand_in(model.output_version).astream(input, _config(model, config), stop=stop, **kwargs)
    return own_stream_async(policy, request, original(input, config, stop=stop, **kwargs))


def _config(model: BaseChatModel, config: RunnableConfig | None) -> RunnableConfig:
    """The call's settings together with those of the model that is stood in for."""
    own = RunnableConfig(tags=model.tags or [], metadata=model.metadata or {}, callbacks=model.callbacks)
    return merge_configs(own, ensure_config(config))


def _events(
    model: BaseChatModel,
    original: Callable[..., Iterator[Any]],
    messages: Any,
    *,
    run_manager: Any,
    stream: Any,
    stop: Any = None,
    **kwargs: Any,
) -> Iterator[Any]:
    """The events of `stream_events(version="v3")`, which LangChain makes in a way of its own."""
    policy = captured_policy.get()
    assert policy is not None
    request = request_for(policy, messages, stop, metadata_of(run_manager), kwargs)
    options = {"run_manager": run_manager, "stream": stream, "stop": stop, **kwargs}
    if policy.takes(request):
        yield from _stand_in(model.output_version)._iter_v2_events(messages, **options)
        return
    with ExitStack() as observing:
        seen = observing.enter_context(policy.observe(request))
        for event in stepped_sync(original(messages, **options), not_captured):
            if stream.done:  # nobody asks for more after the last event
                tell(seen, stream.output_message)
                observing.close()
            yield event


async def _aevents(
    model: BaseChatModel,
    original: Callable[..., AsyncIterator[Any]],
    messages: Any,
    *,
    run_manager: Any,
    stream: Any,
    stop: Any = None,
    **kwargs: Any,
) -> AsyncIterator[Any]:
    policy = captured_policy.get()
    assert policy is not None
    request = request_for(policy, messages, stop, metadata_of(run_manager), kwargs)
    options = {"run_manager": run_manager, "stream": stream, "stop": stop, **kwargs}
    if policy.takes(request):
        async for event in _stand_in(model.output_version)._aiter_v2_events(messages, **options):
            yield event
        return
    with ExitStack() as observing:
        seen = observing.enter_context(policy.observe(request))
        async for event in stepped(original(messages, **options), not_captured):
            if stream.done:
                tell(seen, stream.output_message)
                observing.close()
            yield event


_HANDLERS: dict[str, _Handler] = {
    "_generate_with_cache": _generate,  # below callbacks, above caches and rate limits
    "_agenerate_with_cache": _agenerate,
    "agenerate": _agenerate_all,
    "stream": _stream,
    "astream": _astream,
    "_iter_v2_events": _events,
    "_aiter_v2_events": _aevents,
}

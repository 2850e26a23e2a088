"""Answer the calls of an agent's own models by the policy, while one of its runs is on.

All models of the SDK implement `Model`, and all agents reach theirs through a `ModelProvider` or hold one:
guarded patches of these classes serve every agent, handoff, guardrail and agent-as-tool alike, whoever calls
the runner. `RunConfig(model=…)` would hide the agents' own models and change the settings made for them.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from agents import Model, ModelProvider, ModelResponse

from raybolt.adapters.capture import captured_policy
from raybolt.adapters.openai_agents.model import PolicyModel, respond, stream
from raybolt.adapters.openai_python.memory import run_memory
from raybolt.adapters.patching import Replace, patched


@contextmanager
def models_answered_by_policy() -> Iterator[None]:
    """For runs captured by a policy, every model of the SDK answers by that policy."""
    with ExitStack() as stack:
        for cls in _implementing(Model):
            if not issubclass(cls, PolicyModel):
                stack.enter_context(patched(cls, _own(cls, _MODEL_PATCHES)))
        for cls in _implementing(ModelProvider):
            stack.enter_context(patched(cls, _own(cls, _PROVIDER_PATCHES)))
        yield


def _implementing(base: type) -> list[type]:
    """All classes below `base`, however deep."""
    found: list[type] = list(base.__subclasses__())
    for cls in found:  # grows while it is walked
        found.extend(set(cls.__subclasses__()).difference(found))
    return found


def _own(cls: type, patches: dict[str, Replace]) -> dict[str, Replace]:
    """The patches of what the class defines itself; what it inherits is patched where it is defined."""
    return {name: make for name, make in patches.items() if name in vars(cls)}


def _get_response(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def guarded(self: Model, *args: Any, **kwargs: Any) -> ModelResponse:
        policy, own = captured_policy.get(), functools.partial(original, self)
        if policy is None:
            return await own(*args, **kwargs)
        return await respond(policy, run_memory.get(), self, own, *args, **kwargs)

    return guarded


def _stream_response(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def guarded(self: Model, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        policy, own = captured_policy.get(), functools.partial(original, self)
        if policy is None:
            return own(*args, **kwargs)
        return stream(policy, run_memory.get(), self, own, *args, **kwargs)

    return guarded


def _get_model(original: Callable[..., Model]) -> Callable[..., Model]:
    @functools.wraps(original)
    def guarded(self: ModelProvider, *args: Any, **kwargs: Any) -> Model:
        if captured_policy.get() is None:
            return original(self, *args, **kwargs)
        try:
            return original(self, *args, **kwargs)
        except Exception as error:  # no key, no such package: what a model that is never asked may lack
            return _MissingModel(error)

    return guarded


class _MissingModel(Model):
    """In place of a model that cannot be made: raises why as soon as it, not the policy, has to answer."""

    def __init__(self, reason: Exception) -> None:
        self._reason = reason

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        raise self._reason

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        raise self._reason
        yield  # an async generator, as the SDK expects


_MODEL_PATCHES: dict[str, Replace] = {"get_response": _get_response, "stream_response": _stream_response}
_PROVIDER_PATCHES: dict[str, Replace] = {"get_model": _get_model}

"""Answer the calls of an agent's own model clients by the policy, while one of its runs is on.

On the client *objects* that a built agent holds, since AutoGen copies references to them to places where no
other client can be put (a selector's manager keeps the one of its first run), and on the *classes*, for
clients that are made while the agent runs. Both leave callers outside a run alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from autogen_core.models import ChatCompletionClient

from raybolt.adapters.autogen.answers import answer, answer_stream
from raybolt.adapters.autogen.model import PolicyClient
from raybolt.adapters.capture import captured_policy
from raybolt.adapters.classes import family, own_methods
from raybolt.adapters.patching import Replace, patched


@contextmanager
def clients_answered_by_policy(clients: Sequence[Any] = ()) -> Iterator[None]:
    """For captured runs, `clients` and every model client made meanwhile are answered by the run's policy."""
    with ExitStack() as stack:
        for cls in family(ChatCompletionClient):
            if not issubclass(cls, PolicyClient):
                stack.enter_context(patched(cls, own_methods(cls, _CLASS_PATCHES)))
        for client in clients:
            stack.enter_context(patched(client, _object_patches(client)))
        yield


def _create(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def guarded(self: Any, messages: Any, **options: Any) -> Any:
        policy = captured_policy.get()
        if policy is None:
            return await original(self, messages, **options)
        return await answer(policy, self, messages, options)

    return guarded


def _create_stream(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def guarded(self: Any, messages: Any, **options: Any) -> Any:
        policy = captured_policy.get()
        if policy is None:
            return original(self, messages, **options)
        return answer_stream(policy, self, messages, options)

    return guarded


_CLASS_PATCHES: dict[str, Replace] = {"create": _create, "create_stream": _create_stream}


def _object_patches(client: Any) -> dict[str, Replace]:
    def bound(make: Replace) -> Replace:
        def on_object(original: Callable[..., Any]) -> Callable[..., Any]:
            def plain(_: Any, *args: Any, **kwargs: Any) -> Any:
                return original(*args, **kwargs)

            return functools.partial(make(plain), client)

        return on_object

    return {name: bound(make) for name, make in _CLASS_PATCHES.items()}

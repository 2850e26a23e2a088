"""Answer OpenAI-style HTTP calls by the policy, in process, while a run is on.

The `openai` clients (and everything built on them) send their requests through `httpx.Client.send`, wherever,
whenever and on whatever transport they were made. A guarded patch there looks at each request: what asks an
OpenAI-style endpoint for a chat from inside a captured run is answered by the policy, or, where the policy
does not take the call, goes out and is recorded with its reply; everything else goes out untouched.
"""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from raybolt.adapters.capture import captured_policy, current_role
from raybolt.adapters.openai_python.exchange import Exchange, exchange_of
from raybolt.adapters.openai_python.memory import ResponseMemory, run_memory
from raybolt.adapters.openai_python.passing import pass_on, pass_on_async
from raybolt.adapters.openai_python.wire import error_body
from raybolt.adapters.patching import Replace, patched
from raybolt.env.chat import Completion
from raybolt.env.errors import BlockingCall


@contextmanager
def capture(library_name: str) -> Iterator[None]:
    """For captured runs, chat requests that go through this HTTP library are answered by the policy."""
    library = importlib.import_module(library_name)
    token = run_memory.set(ResponseMemory())
    try:
        with (
            patched(library.Client, {"send": _guard_sync(library)}),
            patched(library.AsyncClient, {"send": _guard_async(library)}),
        ):
            yield
    finally:
        run_memory.reset(token)


def _guard_sync(library: Any) -> Replace:
    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def guarded(self: Any, request: Any, **options: Any) -> Any:
            policy = captured_policy.get()
            if policy is None or not _is_candidate(request):
                return original(self, request, **options)
            request.read()
            exchange = _exchange(request)
            if exchange is None:
                return original(self, request, **options)
            if not policy.takes(exchange.request):
                send = functools.partial(original, self, request, **options)
                return pass_on(library, policy, exchange, send)
            if exchange.refusal:
                return _refusal(library, request, exchange.refusal)
            try:
                completion = policy.complete_sync(exchange.request)
            except BlockingCall as error:  # as a refusal: the client would retry anything that is raised
                return _refusal(library, request, str(error))
            return _answer(library, request, exchange, completion)

        return guarded

    return make


def _guard_async(library: Any) -> Replace:
    def make(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(original)
        async def guarded(self: Any, request: Any, **options: Any) -> Any:
            policy = captured_policy.get()
            if policy is None or not _is_candidate(request):
                return await original(self, request, **options)
            await request.aread()
            exchange = _exchange(request)
            if exchange is None:
                return await original(self, request, **options)
            if not policy.takes(exchange.request):
                send = functools.partial(original, self, request, **options)
                return await pass_on_async(library, policy, exchange, send)
            if exchange.refusal:
                return _refusal(library, request, exchange.refusal)
            return _answer(library, request, exchange, await policy.complete(exchange.request))

        return guarded

    return make


def _is_candidate(request: Any) -> bool:
    """Whether the address is one at which OpenAI-style servers answer chats."""
    return request.method == "POST" and request.url.path.endswith(("/chat/completions", "/responses"))


def _exchange(request: Any) -> Exchange | None:
    """What is asked; None for some other service that uses the same path."""
    try:
        body = json.loads(request.content)
    except ValueError:
        return None
    return exchange_of(body, role=current_role(), memory=run_memory.get())


def _answer(library: Any, request: Any, exchange: Exchange, completion: Completion) -> Any:
    if not exchange.streams:
        return library.Response(200, json=exchange.answer(completion), request=request)
    return library.Response(
        200,
        headers={"content-type": "text/event-stream"},
        content=b"".join(exchange.events(completion)),
        request=request,
    )


def _refusal(library: Any, request: Any, message: str) -> Any:
    return library.Response(400, json=error_body(message), request=request)

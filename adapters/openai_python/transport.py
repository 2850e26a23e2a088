"""Answer OpenAI-style HTTP calls by the policy, in process, while a run is on.

The `openai` clients (and everything built on them) send their requests through httpx's transports, wherever
and whenever they were made. A guarded patch there looks at each request: what asks an OpenAI-style chat
endpoint from inside a captured run is answered by the policy; everything else goes out untouched. A client
with a transport of its own (`http_client=httpx.Client(transport=…)`) is not seen.
"""

from __future__ import annotations

import functools
import importlib
import json
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from raybolt.adapters.capture import captured_policy, current_role
from raybolt.adapters.openai_python.wire import (
    chat_request_from_body,
    completion_to_body,
    completion_to_events,
    error_body,
)
from raybolt.adapters.patching import Replace, patched
from raybolt.env.chat import ChatRequest, Completion
from raybolt.env.errors import BlockingCall
from raybolt.store.errors import InvalidValue


@contextmanager
def capture(library_name: str) -> Iterator[None]:
    """For captured runs, chat requests that go through this HTTP library are answered by the policy."""
    library = importlib.import_module(library_name)
    with (
        patched(library.HTTPTransport, {"handle_request": _guard_sync(library)}),
        patched(library.AsyncHTTPTransport, {"handle_async_request": _guard_async(library)}),
    ):
        yield


def _guard_sync(library: Any) -> Replace:
    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def guarded(self: Any, request: Any) -> Any:
            policy = captured_policy.get()
            if policy is None or not _is_candidate(request):
                return original(self, request)
            request.read()
            body = _chat_body(request)
            if body is None:
                return original(self, request)
            asked = _asked(body)
            if isinstance(asked, str):
                return _refusal(library, asked)
            try:
                return _answer(library, body, policy.complete_sync(asked))
            except BlockingCall as error:  # as a refusal: the client would retry anything that is raised
                return _refusal(library, str(error))

        return guarded

    return make


def _guard_async(library: Any) -> Replace:
    def make(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(original)
        async def guarded(self: Any, request: Any) -> Any:
            policy = captured_policy.get()
            if policy is None or not _is_candidate(request):
                return await original(self, request)
            await request.aread()
            body = _chat_body(request)
            if body is None:
                return await original(self, request)
            asked = _asked(body)
            if isinstance(asked, str):
                return _refusal(library, asked)
            return _answer(library, body, await policy.complete(asked))

        return guarded

    return make


def _is_candidate(request: Any) -> bool:
    """Whether the address is one at which OpenAI-style servers answer chats."""
    return request.method == "POST" and request.url.path.endswith(("/chat/completions", "/responses"))


def _chat_body(request: Any) -> dict[str, Any] | None:
    """The body of a chat request; None for some other service that uses the same path."""
    try:
        body = json.loads(request.content)
    except ValueError:
        return None
    chats = isinstance(body, dict) and "model" in body and ("messages" in body or "input" in body)
    return body if chats else None


def _asked(body: dict[str, Any]) -> ChatRequest | str:
    """The canonical request, or why there can be no answer."""
    if "messages" not in body:
        return (
            "raybolt does not answer the Responses API yet; use client.chat.completions in the agent "
            "(in LangChain: ChatOpenAI(use_responses_api=False))"
        )
    try:
        return chat_request_from_body(body, role=current_role())
    except InvalidValue as error:
        return str(error)


def _answer(library: Any, body: dict[str, Any], completion: Completion) -> Any:
    names = {"model": str(body["model"]), "completion_id": f"chatcmpl-{uuid.uuid4().hex}"}
    if not body.get("stream"):
        return library.Response(200, json=completion_to_body(completion, **names))
    include_usage = bool((body.get("stream_options") or {}).get("include_usage"))
    events = b"".join(completion_to_events(completion, **names, include_usage=include_usage))
    return library.Response(200, headers={"content-type": "text/event-stream"}, content=events)


def _refusal(library: Any, message: str) -> Any:
    return library.Response(400, json=error_body(message))

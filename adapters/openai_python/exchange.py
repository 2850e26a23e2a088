"""One HTTP exchange of an OpenAI-style client: what was asked, and its answer in the form it was asked in.

It knows both APIs, chat completions and responses, and no HTTP library.
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raybolt.adapters.openai_python.memory import ResponseMemory
from raybolt.adapters.openai_python.readable import readable
from raybolt.adapters.openai_python.replies import OwnReply, reply_from_body, reply_from_response
from raybolt.adapters.openai_python.responses import (
    chat_request_from_responses,
    completion_to_response,
    completion_to_response_events,
)
from raybolt.adapters.openai_python.wire import (
    chat_request_from_body,
    completion_to_body,
    completion_to_events,
)
from raybolt.env.chat import ChatRequest, Completion
from raybolt.store.errors import InvalidValue


@dataclass(frozen=True)
class Exchange(ABC):
    """A request that asks for a chat."""

    body: Mapping[str, Any]
    request: ChatRequest
    refusal: str | None
    """Why no policy can answer, if so; `request` is then only good for the record of another model's call."""

    @property
    def streams(self) -> bool:
        return bool(self.body.get("stream"))

    @property
    def model(self) -> str:
        return str(self.body["model"])

    @abstractmethod
    def answer(self, completion: Completion) -> dict[str, Any]:
        """The policy's answer as the body of an HTTP response."""

    @abstractmethod
    def events(self, completion: Completion) -> Iterator[bytes]:
        """The policy's answer as server-sent events."""

    @abstractmethod
    def own_reply(self, body: Mapping[str, Any]) -> OwnReply | None:
        """What another model's answer says; None for a body that is no answer."""


@dataclass(frozen=True)
class ChatExchange(Exchange):
    """Of `/chat/completions`."""

    def answer(self, completion: Completion) -> dict[str, Any]:
        return completion_to_body(completion, **self._names(), token_texts=self._token_texts(completion))

    def events(self, completion: Completion) -> Iterator[bytes]:
        return completion_to_events(
            completion,
            **self._names(),
            include_usage=bool((self.body.get("stream_options") or {}).get("include_usage")),
            token_texts=self._token_texts(completion),
        )

    def own_reply(self, body: Mapping[str, Any]) -> OwnReply | None:
        return reply_from_body(body)

    def _names(self) -> dict[str, str]:
        return {"model": self.model, "completion_id": f"chatcmpl-{uuid.uuid4().hex}"}

    def _token_texts(self, completion: Completion) -> Sequence[str] | None:
        return _token_names(completion) if self.body.get("logprobs") else None


@dataclass(frozen=True)
class ResponsesExchange(Exchange):
    """Of `/responses`. What it answers is remembered for the calls that go on from it."""

    memory: ResponseMemory
    expanded: Mapping[str, Any]
    """The body with all that it refers to written out."""

    def answer(self, completion: Completion) -> dict[str, Any]:
        names = self._names(completion)
        self.memory.remember(self.expanded, completion_to_response(completion, **names))
        return completion_to_response(completion, **names)

    def events(self, completion: Completion) -> Iterator[bytes]:
        names = self._names(completion)
        self.memory.remember(self.expanded, completion_to_response(completion, **names))
        return completion_to_response_events(completion, **names)

    def own_reply(self, body: Mapping[str, Any]) -> OwnReply | None:
        reply = reply_from_response(body)
        if reply is not None:
            self.memory.remember(self.expanded, body)
        return reply

    def _names(self, completion: Completion) -> dict[str, Any]:
        wants_logprobs = "message.output_text.logprobs" in (self.body.get("include") or ())
        return {
            "model": self.model,
            "response_id": f"resp_{uuid.uuid4().hex}",
            "body": self.body,
            "token_texts": _token_names(completion) if wants_logprobs else None,
        }


def exchange_of(body: Any, *, role: str, memory: ResponseMemory) -> Exchange | None:
    """The exchange that a request's JSON body opens; None for some other service at the same path."""
    if not isinstance(body, dict) or "model" not in body:
        return None
    if "messages" not in body and "input" not in body and "previous_response_id" not in body:
        return None
    try:
        return _exchange(body, role, memory, None)
    except InvalidValue as error:
        return _exchange(readable(body), role, memory, str(error))


def _exchange(body: Mapping[str, Any], role: str, memory: ResponseMemory, refusal: str | None) -> Exchange:
    if "messages" in body:
        return ChatExchange(body, chat_request_from_body(body, role=role), refusal)
    expanded = memory.expanded(body)
    return ResponsesExchange(
        body, chat_request_from_responses(expanded, role=role), refusal, memory, expanded
    )


def _token_names(completion: Completion) -> list[str] | None:
    """Names for tokens whose texts nobody here can tell, as with vLLM's `return_tokens_as_token_ids`."""
    ids = completion.response_ids
    return None if ids is None else [f"token_id:{token}" for token in ids.tolist()]

"""A policy that follows a script, for checks and unit tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from typing import Any, TypeAlias

from raybolt.env.chat import ChatMessage, ChatRequest, Completion, ToolCall

Answer: TypeAlias = Callable[[ChatRequest], Completion]

_call_ids = count(1)  # no two calls of a process have the same id, as with a real provider


class ScriptedPolicy:
    """Answers the calls of a run in their order by a list of replies; the last one is repeated.

    A reply is a `Completion`, a text, or a function of the request that gives one of these.
    """

    def __init__(self, *replies: Completion | str | Callable[[ChatRequest], Completion | str]) -> None:
        self._replies = replies
        self.requests: list[ChatRequest] = []

    def __call__(self, request: ChatRequest) -> Completion:
        self.requests.append(request)
        reply = self._replies[min(len(self.requests), len(self._replies)) - 1]
        given = reply(request) if callable(reply) else reply
        return say(given) if isinstance(given, str) else given


def say(text: str) -> Completion:
    """The reply `text`."""
    return Completion(ChatMessage("assistant", text))


def call(*calls: tuple[str, dict[str, Any] | str], content: str | None = None) -> Completion:
    """A reply that asks for tools, each as (name, arguments); arguments given as a text stay as they are."""
    tool_calls = tuple(
        ToolCall(
            f"call_{next(_call_ids)}",
            name,
            arguments if isinstance(arguments, str) else json.dumps(arguments),
        )
        for name, arguments in calls
    )
    return Completion(ChatMessage("assistant", content, tool_calls), "tool_calls")


def tools_then(text: str, *calls: tuple[str, dict[str, Any] | str]) -> Answer:
    """Asks for the tools first, and says `text` once a tool's result is in the conversation."""

    def answer(request: ChatRequest) -> Completion:
        return say(text) if any(m.role == "tool" for m in request.messages) else call(*calls)

    return answer

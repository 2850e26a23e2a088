"""A policy that follows a script, for checks and unit tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from raybolt.env.chat import ChatMessage, ChatRequest, Completion, ToolCall

Answer = Callable[[ChatRequest], Completion]


class ScriptedPolicy:
    """Answers by a function of the request, and keeps the requests it saw."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.requests: list[ChatRequest] = []

    def __call__(self, request: ChatRequest) -> Completion:
        self.requests.append(request)
        return self._answer(request)


def say(text: str) -> Completion:
    """The reply `text`."""
    return Completion(ChatMessage("assistant", text))


def call(*calls: tuple[str, dict[str, Any] | str], content: str | None = None) -> Completion:
    """A reply that asks for tools, each as (name, arguments); arguments given as text stay as they are."""
    tool_calls = tuple(
        ToolCall(f"call_{index}", name, arguments if isinstance(arguments, str) else json.dumps(arguments))
        for index, (name, arguments) in enumerate(calls)
    )
    return Completion(ChatMessage("assistant", content, tool_calls), "tool_calls")

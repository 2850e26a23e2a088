"""Find the chat models that a built agent holds, wherever it holds them."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel

from raybolt.adapters.reach import reachable

_LIBRARIES = frozenset({"langchain", "langchain_core", "langgraph", "langsmith", "pydantic", "pydantic_core"})


def held_models(agent: Any) -> list[BaseChatModel]:
    """The chat models reachable from `agent`, each once, nearest first."""
    found = reachable(agent, libraries=_LIBRARIES, is_leaf=lambda value: isinstance(value, BaseChatModel))
    return [value for value in found if isinstance(value, BaseChatModel)]

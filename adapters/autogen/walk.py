"""Find what a built agent or team holds: model clients, agents and teams, wherever it holds them."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MethodType
from typing import Any

from autogen_agentchat.base import ChatAgent, Team
from autogen_core import SingleThreadedAgentRuntime
from autogen_core.models import ChatCompletionClient

from raybolt.adapters.autogen.model import PolicyClient
from raybolt.adapters.reach import reachable

_LIBRARIES = frozenset({"autogen_agentchat", "autogen_core", "autogen_ext", "pydantic", "opentelemetry"})


@dataclass
class Held:
    """What was found, each once, nearest first."""

    clients: list[Any] = field(default_factory=list)
    """Model clients, of AutoGen's base class or merely shaped like one."""
    workers: list[ChatAgent | Team] = field(default_factory=list)
    methods: list[MethodType] = field(default_factory=list)


def held_by(agent: Any) -> Held:
    """The clients, agents, teams and bound methods reachable from `agent`."""
    held = Held()
    for value in reachable(agent, libraries=_LIBRARIES, is_leaf=_is_leaf):
        if isinstance(value, PolicyClient):
            continue
        if _is_client(value):
            held.clients.append(value)
        elif isinstance(value, (ChatAgent, Team)):
            held.workers.append(value)
        elif isinstance(value, MethodType):
            held.methods.append(value)
    return held


def _is_leaf(value: Any) -> bool:
    return isinstance(value, SingleThreadedAgentRuntime) or _is_client(value)


def _is_client(value: Any) -> bool:
    shape = ("create", "create_stream", "model_info")
    return isinstance(value, ChatCompletionClient) or all(hasattr(type(value), name) for name in shape)

"""What the checks need of a framework: a handful of small agents, written as its users write them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel

from raybolt.adapters.base import Adapter
from raybolt.adapters.wrap import WrappedAgent, wrap
from raybolt.env.chat import ChatRequest, Completion

Way: TypeAlias = Literal["factory", "built"]
"""How an agent is brought: `build(llm) -> agent`, or an agent that already holds its own models."""

NOWHERE = "http://127.0.0.1:9/v1"
"""Where a built agent's own models point unless told otherwise: nobody answers there."""


class NotOffered(Exception):
    """The framework has no such thing; the message says why and appears in the documentation's table."""


class AgentKit(ABC):
    """Small agents of one framework, each method a new one: what `wrap` is given.

    Every agent takes a text, the task's input. Raise `NotOffered("reason")` for what the framework lacks.
    """

    framework: ClassVar[str]
    """The adapter's name, as `wrap(framework=…)` takes it."""
    ways: ClassVar[tuple[Way, ...]] = ("factory", "built")
    adapter: ClassVar[Adapter | None] = None
    """Your own adapter, where it is none of those that `wrap` knows."""
    idle_threads: ClassVar[tuple[str, ...]] = ()
    """Names (patterns) of threads that the framework itself starts once and keeps for the whole process."""

    def wrap(self, agent: Any, **options: Any) -> WrappedAgent:
        """`raybolt.wrap` of one of the agents below."""
        return wrap(agent, framework=self.adapter, **options)

    @abstractmethod
    def solo(self, way: Way) -> Any:
        """One agent, role "writer", without tools: one call, whose reply is the result."""

    @abstractmethod
    def with_tools(self, way: Way, tools: Sequence[Callable[..., Any]]) -> Any:
        """Role "writer" with these tools: annotated functions with docstrings, plain or async.

        After the tools' results the model is asked again, and a reply without tool calls is the result.
        """

    @abstractmethod
    def two_roles(self, way: Way) -> Any:
        """Two agents: "writer", then "critic", who sees the writer's reply.

        One call each; the critic's reply is the result.
        """

    @abstractmethod
    def hand_off(self, way: Way) -> Any:
        """Two agents: "writer" can hand over to "critic" by the framework's own means.

        The reply of whoever is at work last is the result.
        """

    @abstractmethod
    def hand_off_reply(self, request: ChatRequest) -> Completion:
        """The writer's reply that hands over to the critic."""

    @abstractmethod
    def structured(self, way: Way, schema: type[BaseModel]) -> Any:
        """Role "writer"; its result is an instance of `schema`, or its fields as a dictionary."""

    @abstractmethod
    def streaming(self, way: Way) -> Any:
        """As `solo`, but the agent's own code consumes a stream of the model, or of the agent."""

    @abstractmethod
    def parallel(self, way: Way) -> Any:
        """Three calls of the role "writer" at once; the result joins their texts."""

    @abstractmethod
    def late_model(self) -> Any:
        """As `solo`, built, but the model is made inside, while the agent runs."""

    @abstractmethod
    def text(self, result: Any) -> str:
        """The final text of a result."""

    @abstractmethod
    def own_model(self, base_url: str) -> Any:
        """The framework's own chat model for OpenAI-compatible servers, aimed at `base_url`."""

    @abstractmethod
    def own_agent(self, base_url: str) -> Any:
        """`two_roles("built")`, the models of its own aimed at `base_url`."""

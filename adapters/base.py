"""The skeleton that every framework adapter fills in: detect, policy model, bind, run, trace.

An adapter is stateless; what one run needs lives inside `bind`. Its module imports its framework only in the
files that are loaded when an agent of that framework has been seen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from raybolt.env.policy import PolicyPort
from raybolt.env.task import Task
from raybolt.store.errors import RayboltError


class UnsupportedAgent(RayboltError, TypeError):
    """`wrap` was given something that no adapter can run; the message lists what they can."""


Inputs = Callable[[Task], Any]
"""Makes what an agent is called with from a task."""


class Adapter(ABC):
    """How raybolt runs the agents of one framework."""

    framework: ClassVar[str]
    """What `wrap(framework=…)` calls it."""
    supports: ClassVar[str]
    """The kinds of agent it takes, in one line for error messages."""

    @abstractmethod
    def detect(self, agent: Any) -> bool:
        """Whether `agent` is one of ours. Cheap; must not import the framework."""

    @abstractmethod
    def check(self, agent: Any) -> None:
        """Raise `UnsupportedAgent` for what this adapter cannot run; called once, by `wrap`."""

    @abstractmethod
    def default_name(self, agent: Any) -> str:
        """What to call the agent."""

    @abstractmethod
    def bind(self, agent: Any, policy: PolicyPort, *, role: str) -> AbstractContextManager[Any]:
        """The agent of one run; in the block, `policy` answers its LLM calls and its tools are traced.

        `role` is whose calls those are about which the framework says nothing.
        Many runs are bound at once; whatever is patched must leave callers outside the run alone.
        """

    @abstractmethod
    def build(self, agent: Any, llm: Any) -> Any:
        """The agent with the user's own LLM, for use without training; `llm` may be None for built agents."""

    @abstractmethod
    async def run(self, bound: Any, task: Task, inputs: Inputs | None) -> Any:
        """Call what `bind` or `build` gave on the task and return its result untouched.

        `inputs(task)` is what the agent is called with; without it, the task's input by our convention.
        """


def describe(agent: Any) -> str:
    """The agent in an error message: its type, and its name if it has one."""
    name = getattr(agent, "__name__", None)
    kind = f"{type(agent).__module__}.{type(agent).__qualname__}".removeprefix("builtins.")
    return f"{kind} {name!r}" if isinstance(name, str) else f"{kind} ({agent!r:.80})"

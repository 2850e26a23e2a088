"""The skeleton that every framework adapter fills in: detect, policy model, bind, run, trace.

An adapter is stateless; what one run needs lives inside `bind`. Its module imports its framework only in the
files that are loaded when an agent of that framework has been seen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from raybolt.adapters.evidence import is_factory_like, library_roots, module_roots, takes_llm
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

    libraries: ClassVar[frozenset[str]] = frozenset()
    """Top-level packages of the framework."""

    def detect(self, agent: Any) -> bool:
        """Whether `agent` is one of ours: by its type, or as a factory whose code names the framework.

        Cheap; must not import the framework.
        """
        if any(self.owns(cls.__module__) for cls in type(agent).__mro__):
            return True
        return is_factory_like(agent) and any(map(self.owns, library_roots(agent)))

    def suspect(self, agent: Any) -> bool:
        """Whether a factory may be one of ours, judged by the module that defines it: weaker evidence."""
        return takes_llm(agent) and any(map(self.owns, module_roots(agent)))

    def owns(self, module: str) -> bool:
        """Whether a module is the framework's."""
        return module.partition(".")[0] in self.libraries

    @abstractmethod
    def check(self, agent: Any) -> None:
        """Raise `UnsupportedAgent` for what this adapter cannot run; called once, by `wrap`."""

    @abstractmethod
    def default_name(self, agent: Any) -> str:
        """What to call the agent."""

    @abstractmethod
    def bind(self, agent: Any, policy: PolicyPort, *, role: str, frozen: Any) -> AbstractContextManager[Any]:
        """The agent of one run; in the block, `policy` answers its LLM calls and its tools are traced.

        Calls that the policy does not take go to the agent's own model (see `capture.own_call`). A factory's
        agent has none but `frozen`, an LLM in the framework's own type, or None. `role` is whose calls those
        are about which the framework says nothing.
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

"""Plain Python: a function that makes its own LLM calls, with the `openai` client or what is built on it."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from raybolt.adapters.base import Adapter, Inputs, UnsupportedAgent, describe
from raybolt.adapters.call import call_on_task
from raybolt.adapters.capture import FRAMEWORK_LIBRARIES, captured_by
from raybolt.adapters.evidence import library_roots, required_parameters, takes_llm
from raybolt.env.context import entering
from raybolt.env.policy import PolicyPort
from raybolt.env.task import Task


class PythonAdapter(Adapter):
    """Runs functions of a task's input; their clients stay as they are, and a run's policy answers them."""

    framework: ClassVar[str] = "python"
    supports: ClassVar[str] = (
        "a function agent(input), sync or async, that calls an LLM with the openai client or a library built "
        "on it"
    )

    def detect(self, agent: Any) -> bool:
        return callable(agent) and not inspect.isclass(agent) and not takes_llm(agent)

    def check(self, agent: Any) -> None:
        if not callable(agent) or inspect.isclass(agent):
            raise UnsupportedAgent(f"{describe(agent)} is not a function; pass {self.supports}")
        if inspect.isgeneratorfunction(agent) or inspect.isasyncgenfunction(agent):
            raise UnsupportedAgent(
                f"{describe(agent)} is a generator; return the result instead of yielding it"
            )
        if not required_parameters(agent):
            raise UnsupportedAgent(f"{describe(agent)} takes no argument; it must take the task's input")

    def default_name(self, agent: Any) -> str:
        return getattr(agent, "__name__", type(agent).__name__)

    @contextmanager
    def bind(self, agent: Any, policy: PolicyPort, *, role: str, frozen: Any) -> Iterator[Any]:
        for library in library_roots(agent) & FRAMEWORK_LIBRARIES:
            importlib.import_module(
                library
            )  # so that the first run is captured in the same way as the next ones
        with entering(role=role), captured_by(policy):
            yield agent

    def build(self, agent: Any, llm: Any) -> Any:
        return agent

    async def run(self, bound: Any, task: Task, inputs: Inputs | None) -> Any:
        return await call_on_task(bound, task, inputs)

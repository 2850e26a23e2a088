"""Agents of the OpenAI Agents SDK: factories `build(llm)`, built agents, functions that call the runner."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from raybolt.adapters.base import Adapter, Inputs, UnsupportedAgent, describe
from raybolt.adapters.call import call_on_task
from raybolt.adapters.capture import captured_by
from raybolt.adapters.evidence import required_parameters, takes_llm
from raybolt.env.context import DEFAULT_ROLE, entering
from raybolt.env.policy import PolicyPort
from raybolt.env.task import Task
from raybolt.store.errors import InvalidValue

_LIBRARY = "agents"


class OpenAIAgentsAdapter(Adapter):
    """Runs agents by the SDK's `Runner`, and functions that call it themselves.

    A factory that takes the LLM is given a policy model, anew for every run; whatever other models its agent
    uses stay the user's own. Anything else is captured: the models of all its agents answer by the policy.
    """

    framework: ClassVar[str] = "openai-agents"
    supports: ClassVar[str] = (
        "a function build(llm) that returns an Agent or a function that calls Runner; a built Agent"
    )
    libraries: ClassVar[frozenset[str]] = frozenset({_LIBRARY})

    def owns(self, module: str) -> bool:
        return super().owns(module) and is_the_sdk()

    def check(self, agent: Any) -> None:
        if _is_agent(agent):
            return
        if not callable(agent):
            raise UnsupportedAgent(f"{describe(agent)} cannot be run; pass {self.supports}")
        if not takes_llm(agent) and required_parameters(agent):
            raise UnsupportedAgent(
                f"{describe(agent)} cannot be a factory of the OpenAI Agents SDK: its one required parameter "
                "must be the model, as in build(llm). A function that answers questions itself is "
                "framework='python'"
            )

    def default_name(self, agent: Any) -> str:
        return str(agent.name) if _is_agent(agent) else DEFAULT_ROLE

    @contextmanager
    def bind(self, agent: Any, policy: PolicyPort, *, role: str, frozen: Any) -> Iterator[Any]:
        importlib.import_module(_LIBRARY)  # a factory may import it only when it is called
        if _is_agent(agent) or not takes_llm(agent):
            with entering(role=role), captured_by(policy):
                yield self.build(agent, None)
            return
        from raybolt.adapters.openai_agents.loops import closing_loops
        from raybolt.adapters.openai_agents.model import PolicyModel
        from raybolt.adapters.openai_agents.tracing import traced

        with entering(role=role), traced(), closing_loops():
            yield agent(PolicyModel.of(policy, frozen=frozen))

    def build(self, agent: Any, llm: Any) -> Any:
        if _is_agent(agent):
            return agent
        return agent(llm) if takes_llm(agent) else agent()

    async def run(self, bound: Any, task: Task, inputs: Inputs | None) -> Any:
        if inspect.isawaitable(bound):
            bound = await bound
        if _is_agent(bound):
            from agents import Runner

            return await Runner.run(bound, **_arguments(task, inputs))
        if callable(bound):
            return await call_on_task(bound, task, inputs)
        raise UnsupportedAgent(f"the factory returned {describe(bound)}; expected an Agent or a function")


@cache
def is_the_sdk() -> bool:
    """Whether the package called `agents` is OpenAI's; it is a name that many projects use themselves."""
    spec = importlib.util.find_spec(_LIBRARY)
    return spec is not None and spec.origin is not None and Path(spec.origin).with_name("run.py").exists()


def _is_agent(value: Any) -> bool:
    sdk = sys.modules.get(_LIBRARY)  # not loaded: then nothing is an agent of its
    return sdk is not None and is_the_sdk() and isinstance(value, sdk.Agent)


def _arguments(task: Task, inputs: Inputs | None) -> dict[str, Any]:
    """What `Runner.run` is called with: a text, a list of messages or items, or its arguments by name."""
    given = inputs(task) if inputs else task.input
    if isinstance(given, str | list):
        return {"input": given}
    if isinstance(given, Mapping) and "input" in given:
        return dict(given)
    if isinstance(given, Mapping) and isinstance(given.get("messages"), list):
        return {"input": given["messages"]}
    kind = sorted(given) if isinstance(given, Mapping) else type(given).__name__
    raise InvalidValue(
        f"task {task.task_id!r}: an agent of the OpenAI Agents SDK takes a text, a list of messages, or an "
        f"object with 'input' (and other arguments of Runner.run) or 'messages', but it is given {kind}; "
        "pass wrap(…, inputs=function_of_the_task) to make one from the other"
    )

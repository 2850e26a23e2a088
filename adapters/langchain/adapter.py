"""LangChain and LangGraph agents: factories `build(llm)`, built agents and graphs, chains."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from raybolt.adapters.base import Adapter, Inputs, UnsupportedAgent, describe
from raybolt.adapters.call import call_on_task
from raybolt.adapters.capture import captured_by
from raybolt.adapters.evidence import required_parameters, takes_llm
from raybolt.env.context import DEFAULT_ROLE, entering
from raybolt.env.policy import PolicyPort
from raybolt.env.task import Task
from raybolt.store.errors import InvalidValue


class LangChainAdapter(Adapter):
    """Runs LangChain's runnables, LangGraph's graphs, and functions that build them.

    A factory that takes the LLM is given a policy model, anew for every run; whatever other models its agent
    uses stay the user's own. Anything else is captured: all its chat models answer by the policy.
    """

    framework: ClassVar[str] = "langchain"
    supports: ClassVar[str] = (
        "a function build(llm) that returns an agent, chain, graph or function; a built create_agent agent, "
        "compiled StateGraph or other Runnable"
    )

    def owns(self, module: str) -> bool:
        root = module.partition(".")[0]
        return root == "langgraph" or root.startswith("langchain")

    def check(self, agent: Any) -> None:
        if _is_factory(agent):
            if not takes_llm(agent) and required_parameters(agent):
                raise UnsupportedAgent(
                    f"{describe(agent)} cannot be a LangChain factory: its one required parameter must be "
                    "the LLM, as in build(llm). A function that answers questions itself is "
                    "framework='python'"
                )
        elif not hasattr(agent, "ainvoke"):
            remedy = "call .compile() on it first" if hasattr(agent, "compile") else f"pass {self.supports}"
            raise UnsupportedAgent(f"{describe(agent)} cannot be invoked; {remedy}")

    def default_name(self, agent: Any) -> str:
        name = None if _is_factory(agent) else getattr(agent, "name", None)
        return name if isinstance(name, str) and name != "LangGraph" else DEFAULT_ROLE

    @contextmanager
    def bind(self, agent: Any, policy: PolicyPort, *, role: str, frozen: Any) -> Iterator[Any]:
        from raybolt.adapters.langchain.model import PolicyChatModel
        from raybolt.adapters.langchain.swap import models_answered_by_policy
        from raybolt.adapters.langchain.tracing import traced
        from raybolt.adapters.langchain.walk import held_models

        if _is_factory(agent) and takes_llm(agent):
            with entering(role=role), traced():
                yield agent(PolicyChatModel.of(policy, frozen))
            return
        with entering(role=role), captured_by(policy):
            bound = agent() if _is_factory(agent) else agent
            with models_answered_by_policy(held_models(bound)):
                yield bound

    def build(self, agent: Any, llm: Any) -> Any:
        if not _is_factory(agent):
            return agent
        return agent(llm) if takes_llm(agent) else agent()

    async def run(self, bound: Any, task: Task, inputs: Inputs | None) -> Any:
        if inspect.isawaitable(bound):
            bound = await bound
        if hasattr(bound, "ainvoke"):
            given = inputs(task) if inputs else _runnable_input(bound, task)
            return await bound.ainvoke(given, _config(bound))
        if callable(bound):
            return await call_on_task(bound, task, inputs)
        raise UnsupportedAgent(
            f"the factory returned {describe(bound)}; expected a Runnable, a graph or a function"
        )


def _is_factory(agent: Any) -> bool:
    """A function, or a class that is made with the LLM; runnables are agents themselves."""
    return callable(agent) and (inspect.isclass(agent) or not hasattr(agent, "ainvoke"))


def _runnable_input(runnable: Any, task: Task) -> Any:
    """The task's input as the runnable takes it: a graph of messages gets a text as the user's message."""
    fields = _graph_fields(runnable)
    if fields is None:
        return task.input
    if isinstance(task.input, str) and "messages" in fields:
        return {"messages": [{"role": "user", "content": task.input}]}
    if isinstance(task.input, Mapping) and fields & set(task.input):
        return task.input
    given = sorted(task.input) if isinstance(task.input, Mapping) else type(task.input).__name__
    raise InvalidValue(
        f"task {task.task_id!r}: the graph takes {', '.join(sorted(fields))}, but the task's input is "
        f"{given}; pass wrap(…, inputs=function_of_the_task) to make one from the other"
    )


def _first_step(runnable: Any) -> Any:
    """What a chain, or a graph with settings bound to it, hands its input to."""
    for name in ("first", "bound", "runnable"):
        if (inner := getattr(runnable, name, None)) is not None:
            return _first_step(inner)
    return runnable


def _graph_fields(runnable: Any) -> frozenset[str] | None:
    """Names of the state that a graph's input may hold; None for runnables without declared state."""
    schema = getattr(getattr(_first_step(runnable), "builder", None), "input_schema", None)
    if not inspect.isclass(schema):
        return None
    return frozenset(name for base in schema.__mro__ for name in getattr(base, "__annotations__", {})) or None


def _config(runnable: Any) -> dict[str, Any] | None:
    """A graph with memory gets a thread of its own, so that runs do not share what they remember."""
    if getattr(_first_step(runnable), "checkpointer", None) is None:
        return None
    return {"configurable": {"thread_id": uuid.uuid4().hex}}

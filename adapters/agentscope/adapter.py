"""AgentScope agents: factories `build(llm)`, built agents and pipelines."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from raybolt.adapters.base import Adapter, Inputs, UnsupportedAgent, describe
from raybolt.adapters.call import call_on_task
from raybolt.adapters.capture import captured_by
from raybolt.adapters.evidence import is_factory_like, library_roots, takes_llm
from raybolt.env.context import DEFAULT_ROLE, entering
from raybolt.env.policy import PolicyPort
from raybolt.env.task import Task
from raybolt.store.errors import InvalidValue


class AgentScopeAdapter(Adapter):
    """Runs AgentScope's agents and pipelines, and functions that build them.

    A factory that takes the LLM is given a policy model, anew for every run; whatever other models its agent
    uses stay the user's own. Anything else is captured: all its chat models answer by the policy, and every
    run has its own memory of the agents it shares with others.
    """

    framework: ClassVar[str] = "agentscope"
    supports: ClassVar[str] = (
        "a function build(llm) that returns an agent, a pipeline or a function; a built Agent or "
        "GoalPipeline; a function agent(input) that runs such agents"
    )
    libraries: ClassVar[frozenset[str]] = frozenset({"agentscope"})

    def detect(self, agent: Any) -> bool:
        """Besides agents and factories, functions of an input: AgentScope's way to run several agents."""
        return super().detect(agent) or (_is_function(agent) and any(map(self.owns, _modules_used(agent))))

    def check(self, agent: Any) -> None:
        if not _is_agent(agent) and not callable(agent):
            raise UnsupportedAgent(f"{describe(agent)} cannot reply; pass {self.supports}")
        if inspect.isgeneratorfunction(agent) or inspect.isasyncgenfunction(agent):
            raise UnsupportedAgent(
                f"{describe(agent)} is a generator; return the result instead of yielding it"
            )

    def default_name(self, agent: Any) -> str:
        name = getattr(agent, "name", None) if _is_agent(agent) else None
        if _is_function(agent):
            name = getattr(agent, "__name__", type(agent).__name__)
        return name if isinstance(name, str) else DEFAULT_ROLE

    @contextmanager
    def bind(self, agent: Any, policy: PolicyPort, *, role: str, frozen: Any) -> Iterator[Any]:
        from raybolt.adapters.agentscope.memory import kept_apart
        from raybolt.adapters.agentscope.model import PolicyModel
        from raybolt.adapters.agentscope.tracing import traced

        if _is_factory(agent) and takes_llm(agent):
            with entering(role=role), kept_apart(), traced():
                yield agent(PolicyModel.of(policy, frozen))
            return
        with entering(role=role), captured_by(policy):
            yield agent() if _is_factory(agent) else agent

    def build(self, agent: Any, llm: Any) -> Any:
        if not _is_factory(agent):
            return agent
        return agent(llm) if takes_llm(agent) else agent()

    async def run(self, bound: Any, task: Task, inputs: Inputs | None) -> Any:
        if inspect.isawaitable(bound):
            bound = await bound
        if hasattr(bound, "reply"):
            return await bound.reply(inputs(task) if inputs else _messages(task))
        if hasattr(bound, "reply_stream"):
            given = inputs(task) if inputs else _messages(task)
            return [event async for event in bound.reply_stream(given)]
        if callable(bound):
            return await call_on_task(bound, task, inputs)
        raise UnsupportedAgent(
            f"the factory returned {describe(bound)}; expected an Agent, a GoalPipeline or a function"
        )


def _is_agent(agent: Any) -> bool:
    """An agent or a pipeline; classes of them are factories."""
    return not inspect.isclass(agent) and hasattr(agent, "reply_stream")


def _is_factory(agent: Any) -> bool:
    return not _is_agent(agent) and is_factory_like(agent)


def _is_function(agent: Any) -> bool:
    """A function of a task's input, which is an agent itself."""
    return callable(agent) and not _is_agent(agent) and not _is_factory(agent)


def _modules_used(function: Any) -> set[str]:
    """Modules behind the names a function uses, those of the objects in its closure included."""
    found = library_roots(function)
    if inspect.isfunction(function):
        found |= {type(value).__module__ for value in inspect.getclosurevars(function).nonlocals.values()}
    return found


def _messages(task: Task) -> Any:
    """The task's input as an agent takes it: a text is the user's message."""
    given = task.input
    if isinstance(given, list) and given:
        return [_message(each, task) for each in given]
    return _message(given, task)


def _message(given: Any, task: Task) -> Any:
    from agentscope.message import Msg, UserMsg

    if isinstance(given, str):
        return UserMsg(name="user", content=given)
    if isinstance(given, Mapping) and isinstance(given.get("content"), str):
        role = given.get("role", "user")
        content = [{"type": "text", "text": given["content"]}]
        return Msg.model_validate({"name": role, **given, "role": role, "content": content})
    raise InvalidValue(
        f"task {task.task_id!r}: an AgentScope agent takes a text, or messages with a role and a content, "
        f"but the task's input is {given!r:.200}; pass wrap(…, inputs=function_of_the_task) to make one of it"
    )

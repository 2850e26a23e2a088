"""AutoGen agents and teams: factories `build(llm)`, built agents and teams."""

from __future__ import annotations

import inspect
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


class AutoGenAdapter(Adapter):
    """Runs AutoGen's agents and teams, and functions that build them.

    A factory that takes the LLM is given a policy client, anew for every run; whatever other clients its
    agents use stay the user's own. Anything else is captured: all its clients answer by the policy.
    """

    framework: ClassVar[str] = "autogen"
    libraries: ClassVar[frozenset[str]] = frozenset({"autogen_agentchat", "autogen_core", "autogen_ext"})
    supports: ClassVar[str] = (
        "a function build(llm) that returns an agent, team or function; a built AssistantAgent, other agent "
        "or team of autogen_agentchat"
    )

    def check(self, agent: Any) -> None:
        if _is_factory(agent):
            if not takes_llm(agent) and required_parameters(agent):
                raise UnsupportedAgent(
                    f"{describe(agent)} cannot be an AutoGen factory: its one required parameter must be the "
                    "LLM, as in build(llm). A function that answers questions itself is framework='python'"
                )
        elif not _runs(agent):
            raise UnsupportedAgent(f"{describe(agent)} has no run(task=…); pass {self.supports}")

    def default_name(self, agent: Any) -> str:
        name = None if _is_factory(agent) else getattr(agent, "name", None)
        return name if isinstance(name, str) else DEFAULT_ROLE

    @contextmanager
    def bind(self, agent: Any, policy: PolicyPort, *, role: str, frozen: Any) -> Iterator[Any]:
        from raybolt.adapters.autogen.copies import Shared, copied
        from raybolt.adapters.autogen.model import PolicyClient
        from raybolt.adapters.autogen.swap import clients_answered_by_policy
        from raybolt.adapters.autogen.tracing import traced
        from raybolt.adapters.autogen.walk import held_by

        if _is_factory(agent) and takes_llm(agent):
            with entering(role=role):
                made = agent(PolicyClient.of(policy, frozen=frozen))
                with traced():  # after building, which may have defined classes
                    yield made
            return
        with entering(role=role), captured_by(policy):
            made = agent() if _is_factory(agent) else agent
            held = held_by(made)
            if made is agent:
                made = copied(agent, held) or Shared(agent, held)
            with clients_answered_by_policy(held.clients), traced():
                yield made

    def build(self, agent: Any, llm: Any) -> Any:
        from raybolt.adapters.autogen.copies import Shared, copied
        from raybolt.adapters.autogen.walk import held_by

        if not _is_factory(agent):
            held = held_by(agent)
            return copied(agent, held) or Shared(agent, held)
        return agent(llm) if takes_llm(agent) else agent()

    async def run(self, bound: Any, task: Task, inputs: Inputs | None) -> Any:
        if inspect.isawaitable(bound):
            bound = await bound
        if hasattr(bound, "turn"):
            async with bound.turn() as agent:
                return await self.run(agent, task, inputs)
        if _runs(bound):
            return await bound.run(task=inputs(task) if inputs else _agent_task(task))
        if callable(bound):
            return await call_on_task(bound, task, inputs)
        raise UnsupportedAgent(
            f"the factory returned {describe(bound)}; expected an agent, a team or a function"
        )


def _is_factory(agent: Any) -> bool:
    """A function, or a class that is made with the LLM; agents and teams are not callable."""
    return callable(agent) and (inspect.isclass(agent) or not _runs(agent))


def _runs(agent: Any) -> bool:
    return hasattr(agent, "run") and hasattr(agent, "run_stream")


def _agent_task(task: Task) -> Any:
    """The task's input as `run(task=…)` takes it: a text, or messages as AutoGen writes them down."""
    given = task.input
    if isinstance(given, Mapping) and set(given) == {"task"}:
        given = given["task"]
    if isinstance(given, str):
        return given
    if _is_message(given):
        return _message(given)
    if isinstance(given, list) and given and all(map(_is_message, given)):
        return [_message(each) for each in given]
    kind = sorted(given) if isinstance(given, Mapping) else type(given).__name__
    raise InvalidValue(
        f"task {task.task_id!r}: an AutoGen agent takes a text, or messages such as "
        f"{{'type': 'TextMessage', 'source': 'user', 'content': …}}, but the task's input is {kind}; pass "
        "wrap(…, inputs=function_of_the_task) to make one from the other"
    )


def _is_message(given: Any) -> bool:
    return isinstance(given, Mapping) and "type" in given


def _message(fields: Mapping[str, Any]) -> Any:
    from autogen_agentchat.messages import MessageFactory

    return MessageFactory().create(fields)

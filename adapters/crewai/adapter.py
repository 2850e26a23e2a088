"""CrewAI: factories `build(llm)`, built crews, agents and Flows."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

from raybolt.adapters.base import Adapter, Inputs, UnsupportedAgent, describe
from raybolt.adapters.call import call_on_task
from raybolt.adapters.capture import captured_by
from raybolt.adapters.evidence import is_factory_like, takes_llm
from raybolt.env.context import DEFAULT_ROLE, entering
from raybolt.env.executor import run_in_thread
from raybolt.env.policy import PolicyPort
from raybolt.env.task import Task


class CrewAIAdapter(Adapter):
    """Runs crews, agents and Flows, and functions that build them.

    A factory that takes the LLM is given a policy model, anew for every run; whatever other models its agent
    uses stay the user's own. Anything else is copied for each run and captured: all its models answer by the
    policy.
    """

    framework: ClassVar[str] = "crewai"
    supports: ClassVar[str] = (
        "a function build(llm) that returns a Crew, an Agent, a Flow or a function; a built Crew, Agent or "
        "Flow; a Flow class, or a function without parameters that makes one of these"
    )
    libraries: ClassVar[frozenset[str]] = frozenset({"crewai"})

    def check(self, agent: Any) -> None:
        if _is_factory(agent):
            if not is_factory_like(agent):
                raise UnsupportedAgent(
                    f"{describe(agent)} cannot be a CrewAI factory: its one required parameter must be the "
                    "LLM, as in build(llm). A function that answers questions itself is framework='python'"
                )
        elif not hasattr(agent, "kickoff"):
            raise UnsupportedAgent(f"{describe(agent)} cannot be kicked off; pass {self.supports}")

    def default_name(self, agent: Any) -> str:
        if inspect.isclass(agent):
            return agent.__name__
        if _is_factory(agent):
            return DEFAULT_ROLE
        if hasattr(agent, "role"):
            from raybolt.adapters.crewai.model import role_of

            return role_of(agent)
        return getattr(agent, "name", None) or type(agent).__name__

    @contextmanager
    def bind(self, agent: Any, policy: PolicyPort, *, role: str, frozen: Any) -> Iterator[Any]:
        from raybolt.adapters.crewai.model import PolicyLLM
        from raybolt.adapters.crewai.quiet import contained, silent_unless_verbose
        from raybolt.adapters.crewai.swap import usage_of_own_calls
        from raybolt.adapters.crewai.threads import aborts_cross_threads
        from raybolt.adapters.crewai.tracing import traced

        with ExitStack() as stack:
            stack.enter_context(entering(role=role))
            stack.enter_context(contained())
            if _is_factory(agent) and takes_llm(agent):
                for patches in (traced, aborts_cross_threads, usage_of_own_calls):
                    stack.enter_context(patches())
                bound = agent(PolicyLLM.of(policy, frozen=frozen))
            else:
                stack.enter_context(captured_by(policy))
                bound = self.build(agent, None)
            stack.enter_context(silent_unless_verbose(bound))
            yield bound

    def build(self, agent: Any, llm: Any) -> Any:
        from raybolt.adapters.crewai.copies import own_copy
        from raybolt.adapters.crewai.quiet import not_reported

        not_reported()
        if not _is_factory(agent):
            return own_copy(agent)
        if takes_llm(agent):
            return agent(llm)
        return own_copy(agent())  # a @CrewBase class gives the same agents each time

    async def run(self, bound: Any, task: Task, inputs: Inputs | None) -> Any:
        from raybolt.adapters.crewai.kickoff import kickoff_argument, result_of_kickoff
        from raybolt.adapters.crewai.threads import lasting

        if inspect.isawaitable(bound):
            bound = await bound
        if hasattr(bound, "kickoff"):
            given = inputs(task) if inputs else kickoff_argument(bound, task)
            # The blocking entry: callbacks, guardrails and tools may then block, and call an LLM, without
            # holding up other runs. `akickoff` would run them on the event loop that all runs share.
            return await run_in_thread(lasting(result_of_kickoff), bound, given)
        if callable(bound):
            is_async = inspect.iscoroutinefunction(bound) or inspect.iscoroutinefunction(type(bound).__call__)
            return await call_on_task(bound if is_async else lasting(bound), task, inputs)
        raise UnsupportedAgent(
            f"the factory returned {describe(bound)}; expected a Crew, an Agent, a Flow or a function"
        )


def _is_factory(agent: Any) -> bool:
    """A function, or a class that makes agents; crews, agents and Flows are not callable."""
    return callable(agent) and (inspect.isclass(agent) or not hasattr(agent, "kickoff"))

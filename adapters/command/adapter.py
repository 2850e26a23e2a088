"""Agents that are no Python objects: commands, and processes that the user starts."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from raybolt.adapters.base import Adapter, Inputs, UnsupportedAgent, describe
from raybolt.adapters.command.agents import Command, ExternalAgent
from raybolt.adapters.command.environment import agent_environment, own_environment
from raybolt.adapters.command.process import Finished, run_to_end
from raybolt.adapters.endpoint.upstream import Upstream
from raybolt.env.context import DEFAULT_ROLE, current_run, entering
from raybolt.env.policy import PolicyPort
from raybolt.env.task import Task
from raybolt.store.errors import InvalidValue, RayboltError

_SHOWN_ERRORS = 2000  # characters of a failed command's standard error, from its end


class CommandFailed(RayboltError):
    """An agent's command could not be started, or ended with an exit status other than 0."""


class CommandAdapter(Adapter):
    """Serves each run at an endpoint, and lets a process of any language work on it."""

    framework: ClassVar[str] = "command"
    supports: ClassVar[str] = (
        'raybolt.command(["node", "agent.js"]), a command in any language; raybolt.external(), processes '
        "that you start yourself"
    )

    def detect(self, agent: Any) -> bool:
        return isinstance(agent, Command | ExternalAgent)

    def check(self, agent: Any) -> None:
        if not self.detect(agent):
            raise UnsupportedAgent(f"{describe(agent)} is no command; pass {self.supports}")

    def default_name(self, agent: Any) -> str:
        return DEFAULT_ROLE

    @contextmanager
    def bind(self, agent: Any, policy: PolicyPort, *, role: str, frozen: Any) -> Iterator[Any]:
        if frozen is not None and not isinstance(frozen, Upstream):
            raise InvalidValue(
                f"wrap(frozen={frozen!r:.100}): an agent in another process takes an OpenAI-compatible "
                "server: frozen=raybolt.Upstream(base_url, api_key=…)"
            )
        with entering(role=role):
            yield _Bound(agent, policy, frozen)

    def build(self, agent: Any, llm: Any) -> Any:
        if isinstance(agent, ExternalAgent):
            raise UnsupportedAgent(
                "an external agent runs only where raybolt gives it tasks; use it in a run"
            )
        return agent

    async def run(self, bound: Any, task: Task, inputs: Inputs | None) -> Any:
        given = inputs(task) if inputs else task.input
        if isinstance(bound, Command):
            return await _run_alone(bound, task, given)
        from raybolt.adapters.endpoint.served import ServedRun

        context = current_run.get()
        if context is None:
            raise RayboltError("an agent in another process needs a run around it; step it with its env()")
        run = ServedRun(bound.policy, context, task, given, bound.frozen)
        if isinstance(bound.agent, Command):
            return await _run_command(bound.agent, run)
        return await _run_external(bound.agent, run)


@dataclass(frozen=True, slots=True)
class _Bound:
    """An agent with the policy of one run."""

    agent: Command | ExternalAgent
    policy: PolicyPort
    frozen: Upstream | None


async def _run_command(agent: Command, run: Any) -> Any:
    from raybolt.adapters.endpoint.server import serving

    with serving(run, agent.address) as server:
        env = agent_environment(server.description(run), run.role, agent.env)
        return await _result(agent, env, run.given)


async def _run_external(agent: ExternalAgent, run: Any) -> Any:
    from raybolt.adapters.endpoint.server import serving

    with serving(run, agent.address) as server, server.offering(run, agent.token):
        return await asyncio.wrap_future(run.outcome)


async def _run_alone(agent: Command, task: Task, given: Any) -> Any:
    wire = {"task_id": task.task_id, "input": given, "metadata": dict(task.metadata)}
    return await _result(agent, own_environment(wire, agent.env), given)


async def _result(agent: Command, env: dict[str, str], given: Any) -> Any:
    try:
        finished = await run_to_end(agent.arguments, env=env, cwd=agent.cwd, given=json.dumps(given))
    except OSError as error:
        raise CommandFailed(f"{shlex.join(agent.arguments)} cannot be started: {error}") from error
    if finished.status != 0:
        raise CommandFailed(_failure(agent, finished))
    return agent.result(finished.output)


def _failure(agent: Command, finished: Finished) -> str:
    status = finished.status
    how = f"exited with status {status}" if status > 0 else f"was ended by signal {-status}"
    errors = finished.errors.strip()[-_SHOWN_ERRORS:]
    told = f"; its standard error ends:\n{errors}" if errors else "; it wrote nothing to standard error"
    return f"{shlex.join(agent.arguments)} {how}{told}"

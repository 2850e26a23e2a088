"""A command run once, on the terminal of this process: what `raybolt run` runs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any

from raybolt.adapters.command.adapter import CommandFailed
from raybolt.adapters.command.agents import Address
from raybolt.adapters.command.environment import agent_environment
from raybolt.adapters.command.process import run_on_terminal
from raybolt.adapters.endpoint.served import ServedRun
from raybolt.adapters.endpoint.server import serving
from raybolt.adapters.endpoint.upstream import Upstream
from raybolt.env.context import DEFAULT_ROLE, current_run
from raybolt.env.policy import PolicyPort
from raybolt.env.task import Task

NOT_STARTED = 127  # as shells report it


class TerminalProgram:
    """The command as an agent's program. It has the terminal's input, unless its task has an input.

    Calls that the policy does not take go where they were aimed: by the script's code, or by the environment.
    """

    name = DEFAULT_ROLE

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = tuple(arguments)
        self.status: int | None = None
        """The command's exit status; negative: the signal that ended it. None until it has ended."""

    async def run(self, task: Task, policy: PolicyPort) -> Any:
        """Nothing: what the command says is on the terminal.

        Raises:
            CommandFailed: it could not be started, or its exit status is not 0.
        """
        context = current_run.get()
        assert context is not None, "a command is run inside a run or a trace"
        run = ServedRun(policy, context, task, task.input, natural=Upstream.of_environment())
        given = None if task.input is None else json.dumps(task.input)
        with serving(run, Address()) as server:
            env = agent_environment(server.description(run), run.role, {})
            try:
                finished = await run_on_terminal(self._arguments, env=env, cwd=None, given=given)
            except OSError as error:
                self.status = NOT_STARTED
                raise CommandFailed(f"{shlex.join(self._arguments)} cannot be started: {error}") from error
        self.status = finished.status
        if self.status != 0:
            raise CommandFailed(f"{shlex.join(self._arguments)} ended with status {self.status}")

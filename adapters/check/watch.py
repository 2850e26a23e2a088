"""Watches an agent from outside: how it takes the end of its run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from raybolt.env.chat import ChatRequest, Completion
from raybolt.env.observed import ObservedCall
from raybolt.env.policy import AgentProgram, PolicyAbort, PolicyPort
from raybolt.env.task import Task


class WatchedProgram:
    """An agent's program; notes what it let through, and how often it was told that the run is over."""

    def __init__(self, program: AgentProgram) -> None:
        self._program = program
        self.left_by: BaseException | None = None
        """None if the agent returned, or has not ended."""
        self.num_refused = 0

    @property
    def name(self) -> str:
        return self._program.name

    async def run(self, task: Task, policy: PolicyPort) -> Any:
        try:
            return await self._program.run(task, _WatchedPort(policy, self))
        except BaseException as error:  # noted and passed on
            self.left_by = error
            raise

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Counts a refusal of the block."""
        try:
            yield
        except PolicyAbort:
            self.num_refused += 1
            raise


class _WatchedPort:
    """The policy as the agent sees it."""

    def __init__(self, policy: PolicyPort, program: WatchedProgram) -> None:
        self._policy = policy
        self._program = program

    def takes(self, request: ChatRequest) -> bool:
        return self._policy.takes(request)

    def observe(self, request: ChatRequest) -> AbstractContextManager[ObservedCall]:
        with self._program.counting():
            return self._policy.observe(request)

    async def complete(self, request: ChatRequest) -> Completion:
        with self._program.counting():
            return await self._policy.complete(request)

    def complete_sync(self, request: ChatRequest) -> Completion:
        with self._program.counting():
            return self._policy.complete_sync(request)

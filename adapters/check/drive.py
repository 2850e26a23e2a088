"""Runs a kit's agents on a scripted policy and keeps everything that can be seen of the run."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from raybolt.adapters.check.rules import RuleBroken, expect
from raybolt.adapters.check.watch import WatchedProgram
from raybolt.adapters.wrapped import WrappedAgent
from raybolt.env.chat import ChatRequest, Completion
from raybolt.env.limits import RunLimits
from raybolt.env.policy import PendingCall, RunEnd
from raybolt.env.recorder import SpanRecorder
from raybolt.env.run import AgentRun
from raybolt.env.task import Task
from raybolt.store.types import Span

Policy: TypeAlias = Callable[[ChatRequest], Completion | Awaitable[Completion]]

TEXT = "Tell me about the rain."
"""What the agents are asked, unless a check has a reason to ask something else."""
LIMITS = RunLimits(max_calls=12, max_seconds=60)
AT_ONCE_SECONDS = 10.0
"""For calls that should wait together to do so."""


@dataclass
class Ran:
    """One run: what was asked of the policy, what was recorded, how it ended."""

    adapter_module: str
    requests: list[ChatRequest] = field(default_factory=list)
    most_pending: int = 0
    end: RunEnd = field(default_factory=RunEnd)
    spans: list[Span] = field(default_factory=list)
    left_by: BaseException | None = None
    """What the agent's own code let through."""
    num_refused: int = 0
    """How often the agent was told that the run is over."""
    seconds: float = 0.0

    @property
    def roles(self) -> list[str]:
        return [request.role for request in self.requests]

    @property
    def result(self) -> Any:
        """What the agent returned. Raises RuleBroken if the run failed."""
        if self.end.failed:
            raise RuleBroken(
                "a run that succeeds",
                f"it failed with origin {self.end.origin}: {self.end.error}",
                "let the adapter's bind and run give the agent what it needs",
            ) from self.end.exception
        return self.end.result


class Stage:
    """A run in the making: the agent of a kit, a task, and the run that steps it."""

    def __init__(self, agent: WrappedAgent, text: str = TEXT, *, limits: RunLimits = LIMITS) -> None:
        self.program = WatchedProgram(agent.program())
        self.recorder = SpanRecorder("rollout", "attempt")
        self.run = AgentRun(
            self.program,
            Task("task", text),
            recorder=self.recorder,
            limits=limits,
            require_reward=False,
            trainable=agent.trainable,
        )
        self.ran = Ran(type(agent.adapter).__module__)
        self.started = time.monotonic()

    async def play(self, policy: Policy, *, at_once: int = 1) -> Ran:
        """Answers every call until the run ends; the first ones only once `at_once` wait together."""
        pending = await self._next(at_once)
        while not isinstance(pending, RunEnd):
            self.ran.most_pending = max(self.ran.most_pending, len(pending))
            for call in pending:
                self.ran.requests.append(call.request)
                reply = policy(call.request)
                completion = await reply if inspect.isawaitable(reply) else reply
                self.run.answer(call.call_id, completion)
            pending = await self.run.next()
        return self.over(pending)

    def over(self, end: RunEnd) -> Ran:
        """What is known once the run has ended."""
        self.ran.end = end
        self.ran.spans = self.recorder.spans
        self.ran.left_by = self.program.left_by
        self.ran.num_refused = self.program.num_refused
        self.ran.seconds = time.monotonic() - self.started
        return self.ran

    async def waiting(self, at_once: int = 1) -> list[PendingCall]:
        """The calls that wait for an answer. Raises RuleBroken if there are fewer, or the run has ended."""
        pending = await self._next(at_once)
        if isinstance(pending, RunEnd):
            self.over(pending)
            raise RuleBroken("a call that waits", self.ran.result, "let the policy answer the agent's calls")
        expect(
            len(pending) >= at_once,
            expected=f"{at_once} calls that wait together",
            seen=[call.role for call in pending],
            remedy="await the policy in the agent's own task or thread; hold no lock meanwhile",
        )
        return pending

    async def _next(self, at_once: int) -> list[PendingCall] | RunEnd:
        pending = await self.run.next()
        until = time.monotonic() + AT_ONCE_SECONDS
        while not isinstance(pending, RunEnd) and len(pending) < at_once and time.monotonic() < until:
            await asyncio.sleep(0.01)
            pending = await self.run.next()
        return pending


async def play(agent: WrappedAgent, policy: Policy, text: str = TEXT, *, at_once: int = 1) -> Ran:
    """The agent's run on `text`, every call answered by `policy`."""
    return await Stage(agent, text).play(policy, at_once=at_once)


def texts_of(request: ChatRequest) -> str:
    """Everything a request says: contents, names and arguments of tool calls, results."""
    parts: list[str] = []
    for message in request.messages:
        parts.append(message.content or "")
        parts.extend(f"{call.name} {call.arguments}" for call in message.tool_calls)
    return "\n".join(parts)

"""Runs of scripted agents with a scripted LLM, for unit tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from raybolt.env.chat import ChatMessage, ChatRequest, Completion
from raybolt.env.executor import run_in_thread
from raybolt.env.policy import PolicyPort, RunEnd
from raybolt.env.recorder import SpanRecorder
from raybolt.env.run import AgentRun
from raybolt.env.task import Task

HELLO = ChatRequest((ChatMessage("user", "hello"),))
TASK = Task("t1", "hello")


class Program:
    """An agent given by an async function of task and policy."""

    name = "scripted"

    def __init__(self, function: Callable[[Task, PolicyPort], Awaitable[Any]]) -> None:
        self._function = function

    async def run(self, task: Task, policy: PolicyPort) -> Any:
        return await self._function(task, policy)


class BlockingProgram:
    """An agent given by a plain function of task and policy."""

    name = "blocking"

    def __init__(self, function: Callable[[Task, PolicyPort], Any]) -> None:
        self._function = function

    async def run(self, task: Task, policy: PolicyPort) -> Any:
        return await run_in_thread(self._function, task, policy)


def new_run(function: Callable[..., Any], *, blocking: bool = False, **options: Any) -> AgentRun:
    program = BlockingProgram(function) if blocking else Program(function)
    return AgentRun(program, TASK, recorder=SpanRecorder("ro-1", "at-1"), **options)


def say(text: str) -> Completion:
    return Completion(ChatMessage("assistant", text))


async def finish(run: AgentRun, answer: Callable[[ChatRequest], Completion] = lambda _: say("hi")) -> RunEnd:
    """Answers every call until the run ends."""
    while not isinstance(pending := await run.next(), RunEnd):
        for call in pending:
            run.answer(call.call_id, answer(call.request))
    return pending

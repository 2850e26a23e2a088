"""A scripted policy and a way to run any agent on it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from ran import Ran
from tiny_engine import tiny_engine

from raybolt.adapters.wrap import WrappedAgent, wrap
from raybolt.env.chat import ChatMessage, ChatRequest, Completion, ToolCall
from raybolt.env.policy import RunEnd
from raybolt.env.recorder import SpanRecorder
from raybolt.env.run import AgentRun
from raybolt.env.task import Task

if TYPE_CHECKING:
    from raybolt.rl.engines.transformers import TransformersEngine

Policy = Callable[[ChatRequest], Completion]


def say(text: str) -> Completion:
    return Completion(ChatMessage("assistant", text))


def call(*calls: tuple[str, dict[str, Any]], content: str | None = None) -> Completion:
    """A reply that asks for tools, each as (name, arguments)."""
    tool_calls = tuple(
        ToolCall(f"call_{index}", name, json.dumps(arguments))
        for index, (name, arguments) in enumerate(calls)
    )
    return Completion(ChatMessage("assistant", content, tool_calls), "tool_calls")


def tool_then(text: str, *calls: tuple[str, dict[str, Any]]) -> Policy:
    """Asks for the tools first, and says `text` once there are tool results."""

    def policy(request: ChatRequest) -> Completion:
        return say(text) if any(m.role == "tool" for m in request.messages) else call(*calls)

    return policy


async def run_on(agent: Any, task_input: Any, policy: Policy, *, delay_s: float = 0.0, **options: Any) -> Ran:
    """Runs `agent` (wrapped here unless it is already) on a task, every call answered by `policy`."""
    wrapped = agent if isinstance(agent, WrappedAgent) else wrap(agent, **options)
    recorder = SpanRecorder("rollout", "attempt")
    run = AgentRun(
        wrapped.program(),
        Task("task", task_input),
        recorder=recorder,
        limits=wrapped.limits,
        require_reward=False,
        trainable=wrapped.trainable,
    )
    requests: list[ChatRequest] = []
    while not isinstance(pending := await run.next(), RunEnd):
        if delay_s:
            await asyncio.sleep(delay_s)
        for each in pending:
            requests.append(each.request)
            run.answer(each.call_id, policy(each.request))
    return Ran(pending, requests, recorder.spans)


@pytest.fixture
def agent_run() -> Callable[..., Awaitable[Ran]]:
    return run_on


@dataclass(frozen=True)
class Script:
    """Answers for a scripted policy."""

    say = staticmethod(say)
    call = staticmethod(call)
    tool_then = staticmethod(tool_then)


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture(scope="module")
def engine() -> Iterator[TransformersEngine]:
    """The tiny model, which really generates."""
    with tiny_engine() as engine:
        yield engine

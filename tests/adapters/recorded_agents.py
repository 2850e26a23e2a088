"""Runs of frameworks' agents in a store, to be replayed, and tools that count how often they really run."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import raybolt
from raybolt.adapters.wrapped import WrappedAgent
from raybolt.env.chat import ChatMessage, ChatRequest, Completion, ToolCall
from raybolt.env.policy import RunEnd
from raybolt.env.recorded import summary_of, task_metadata
from raybolt.env.recorder import SpanRecorder
from raybolt.env.run import AgentRun
from raybolt.env.task import Task
from raybolt.env.trajectory import Trajectory
from raybolt.store import LightningStore

TASK = Task("t1", "go")
executions: list[str] = []
_counting = threading.Lock()


def look(query: str) -> str:
    """Looks something up."""
    with _counting:  # frameworks run plain tools in threads
        executions.append(query)
        number = len(executions)
    raybolt.emit_reward(0.25)
    return f"{query} #{number}"


async def slow_look(query: str) -> str:
    """Looks something up, slowly."""
    return look(query)


def breaks(query: str) -> str:
    """Looks something up, and cannot."""
    executions.append(query)
    raise ValueError(f"{query} is closed ({len(executions)})")


def say(text: str) -> Completion:
    return Completion(ChatMessage("assistant", text))


def call_tool(name: str, arguments: dict[str, Any]) -> Completion:
    call = ToolCall(f"call_{name}", name, json.dumps(arguments))
    return Completion(ChatMessage("assistant", None, (call,)), "tool_calls")


def asks(*calls: tuple[str, str]) -> Callable[[ChatRequest], Completion]:
    """Asks for tools, each as (name, query), and then says what they answered."""

    def policy(request: ChatRequest) -> Completion:
        answers = [message.content or "" for message in request.messages if message.role == "tool"]
        if answers:
            return say(" and ".join(answers))
        wanted = [
            ToolCall(f"call_{index}", name, json.dumps({"query": query}))
            for index, (name, query) in enumerate(calls)
        ]
        return Completion(ChatMessage("assistant", None, tuple(wanted)), "tool_calls")

    return policy


async def record(
    store: LightningStore, agent: WrappedAgent, policy: Callable[[ChatRequest], Completion]
) -> tuple[str, Trajectory]:
    """A run in the store: its rollout's id, and what it left. Starts counting executions anew."""
    executions.clear()
    started = await store.start_rollout(TASK.input, task_id="t1", metadata=task_metadata(TASK))
    recorder = SpanRecorder(started.rollout_id, started.attempt.attempt_id)
    run = AgentRun(
        agent.program(),
        TASK,
        recorder=recorder,
        limits=agent.limits,
        reward=agent.reward,
        trainable=agent.trainable,
    )
    while not isinstance(pending := await run.next(), RunEnd):
        for call in pending:
            run.answer(call.call_id, policy(call.request))
    await store.add_many_spans(recorder.drain())
    status = "failed" if pending.failed else "succeeded"
    await store.update_attempt(
        started.rollout_id, "latest", status=status, metadata=summary_of(run.trajectory)
    )
    return started.rollout_id, run.trajectory


def wrapped(kit: Any, agent: Any, **options: Any) -> WrappedAgent:
    return kit.wrap(agent, reward=lambda *_: 1.0, **options)

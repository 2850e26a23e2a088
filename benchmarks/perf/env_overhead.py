"""What the whole environment adds to each LLM call of an agent, with an engine that takes no time.

Each agent runs two ways, alternately: alone, on a scripted model of its own framework, and in `AgentEnv`,
stepped with token ids made beforehand. The difference, divided by the number of LLM calls of a run, holds all
that raybolt does but generating: adapter, run, rendering and tokenising prompts (about 400 tokens, growing
with each turn), reading replies, spans, the trajectory. Times are those of the process's CPU clock, over all
threads, so that a busy machine disturbs them less.

    python -m raybolt.benchmarks.perf.env_overhead [--runs 200] [--report FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from rich.console import Console
from rich.table import Table

from raybolt.adapters.wrap import wrap
from raybolt.benchmarks.perf._agents import LangChain, canned, converse, openai_client
from raybolt.benchmarks.perf.adapter_overhead import NUM_CALLS, Run, answering
from raybolt.benchmarks.perf.adapter_overhead import compare as compare_runs
from raybolt.env.agent_env import AgentEnv
from raybolt.env.chat import ChatMessage, ChatRequest, Completion, TokenIds, ToolCall, ToolSpec
from raybolt.env.codec import ChatCodec, codec_for
from raybolt.env.executor import run_in_thread
from raybolt.env.policy import AgentProgram, PolicyPort, Sampled
from raybolt.env.task import Task

TASK = Task("overhead", "How many singers are there?")
SCHEMA = "\n".join(f"singer_{number}(id, name, country, age, song_name, is_male)" for number in range(20))
TOOL = ToolSpec("run_sql", "Runs SQL", {"type": "object", "properties": {"query": {"type": "string"}}})
LIMITS_MS = {"python": 0.3, "python, blocking": 0.3, "langchain": 2.0}
"""What the env may add to a call; the openai client is measured and has no limit of its own."""

ask_for_tool = answering(NUM_CALLS)
Llm = Callable[[ChatRequest], Awaitable[Completion]]


async def sql_agent(llm: Llm) -> None:
    """A plain Python agent: asks, uses the tool as long as it is asked to."""
    messages = [ChatMessage("system", f"You write SQL.\n{SCHEMA}"), ChatMessage("user", TASK.input)]
    while True:
        reply = (await llm(ChatRequest(tuple(messages), (TOOL,)))).message
        messages.append(reply)
        if not reply.tool_calls:
            return
        messages.append(ChatMessage("tool", '[["3"]]', tool_call_id=reply.tool_calls[0].id))


def blocking_sql_agent(llm: Callable[[ChatRequest], Completion]) -> None:
    """The same, as blocking code."""

    async def at_once(request: ChatRequest) -> Completion:
        return llm(request)

    try:
        sql_agent(at_once).send(None)  # never suspends
    except StopIteration:
        return


class Python:
    name = "python"

    async def run(self, task: Task, policy: PolicyPort) -> None:
        await sql_agent(policy.complete)


class BlockingPython:
    name = "python, blocking"

    async def run(self, task: Task, policy: PolicyPort) -> None:
        await run_in_thread(blocking_sql_agent, policy.complete_sync)


class Engine:
    """Gives replies made beforehand: a tool call, and an answer at the last call of a run."""

    def __init__(self, codec: ChatCodec) -> None:
        request = ChatRequest((ChatMessage("user", "?"),), (TOOL,))
        use = ChatMessage("assistant", None, (ToolCall("c", "run_sql", '{"query": "SELECT 1"}'),))
        self._use = self._sampled(codec.encode_reply(request, use))
        self._say = self._sampled(codec.encode_reply(request, ChatMessage("assistant", "3")))

    def reply(self, turn: int, uses_tools: bool) -> Sampled:
        return self._use if uses_tools and turn < NUM_CALLS - 1 else self._say

    @staticmethod
    def _sampled(ids: TokenIds) -> Sampled:
        return Sampled(ids, np.zeros(len(ids), dtype=np.float32), weights_version=1, temperature=1.0)


def stepped(
    program: AgentProgram, codec: ChatCodec, *, uses_tools: bool = True
) -> Callable[[], Awaitable[None]]:
    """One episode of the agent in `AgentEnv`."""
    engine = Engine(codec)

    async def run() -> None:
        env = AgentEnv(program, codec=codec, reward=no_reward)
        observations, _ = await env.areset(TASK)
        for turn in range(NUM_CALLS):
            action = engine.reply(turn, uses_tools)
            observations, *_ = await env.astep(dict.fromkeys(observations, action))
        if env.end is None or env.end.failed or len(env.trajectory.calls) != NUM_CALLS:
            raise RuntimeError(f"the run went wrong: {env.end}")

    return run


async def compare(native: Run, ours: Run, num_runs: int) -> dict[str, float]:
    """CPU milliseconds per LLM call: native, through raybolt, and what that adds."""
    native_ms, ours_ms = (run_ms / NUM_CALLS for run_ms in await compare_runs(native, ours, num_runs))
    return {
        "native_ms": round(native_ms, 3),
        "raybolt_ms": round(ours_ms, 3),
        "added_ms": round(ours_ms - native_ms, 3),
    }


async def no_reward(*_: Any) -> float:
    return 0.0


async def at_once(request: ChatRequest) -> Completion:
    return ask_for_tool(request)


async def native_blocking() -> None:
    await run_in_thread(blocking_sql_agent, ask_for_tool)


async def measure(num_runs: int) -> dict[str, dict[str, float]]:
    codec = codec_for("tiny")
    mock_client, real_client = (
        openai_client(transport) for transport in (httpx.MockTransport(canned), httpx.AsyncHTTPTransport())
    )

    async def openai_agent(question: str) -> None:
        await converse(real_client, NUM_CALLS)

    langchain = LangChain()
    openai_program = wrap(openai_agent).program()
    pairs = {
        "python": (lambda: sql_agent(at_once), stepped(Python(), codec)),
        "python, blocking": (native_blocking, stepped(BlockingPython(), codec)),
        "python, openai client": (
            lambda: converse(mock_client, NUM_CALLS),
            stepped(openai_program, codec, uses_tools=False),
        ),
        "langchain": (
            lambda: langchain.native(NUM_CALLS),
            stepped(wrap(langchain.agent(NUM_CALLS), framework="langchain").program(), codec),
        ),
    }
    return {name: await compare(native, ours, num_runs) for name, (native, ours) in pairs.items()}


def table(figures: dict[str, dict[str, float]]) -> Table:
    result = Table("agent", "alone", "in AgentEnv", "added", "limit", title="ms of CPU time per LLM call")
    for name, row in figures.items():
        limit = LIMITS_MS.get(name)
        result.add_row(
            name,
            *(f"{row[column]:.3f}" for column in ("native_ms", "raybolt_ms", "added_ms")),
            "" if limit is None else f"{limit:.1f}",
        )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--report", type=Path, help="where to write the figures as JSON")
    arguments = parser.parse_args()
    figures = asyncio.run(measure(arguments.runs))
    Console().print(table(figures))
    if arguments.report:
        machine = {"python": platform.python_version(), "cpus": os.cpu_count(), "machine": platform.machine()}
        report = {"runs": arguments.runs, "calls_per_run": NUM_CALLS, "machine": machine, "figures": figures}
        arguments.report.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()

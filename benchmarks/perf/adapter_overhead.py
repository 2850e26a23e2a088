"""What an adapter adds to a run and to each LLM call of an agent, beyond the framework's own time.

Each agent runs two ways, alternately: on a scripted model of its own framework, and through `AgentRun` on a
scripted policy that answers at once with the same replies. The difference is what raybolt adds: converting
requests and replies, stepping the run, recording spans of calls and tools. A run of one call and a longer one
tell the cost of a run from that of a further call with its tool. Times are those of the process's CPU clock,
all threads together, so that a busy machine disturbs them less; the lower quartile of all runs is taken.

    python -m raybolt.benchmarks.perf.adapter_overhead [--runs 100] [--only crewai] [--report FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import logging
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from raybolt.adapters.wrap import wrap
from raybolt.benchmarks.perf._agents import QUERY, QUESTION, SIDES, Side
from raybolt.env.chat import ChatMessage, ChatRequest, Completion, ToolCall
from raybolt.env.policy import RunEnd
from raybolt.env.recorder import SpanRecorder
from raybolt.env.run import AgentRun
from raybolt.env.task import Task

NUM_CALLS = 5  # LLM calls of the longer run; all but the last ask for the tool
NUM_AT_ONCE = 32
TASK = Task("overhead", QUESTION)
LIMIT_MS, LIMIT_SHARE = 1.0, 0.05
"""What may be added: this many milliseconds, or this share of the framework's own time, whichever is more."""
Run = Callable[[], Awaitable[Any]]


def answering(num_calls: int) -> Callable[[ChatRequest], Completion]:
    """A policy that asks for the tool until the last call of a run."""

    def policy(request: ChatRequest) -> Completion:
        turn = sum(message.role == "assistant" for message in request.messages)
        if turn >= num_calls - 1 or not request.tools:
            return Completion(ChatMessage("assistant", "3"))
        call = ToolCall(f"c{turn}", "run_sql", QUERY)
        return Completion(ChatMessage("assistant", None, (call,)), "tool_calls")

    return policy


def through_raybolt(side: Side, num_calls: int) -> Run:
    """One run of the wrapped agent on a scripted policy."""
    program = wrap(side.agent(num_calls), framework=side.name).program()
    policy = answering(num_calls)

    async def run() -> None:
        stepped = AgentRun(program, TASK, recorder=SpanRecorder("rollout", "attempt"), require_reward=False)
        num_answered = 0
        while not isinstance(pending := await stepped.next(), RunEnd):
            for call in pending:
                stepped.answer(call.call_id, policy(call.request))
                num_answered += 1
        if pending.failed or num_answered != num_calls:
            raise RuntimeError(f"{num_answered} of {num_calls} calls; {pending.error}")

    return run


async def seconds_of(run: Run) -> float:
    start = time.process_time()
    await run()
    return time.process_time() - start


async def compare(native: Run, ours: Run, num_runs: int) -> tuple[float, float]:
    """CPU milliseconds of a run: native, and through raybolt."""
    for _ in range(5):  # imports, caches
        await native()
        await ours()
    pairs = [(await seconds_of(native), await seconds_of(ours)) for _ in range(num_runs)]
    native_ms, ours_ms = (statistics.quantiles(times, n=4)[0] * 1000 for times in zip(*pairs, strict=True))
    return native_ms, ours_ms


async def at_once(run: Run) -> None:
    await asyncio.gather(*(run() for _ in range(NUM_AT_ONCE)))


async def measure(side: Side, num_runs: int) -> dict[str, float]:
    """The figures of one framework, in CPU milliseconds."""

    def pair(num_calls: int) -> tuple[Run, Run]:
        return lambda: side.native(num_calls), through_raybolt(side, num_calls)

    short_native, short_ours = await compare(*pair(1), num_runs)
    long_native, long_ours = await compare(*pair(NUM_CALLS), num_runs)
    native, ours = pair(NUM_CALLS)
    many_native, many_ours = (
        milliseconds / NUM_AT_ONCE
        for milliseconds in await compare(
            lambda: at_once(native), lambda: at_once(ours), max(2, num_runs // 8)
        )
    )
    figures = {
        "native_run_ms": short_native,
        "added_run_ms": short_ours - short_native,
        "native_further_call_ms": (long_native - short_native) / (NUM_CALLS - 1),
        "added_further_call_ms": ((long_ours - long_native) - (short_ours - short_native)) / (NUM_CALLS - 1),
        "native_long_run_ms": long_native,
        "added_long_run_ms": long_ours - long_native,
        "native_at_once_ms": many_native,
        "added_at_once_ms": many_ours - many_native,
    }
    return {name: round(value, 3) for name, value in figures.items()}


def per_call(figures: dict[str, float]) -> tuple[float, float, bool]:
    """Of the longer run: native and added per LLM call, and whether that is within the limit."""
    native = figures["native_long_run_ms"] / NUM_CALLS
    added = figures["added_long_run_ms"] / NUM_CALLS
    return native, added, added <= max(LIMIT_MS, LIMIT_SHARE * native)


def table(figures: dict[str, dict[str, float]]) -> Table:
    result = Table(title="CPU milliseconds: the framework's own, + added by raybolt")
    columns = ("", "run of 1 call", "further call", f"per call, run of {NUM_CALLS}", "aim")
    for column in (*columns, f"run of {NUM_CALLS}", f"the same, {NUM_AT_ONCE} at once"):
        result.add_column(column)
    for name, row in figures.items():
        native, added, kept = per_call(row)
        parts = [
            f"{row[f'native_{part}_ms']:.2f} + {row[f'added_{part}_ms']:.2f}"
            for part in ("run", "further_call", "long_run", "at_once")
        ]
        verdict = "kept" if kept else "missed"
        result.add_row(name, *parts[:2], f"{native:.2f} + {added:.2f}", verdict, *parts[2:])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--only", help="one framework")
    parser.add_argument("--report", type=Path, help="where to write the figures as JSON")
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # frameworks warn of scripted models
    load = os.getloadavg()
    chosen = [side for side in SIDES if options.only in (None, side.name)]
    figures = {side.name: asyncio.run(measure(side(), options.runs)) for side in chosen}
    Console(width=140).print(table(figures))
    if options.report:
        from raybolt.benchmarks.report import versions, write_json

        when = datetime.date.today().isoformat()
        machine = {"cores": os.cpu_count(), "load_before": load, "load_after": os.getloadavg(), "date": when}
        settings = {"runs": options.runs, "calls": NUM_CALLS, "at_once": NUM_AT_ONCE}
        report = {"figures": figures, "settings": settings, "machine": machine, "versions": versions()}
        write_json(options.report, report)


if __name__ == "__main__":
    main()

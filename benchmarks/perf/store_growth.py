"""What the store costs as it grows: from 10,000 to 1,000,000 spans of 900 token ids, journalled.

At each size a process fills a folder; then another opens it, as after a restart, and tells how long that took
and the CPU microseconds of adding a span (in batches of 20), of reading an attempt of 20 that is in memory,
of reading one that the journal alone remembers, and of taking a rollout from the queue and ending it: medians
of 5 rounds of 100 each. Of the first process come its resident memory and the folder's size.

    python -m raybolt.benchmarks.perf.store_growth [--sizes 10000 100000 1000000] [--report FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from raybolt.benchmarks.perf.store_comparison import make_span
from raybolt.store import AttemptedRollout, LocalStore

PER_ATTEMPT, PER_ROUND, ROUNDS = 20, 100, 5


async def fill(store: LocalStore, num_spans: int) -> None:
    """Ended rollouts with 20 spans each."""
    for _ in range(num_spans // PER_ATTEMPT):
        started = await store.start_rollout({"n": 1})
        await store.add_many_spans([make_span(started.attempt, n) for n in range(PER_ATTEMPT)])
        await store.update_attempt(started.rollout_id, started.attempt.attempt_id, status="succeeded")


async def measure_filling(folder: str, num_spans: int) -> dict[str, float]:
    """What spans take of memory and disk."""
    before = _resident()
    async with LocalStore(folder) as store:
        await fill(store, num_spans)
        resident = _resident() - before
    size = sum(path.stat().st_size for path in Path(folder).rglob("*"))
    return {"resident_bytes_per_span": resident / num_spans, "folder_bytes_per_span": size / num_spans}


async def measure_using(folder: str) -> dict[str, float]:
    """The costs of a store that holds what the folder does."""
    start = time.perf_counter()
    async with LocalStore(folder) as store:
        opening = time.perf_counter() - start
        count = PER_ROUND * ROUNDS
        oldest = [rollout.rollout_id for rollout in await store.query_rollouts(limit=count)]
        started = [await store.start_rollout({"n": 1}) for _ in range(count)]
        batches = [[make_span(each.attempt, n) for n in range(PER_ATTEMPT)] for each in started]
        return {
            "open_s": opening,
            "add_us": await cpu_us(lambda index: store.add_many_spans(batches[index]), per=PER_ATTEMPT),
            "read_memory_us": await cpu_us(lambda index: store.query_spans(started[index].rollout_id)),
            "read_journal_us": await cpu_us(lambda index: store.query_spans(oldest[index])),
            "queue_us": await cpu_us(lambda index: _one_rollout(store)),
        }


async def cpu_us(work: Callable[[int], Coroutine[Any, Any, Any]], per: int = 1) -> float:
    """CPU microseconds of the process for one of `per` things: the median of the rounds."""
    costs = []
    for first in range(0, PER_ROUND * ROUNDS, PER_ROUND):
        start = time.process_time()
        for index in range(first, first + PER_ROUND):
            await work(index)
        costs.append((time.process_time() - start) / PER_ROUND / per * 1e6)
    return median(costs)


async def _one_rollout(store: LocalStore) -> None:
    await store.enqueue_rollout({"n": 1})
    taken: AttemptedRollout | None = await store.dequeue_rollout("worker")
    assert taken is not None
    await store.update_attempt(taken.rollout_id, taken.attempt.attempt_id, status="succeeded")


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(num_spans: int) -> dict[str, float]:
    """The costs at this size, from two processes, so that each has memory of its own."""
    with tempfile.TemporaryDirectory() as folder:
        filled = _in_a_process("--fill", folder, "--sizes", str(num_spans))
        return {**_in_a_process("--use", folder), **filled}


def _in_a_process(*arguments: str) -> dict[str, float]:
    command = [sys.executable, "-m", __spec__.name, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith("COSTS "):
            costs: dict[str, float] = json.loads(line.removeprefix("COSTS "))
            return costs
    raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")


def main() -> None:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--report", type=Path)
    parser.add_argument("--fill", help=argparse.SUPPRESS)
    parser.add_argument("--use", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fill:
        print("COSTS", json.dumps(asyncio.run(measure_filling(arguments.fill, *arguments.sizes))))
        return
    if arguments.use:
        print("COSTS", json.dumps(asyncio.run(measure_using(arguments.use))))
        return
    load_before = os.getloadavg()[0]
    found = {str(size): measure(size) for size in arguments.sizes}
    table = Table("spans", *found)
    for name in next(iter(found.values())):
        values = [costs[name] for costs in found.values()]
        table.add_row(name, *(f"{value:,.3f}" if value < 10 else f"{value:,.0f}" for value in values))
    Console().print(table)
    if arguments.report:
        meta = {"date": date.today().isoformat(), "cpus": os.cpu_count(), "loadavg_before": load_before}
        arguments.report.write_text(json.dumps({**meta, "costs": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""What the store costs as it grows: from 10,000 to 1,000,000 spans of 900 token ids, journalled.

At each size, on a store that already holds so many: CPU microseconds of adding a span (in batches of 20), of
reading an attempt of 20 that is in memory, of reading one that the journal alone remembers, and of taking a
rollout from the queue and ending it; resident memory; the folder's size; and how long opening it takes.
Each process measures one size, so that memory is its own.

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
from typing import Any

from rich.console import Console
from rich.table import Table

from raybolt.benchmarks.perf.store_comparison import make_span
from raybolt.store import AttemptedRollout, LocalStore

PER_ATTEMPT, REPEATS = 20, 100


async def fill(store: LocalStore, num_spans: int) -> None:
    """Ended rollouts with 20 spans each."""
    for _ in range(num_spans // PER_ATTEMPT):
        started = await store.start_rollout({"n": 1})
        await store.add_many_spans([make_span(started.attempt, n) for n in range(PER_ATTEMPT)])
        await store.update_attempt(started.rollout_id, started.attempt.attempt_id, status="succeeded")


async def cpu_us(work: Callable[[int], Coroutine[Any, Any, Any]], per: int = 1) -> float:
    """CPU microseconds of the process for one of `per` things, over `REPEATS` calls."""
    start = time.process_time()
    for index in range(REPEATS):
        await work(index)
    return (time.process_time() - start) / REPEATS / per * 1e6


async def measure(folder: str, num_spans: int) -> dict[str, float]:
    """The costs at this size."""
    before = _resident()
    async with LocalStore(folder) as store:
        await fill(store, num_spans)
        resident = _resident() - before
        started = [await store.start_rollout({"n": 1}) for _ in range(REPEATS)]
        batches = [[make_span(each.attempt, n) for n in range(PER_ATTEMPT)] for each in started]
        oldest = [rollout.rollout_id for rollout in await store.query_rollouts(limit=REPEATS)]
        costs = {
            "add_us": await cpu_us(lambda index: store.add_many_spans(batches[index]), per=PER_ATTEMPT),
            "read_recent_us": await cpu_us(lambda index: store.query_spans(started[index].rollout_id)),
            "read_oldest_us": await cpu_us(lambda index: store.query_spans(oldest[index])),
            "queue_us": await cpu_us(lambda index: _one_rollout(store)),
        }
    size = sum(path.stat().st_size for path in Path(folder).rglob("*"))
    start = time.perf_counter()
    async with LocalStore(folder):
        opening = time.perf_counter() - start
    return {
        **costs,
        "open_s": opening,
        "resident_bytes_per_span": resident / num_spans,
        "folder_bytes_per_span": size / num_spans,
    }


async def _one_rollout(store: LocalStore) -> None:
    await store.enqueue_rollout({"n": 1})
    taken: AttemptedRollout | None = await store.dequeue_rollout("worker")
    assert taken is not None
    await store.update_attempt(taken.rollout_id, taken.attempt.attempt_id, status="succeeded")


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--report", type=Path)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        with tempfile.TemporaryDirectory() as folder:
            print("COSTS", json.dumps(asyncio.run(measure(folder, arguments.worker))))
        return
    found = {str(size): _in_a_process(size) for size in arguments.sizes}
    table = Table("spans", *next(iter(found.values())))
    for size, costs in found.items():
        table.add_row(size, *(f"{value:,.3f}" if value < 10 else f"{value:,.0f}" for value in costs.values()))
    Console().print(table)
    if arguments.report:
        report = {"date": date.today().isoformat(), "cpus": os.cpu_count(), "costs": found}
        arguments.report.write_text(json.dumps(report, indent=2) + "\n")


def _in_a_process(size: int) -> dict[str, float]:
    command = [sys.executable, "-m", __spec__.name, "--worker", str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith("COSTS "):
            costs: dict[str, float] = json.loads(line.removeprefix("COSTS "))
            return costs
    raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    main()

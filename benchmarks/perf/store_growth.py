"""What the store costs as it grows: from 10,000 to 1,000,000 spans of 900 token ids, journalled.

At each size a process fills a folder; then another opens it, as after a restart, and tells how long that took
and the CPU microseconds of adding a span (in batches of 20), of reading an attempt of 20 that is in memory,
of reading one that the journal alone remembers (both with all attributes), and of taking a rollout from the
queue and ending it: medians of 5 rounds of 100 each. The sizes take their rounds in turn, as the machine's
speed may change meanwhile. Of the first process come its resident memory and the folder's size.

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
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from raybolt.benchmarks.perf.store_comparison import make_span
from raybolt.store import AttemptedRollout, LocalStore, Span

PER_ATTEMPT, PER_ROUND, ROUNDS = 20, 100, 5
SETTLING_SECONDS = 0.2
"""How long what a store does after it has answered may take, which belongs to its costs."""


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


async def measure_using(folder: str) -> None:
    """Tells the costs of a store that holds what the folder does: of opening it, then of round after round.

    Each waits for a line of the input.
    """
    input()
    start = time.perf_counter()
    async with LocalStore(folder) as store:
        _tell({"open_s": time.perf_counter() - start})
        count = PER_ROUND * ROUNDS
        oldest = [rollout.rollout_id for rollout in await store.query_rollouts(limit=count)]
        started = [await store.start_rollout({"n": 1}) for _ in range(count)]
        batches = [[make_span(each.attempt, n) for n in range(PER_ATTEMPT)] for each in started]
        for first, _ in zip(range(0, count, PER_ROUND), sys.stdin, strict=False):
            _tell(await _one_round(store, slice(first, first + PER_ROUND), oldest, started, batches))


async def _one_round(
    store: LocalStore,
    part: slice,
    oldest: list[str],
    started: list[AttemptedRollout],
    batches: list[list[Span]],
) -> dict[str, float]:
    async def read(rollout_id: str) -> list[Any]:
        """A span that was read decodes its attributes when they are looked at."""
        return [span.attributes for span in await store.query_spans(rollout_id)]

    return {
        "add_us": await cpu_us(store.add_many_spans, batches[part], per=PER_ATTEMPT),
        "read_memory_us": await cpu_us(read, [each.rollout_id for each in started[part]]),
        "read_journal_us": await cpu_us(read, oldest[part]),
        "queue_us": await cpu_us(lambda _: _one_rollout(store), range(PER_ROUND)),
    }


async def cpu_us(work: Callable[[Any], Awaitable[Any]], on: Iterable[Any], per: int = 1) -> float:
    """CPU microseconds of the process for one of `per` things, of which each call does so many."""
    start = time.process_time()
    count = 0
    for each in on:
        await work(each)
        count += per
    await asyncio.sleep(SETTLING_SECONDS)
    return (time.process_time() - start) / count * 1e6


async def _one_rollout(store: LocalStore) -> None:
    await store.enqueue_rollout({"n": 1})
    taken: AttemptedRollout | None = await store.dequeue_rollout("worker")
    assert taken is not None
    await store.update_attempt(taken.rollout_id, taken.attempt.attempt_id, status="succeeded")


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _tell(costs: dict[str, float]) -> None:
    print("COSTS", json.dumps(costs), flush=True)


def measure(sizes: list[int]) -> dict[int, dict[str, float]]:
    """The costs at each size, from two processes, so that each has memory of its own."""
    rounds: dict[int, list[dict[str, float]]] = {size: [] for size in sizes}
    with ExitStack() as stack:
        folders = {size: stack.enter_context(tempfile.TemporaryDirectory()) for size in sizes}
        filled = {size: _ask_one("--fill", folder, "--sizes", str(size)) for size, folder in folders.items()}
        users = {size: stack.enter_context(_process("--use", folder)) for size, folder in folders.items()}
        opened = {size: ask() for size, ask in users.items()}
        for _ in range(ROUNDS):
            for size, ask in users.items():
                rounds[size].append(ask())
    return {size: {**opened[size], **_medians(rounds[size]), **filled[size]} for size in sizes}


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: median(each[name] for each in rounds) for name in rounds[0]}


def _ask_one(*arguments: str) -> dict[str, float]:
    with _process(*arguments) as ask:
        return ask()


@contextmanager
def _process(*arguments: str) -> Iterator[Callable[[], dict[str, float]]]:
    """Another process of this file, in the form of a function that asks it for its next costs."""
    command = [sys.executable, "-m", __spec__.name, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        requests, answers = process.stdin, process.stdout

        def ask() -> dict[str, float]:
            print(file=requests, flush=True)
            for line in answers:
                if line.startswith("COSTS "):
                    costs: dict[str, float] = json.loads(line.removeprefix("COSTS "))
                    return costs
            raise SystemExit(f"{' '.join(command)} failed")

        yield ask


def main() -> None:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--report", type=Path)
    parser.add_argument("--fill", help=argparse.SUPPRESS)
    parser.add_argument("--use", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fill:
        _tell(asyncio.run(measure_filling(arguments.fill, *arguments.sizes)))
        return
    if arguments.use:
        asyncio.run(measure_using(arguments.use))
        return
    least = PER_ATTEMPT * PER_ROUND * ROUNDS
    if min(arguments.sizes) < least:
        parser.error(
            f"--sizes has {min(arguments.sizes)}; give {least} or more, so that each read finds its own"
        )
    load_before = os.getloadavg()[0]
    found = {str(size): costs for size, costs in measure(arguments.sizes).items()}
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

"""RayStore with 1, 2 and 4 shards, and LocalStore beside it, in one run: what more shards are worth.

Writers add spans of 900 token ids at the same time: `add_span` one after another and 64 at once,
`add_many_spans` by 20. For RayStore each writer is a process (a Ray actor); a LocalStore belongs to one
process, where the writers take turns on one event loop. Then every group is taken, and read as a learner
would. All stores journal to disk, and take turns in each repetition. Figures are medians: spans a second of
wall clock, all writers together, and CPU seconds for 1000 spans, of the store's processes, the writers', and
the one that takes and reads (for LocalStore all of these are one, told as the store's).

    python -m raybolt.benchmarks.perf.store_shards [--shards 1 2 4] [--writers 2] [--report FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import ray
from rich.console import Console
from rich.table import Table

from raybolt.benchmarks.perf.store_comparison import WAYS_OF_ADDING, make_span
from raybolt.benchmarks.perf.store_iteration import shard_cpu_ms
from raybolt.benchmarks.report import versions, write_json
from raybolt.store import GroupHandle, LightningStore, LocalStore, RayStore, Span, read_group

SPANS_PER_ROLLOUT, ROLLOUTS_PER_GROUP = 20, 4
SPANS_PER_GROUP = SPANS_PER_ROLLOUT * ROLLOUTS_PER_GROUP
WARM_UP_GROUPS = 16
"""Per writer: enough for each shard to get some."""
PROCESSES = ("store", "writers", "reader")
"""Whose CPU time is told."""
Figures = dict[str, float]
Every = Callable[..., Awaitable[Any]]
"""Calls a method of all writers at once, with the arguments that follow its name."""
Cpu = Callable[[], Awaitable[dict[str, float]]]
"""CPU seconds used so far, by whose processes they are."""


class Writer:
    """Has rollouts of its own and adds their spans, which are made beforehand."""

    def __init__(self, store: LightningStore, name: str) -> None:
        self._store = store
        self._name = name
        self._spans: list[Span] = []

    async def begin(self, label: str, num_groups: int) -> None:
        """Starts as many groups of rollouts as asked for."""
        self._spans = []
        for index in range(num_groups):
            group_id = f"{label}/{self._name}/{index}"
            await self._store.declare_group(group_id, ROLLOUTS_PER_GROUP)
            for _ in range(ROLLOUTS_PER_GROUP):
                attempt = (await self._store.start_rollout({"n": 1}, group_id=group_id)).attempt
                self._spans += [make_span(attempt, number) for number in range(SPANS_PER_ROLLOUT)]

    async def add(self, way: str) -> None:
        await WAYS_OF_ADDING[way](self._store, self._spans)

    async def end(self) -> None:
        """Ends the rollouts, which completes their groups."""
        attempts = {span.attempt_id: span.rollout_id for span in self._spans}
        for attempt_id, rollout_id in attempts.items():
            await self._store.update_attempt(rollout_id, attempt_id, status="succeeded")

    async def cpu_s(self) -> float:
        """CPU time of this process so far."""
        return time.process_time()


async def measure(
    store: LightningStore, every: Every, cpu: Cpu, *, num_writers: int, num_groups: int
) -> dict[str, Figures]:
    """The figures of each operation, for as many groups per writer and way of adding."""
    figures: dict[str, Figures] = {}

    async def timed(operation: str, num_spans: int, work: Callable[[], Awaitable[Any]]) -> Any:
        before, start = await cpu(), time.perf_counter()
        result = await work()
        figures[operation] = {"spans_per_s": num_spans / (time.perf_counter() - start)}
        for whose, used in (await cpu()).items():
            figures[operation][f"{whose}_cpu_s_per_1000"] = 1000 * (used - before[whose]) / num_spans
        return result

    async def add(way: str) -> None:
        await every("add", way)

    await every("begin", "warm-up", WARM_UP_GROUPS)
    for way in WAYS_OF_ADDING:  # after the first the store has the spans already, which warms up the writers
        await add(way)
    await every("end")
    await _read(await store.take_groups(num_writers * WARM_UP_GROUPS))
    num_spans = num_writers * num_groups * SPANS_PER_GROUP
    for way in WAYS_OF_ADDING:
        await every("begin", way, num_groups)
        await timed(way, num_spans, partial(add, way))
        await every("end")
    in_all = len(WAYS_OF_ADDING) * num_spans
    handles = await timed("take_groups", in_all, partial(store.take_groups, in_all))
    num_read = await timed("read_group", in_all, partial(_read, handles))
    assert num_read == in_all, f"{num_read} spans of {in_all} were read"
    return figures


async def _read(handles: Sequence[GroupHandle]) -> int:
    """Reads the groups; returns how many spans they have."""
    return sum(len(data.spans) for handle in handles for data in read_group(handle).rollouts)


def measure_ray(num_shards: int, *, num_writers: int, num_groups: int) -> dict[str, Figures]:
    """The figures of a RayStore, whose shards and writers are processes of their own."""
    with tempfile.TemporaryDirectory() as folder:
        store = RayStore.create(folder, name=f"perf-{os.urandom(4).hex()}", num_shards=num_shards)
        actor = ray.remote(num_cpus=0)(Writer)
        writers = [actor.remote(store, str(index)) for index in range(num_writers)]

        async def every(method: str, *arguments: Any) -> list[Any]:
            return await asyncio.gather(*(getattr(each, method).remote(*arguments) for each in writers))

        async def cpu() -> dict[str, float]:
            used = {"store": shard_cpu_ms(store) / 1000, "writers": sum(await every("cpu_s"))}
            return {**used, "reader": time.process_time()}

        async def run() -> dict[str, Figures]:
            figures = await measure(store, every, cpu, num_writers=num_writers, num_groups=num_groups)
            await store.destroy()
            return figures

        figures = asyncio.run(run())
        for writer in writers:
            ray.kill(writer)
    return figures


def measure_local(*, num_writers: int, num_groups: int) -> dict[str, Figures]:
    """The figures of a LocalStore, on whose event loop the writers run."""

    async def cpu() -> dict[str, float]:
        return {"store": time.process_time()}

    async def run(folder: str) -> dict[str, Figures]:
        async with LocalStore(folder) as store:
            writers = [Writer(store, str(index)) for index in range(num_writers)]

            async def every(method: str, *arguments: Any) -> list[Any]:
                return await asyncio.gather(*(getattr(each, method)(*arguments) for each in writers))

            return await measure(store, every, cpu, num_writers=num_writers, num_groups=num_groups)

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(run(folder))


def compare(
    shards: Sequence[int], *, num_writers: int, num_groups: int, repeats: int
) -> dict[str, dict[str, Figures]]:
    """Medians over the repetitions, by store and operation."""
    size = {"num_writers": num_writers, "num_groups": num_groups}
    found: dict[str, list[dict[str, Figures]]] = {}
    for _ in range(repeats):
        found.setdefault("LocalStore", []).append(measure_local(**size))
        for num_shards in shards:
            runs = found.setdefault(f"RayStore, {num_shards}", [])
            runs.append(measure_ray(num_shards, **size))
    return {
        name: {
            operation: {figure: median(run[operation][figure] for run in runs) for figure in figures}
            for operation, figures in runs[0].items()
        }
        for name, runs in found.items()
    }


def main() -> None:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--writers", type=int, default=2)
    parser.add_argument(
        "--groups", type=int, default=20, help="groups per writer and way of adding, 80 spans each"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--report", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    load_before = os.getloadavg()[0]
    ray.init(
        address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, configure_logging=False
    )
    stores = compare(
        options.shards, num_writers=options.writers, num_groups=options.groups, repeats=options.repeats
    )
    ray.shutdown()
    table = Table(
        "store", "operation", "spans/s", *PROCESSES, title="CPU seconds for 1000 spans on the right"
    )
    for name, operations in stores.items():
        for operation, figures in operations.items():
            used = [figures.get(f"{whose}_cpu_s_per_1000") for whose in PROCESSES]
            cells = ["" if seconds is None else f"{seconds:.3f}" for seconds in used]
            table.add_row(name, operation, f"{figures['spans_per_s']:,.0f}", *cells)
    Console().print(table)
    if options.report:
        write_json(
            options.report,
            {
                "date": date.today().isoformat(),
                "command": shlex.join(["python", "-m", __spec__.name, *sys.argv[1:]]),
                "cpus": os.cpu_count(),
                "loadavg_before": load_before,
                "writers": options.writers,
                "spans_per_writer": options.groups * SPANS_PER_GROUP,
                "repeats": options.repeats,
                "stores": stores,
                "versions": versions(),
            },
        )


if __name__ == "__main__":
    main()

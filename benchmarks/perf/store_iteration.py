"""What the store costs a training iteration: 24 groups of 8 rollouts, 10 spans each, through RayStore.

Runner actors with 16 runs at once dequeue, record and end rollouts; the driver declares, enqueues and takes
groups, then reads them as a learner would. Half of the spans carry 400 prompt ids, 50 response ids and their
log-probabilities. Wall times are medians over the iterations after the first. CPU time is that of the
shards' processes, all threads, so that a busy machine disturbs it less; "direct" is the CPU time of the same
work on a LocalStore with a journal, call by call, where no process boundary is crossed.

    python -m raybolt.benchmarks.perf.store_iteration [--runners 2] [--shards 1] [--report FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np
import ray
from rich.console import Console
from rich.table import Table

from raybolt.env.report import report
from raybolt.store import (
    Attempt,
    EnqueueRolloutRequest,
    GroupHandle,
    LightningStore,
    LocalStore,
    RayStore,
    Span,
    blocking,
    names,
    read_group,
)

NUM_GROUPS, GROUP_SIZE, NUM_SPANS, CONCURRENCY = 24, 8, 10, 16
Costs = dict[str, list[float]]


def make_spans(attempt: Attempt) -> list[Span]:
    """Returns an attempt's spans: LLM calls and tool calls by turns."""
    message = [{"role": "user", "content": "x" * 300}]
    tool = {names.OPERATION: names.EXECUTE_TOOL, names.TOOL_RESULT: "x" * 300}
    call = {
        names.OPERATION: names.CHAT,
        names.INPUT_MESSAGES: message,
        names.WEIGHTS_VERSION: 3,
        names.PROMPT_IDS: np.arange(400, dtype=np.int32),
        names.RESPONSE_IDS: np.arange(50, dtype=np.int32),
        names.LOGPROBS: np.zeros(50, np.float32),
    }
    return [
        Span(
            rollout_id=attempt.rollout_id,
            attempt_id=attempt.attempt_id,
            sequence_id=number,
            trace_id="0" * 32,
            span_id=f"{number:016x}",
            name="span",
            start_time=1.0,
            end_time=2.0,
            attributes=tool if number % 2 else call,
        )
        for number in range(NUM_SPANS)
    ]


async def enqueue(store: LightningStore, iteration: int) -> None:
    """Declares the groups and enqueues their rollouts, with inputs of 1.5 kB."""
    group_ids = [f"{iteration}/{group}" for group in range(NUM_GROUPS)]
    await asyncio.gather(*(store.declare_group(group_id, GROUP_SIZE) for group_id in group_ids))
    await store.enqueue_many_rollouts(
        [
            EnqueueRolloutRequest(input={"question": "x" * 1500, "n": n}, task_id=group_id, group_id=group_id)
            for group_id in group_ids
            for n in range(GROUP_SIZE)
        ]
    )


async def work(store: LightningStore, concurrency: int) -> None:
    """Runs rollouts, which take no time, until the queue is empty."""

    async def one_after_another() -> None:
        while taken := await store.dequeue_rollout():
            attempt = taken.attempt
            await report(store, attempt.rollout_id, attempt.attempt_id, make_spans(attempt), {})

    await asyncio.gather(*(one_after_another() for _ in range(concurrency)))


@contextmanager
def timed(costs: Costs, name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    costs.setdefault(name, []).append(1000 * (time.perf_counter() - start))


def shard_cpu_ms(store: RayStore) -> float:
    """CPU time that the store's shards have used so far, all threads of their processes together."""
    asked = [link.actor.__ray_call__.remote(lambda _: time.process_time()) for link in store._links]
    return 1000 * float(sum(ray.get(asked)))


def measure_ray(folder: str, *, num_runners: int, num_shards: int, num_iterations: int) -> Costs:
    """Returns the cost of each step in ms, by iteration."""

    @ray.remote(num_cpus=0)
    class Runner:
        async def work(self, store: RayStore) -> None:
            await work(store, CONCURRENCY)

    store = RayStore.create(folder, name="perf", num_shards=num_shards)
    runners = [Runner.remote() for _ in range(num_runners)]  # type: ignore[attr-defined]

    costs: Costs = {}
    for iteration in range(num_iterations):
        cpu = shard_cpu_ms(store)
        with timed(costs, "wall, declare and enqueue"):
            blocking(enqueue(store, iteration))
        with timed(costs, "wall, all rollouts dequeued, recorded, ended"):
            ray.get([runner.work.remote(store) for runner in runners])
        with timed(costs, "wall, take_groups"):
            handles: list[GroupHandle] = blocking(store.take_groups(NUM_GROUPS))
        costs.setdefault("CPU of all shards, all of the above", []).append(shard_cpu_ms(store) - cpu)
        with timed(costs, "wall, read_group of all"):
            num_spans = sum(len(data.spans) for handle in handles for data in read_group(handle).rollouts)
        assert num_spans == NUM_GROUPS * GROUP_SIZE * NUM_SPANS
    blocking(store.destroy())
    return costs


def measure_direct(folder: str, *, num_iterations: int) -> Costs:
    """Returns the CPU time in ms of whole iterations on a LocalStore, spans made and packed included."""

    async def run() -> Costs:
        costs: Costs = {}
        async with LocalStore(folder) as store:
            for iteration in range(num_iterations):
                start = time.process_time()
                await enqueue(store, iteration)
                await work(store, 1)
                await store.take_groups(NUM_GROUPS)
                costs.setdefault("direct CPU, all", []).append(1000 * (time.process_time() - start))
        return costs

    return asyncio.run(run())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runners", type=int, default=2, help="runner actors")
    parser.add_argument("--shards", type=int, default=1, help="shards of the store")
    parser.add_argument("--iterations", type=int, default=6, help="iterations, of which the first warms up")
    parser.add_argument("--report", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    ray.init(
        address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, configure_logging=False
    )
    with tempfile.TemporaryDirectory() as folder:
        costs = measure_ray(
            folder,
            num_runners=options.runners,
            num_shards=options.shards,
            num_iterations=options.iterations,
        )
    ray.shutdown()
    with tempfile.TemporaryDirectory() as folder:
        costs |= measure_direct(folder, num_iterations=options.iterations)

    medians = {name: round(median(values[1:]), 1) for name, values in costs.items()}
    table = Table(
        "ms per iteration", "median", title=f"{NUM_GROUPS} groups x {GROUP_SIZE} x {NUM_SPANS} spans"
    )
    for name, value in medians.items():
        table.add_row(name, f"{value:.1f}")
    Console().print(table)
    if options.report:
        report = {
            "runners": options.runners,
            "shards": options.shards,
            "ms": medians,
            "machine": {
                "cpus": os.cpu_count(),
                "load": round(os.getloadavg()[0], 1),
                "python": platform.python_version(),
            },
            "ray": ray.__version__,
        }
        options.report.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()

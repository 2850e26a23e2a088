"""The store against Agent Lightning 0.3's: spans of 900 token ids, in process and over HTTP.

Both do the same in turns, each in processes of its own: `add_span` one after another and 64 at once,
`add_many_spans` by 20; then, for each of 50 attempts with 20 spans, ten times over: all its spans, the same
and the tokens of each, its last span, its rollout by id, and ten rollouts by status. Over HTTP the server is
another process. Ours journals to disk; theirs keeps everything in memory, its only backend without a database
server, and hands out the very objects that it holds. Rates are medians of the repetitions, in spans or
queries a second. In each repetition the two take turns at every operation, over HTTP at every fifth of it, as
the machine's speed may change.

    python -m raybolt.benchmarks.perf.store_comparison --agentlightning-python VENV/bin/python [--report FILE]

where VENV was made by `python -m venv VENV && VENV/bin/pip install agentlightning==0.3.0`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from raybolt.store import Attempt, AttemptedRollout, HttpStore, LightningStore, LocalStore, Span, names

OTHER = Path(__file__).with_name("_agentlightning_store.py")
Rates = dict[str, float]


def make_span(attempt: Attempt, number: int) -> Span:
    """A call's span with 900 token ids."""
    ids = np.arange(450, dtype=np.int32)
    return Span(
        rollout_id=attempt.rollout_id,
        attempt_id=attempt.attempt_id,
        sequence_id=number,
        trace_id="0" * 32,
        span_id=f"{number:016x}",
        name="chat",
        start_time=1.0,
        end_time=2.0,
        attributes={names.PROMPT_IDS: ids, names.RESPONSE_IDS: ids, "text": "x" * 300},
    )


async def _one_by_one(store: LightningStore, spans: list[Span]) -> None:
    for span in spans:
        await store.add_span(span)


async def _at_once(store: LightningStore, spans: list[Span]) -> None:
    free = asyncio.Semaphore(64)

    async def one(span: Span) -> None:
        async with free:
            await store.add_span(span)

    await asyncio.gather(*map(one, spans))


async def _in_batches(store: LightningStore, spans: list[Span]) -> None:
    for start in range(0, len(spans), 20):
        await store.add_many_spans(spans[start : start + 20])


WAYS_OF_ADDING: dict[str, Callable[[LightningStore, list[Span]], Awaitable[None]]] = {
    "add_span": _one_by_one,
    "add_span_concurrent": _at_once,
    "add_many_spans": _in_batches,
}


async def _tokens(store: LightningStore, ran: AttemptedRollout) -> list[Any]:
    """The prompts' token ids; a span that was read decodes its attributes only for this."""
    spans = await store.query_spans(ran.rollout_id, ran.attempt.attempt_id)
    return [span.attributes[names.PROMPT_IDS] for span in spans]


Query = Callable[[LightningStore, AttemptedRollout], Awaitable[object]]
QUERIES: dict[str, Query] = {
    "query_spans": lambda store, ran: store.query_spans(ran.rollout_id, ran.attempt.attempt_id),
    "read_tokens": _tokens,
    "query_last_span": lambda store, ran: store.query_spans(
        ran.rollout_id, ran.attempt.attempt_id, sort_by="start_time", sort_order="desc", limit=1
    ),
    "get_rollout_by_id": lambda store, ran: store.get_rollout_by_id(ran.rollout_id),
    "query_rollouts": lambda store, ran: store.query_rollouts(status_in=["running"], limit=10),
}
OPERATIONS = (*WAYS_OF_ADDING, *QUERIES)
NUM_ATTEMPTS, PER_ATTEMPT, PASSES = 50, 20, 10
PARTS = {"local": 1, "http": 5}
"""Turns for each operation. In process there is one, as a part would end before its journal is at rest."""


async def measure(store: LightningStore, num_spans: int, parts: int) -> Rates:
    """Spans or queries a second, by operation; the spans are made beforehand, and each part has its turn."""
    rates: Rates = {}
    size = num_spans // parts
    _wait_for_turn()
    for operation, work in WAYS_OF_ADDING.items():
        started = await store.start_rollout({"n": 1})
        spans = [make_span(started.attempt, number) for number in range(num_spans)]
        seconds = [await _seconds(work(store, spans[at : at + size])) for at in range(0, num_spans, size)]
        rates[operation] = num_spans / sum(seconds)
    attempts = [await store.start_rollout({"n": 1}) for _ in range(NUM_ATTEMPTS)]
    for each in attempts:
        await store.add_many_spans([make_span(each.attempt, number) for number in range(PER_ATTEMPT)])
    for operation, query in QUERIES.items():
        asked = attempts * (PASSES // parts)
        seconds = [await _seconds(_each(store, query, asked)) for _ in range(parts)]
        rates[operation] = parts * len(asked) / sum(seconds)
    return rates


async def _each(store: LightningStore, query: Query, attempts: list[AttemptedRollout]) -> None:
    for each in attempts:
        await query(store, each)


async def _seconds(work: Awaitable[None]) -> float:
    start = time.perf_counter()
    await work
    seconds = time.perf_counter() - start
    _wait_for_turn()
    return seconds


def _wait_for_turn() -> None:
    """Lets the others work, and blocks until it is this process's turn again."""
    print("TURN", flush=True)
    input()


async def _worker(role: str, num_spans: int, parts: int, port: int | None) -> Rates:
    if role == "http":
        async with HttpStore(f"http://127.0.0.1:{port}") as store:
            return await measure(store, num_spans, parts)
    with tempfile.TemporaryDirectory() as folder:
        async with LocalStore(folder) as store:
            return await measure(store, num_spans, parts)


def rates_in_turns(commands: dict[str, list[str]]) -> dict[str, Rates]:
    """The rates that worker processes print, which take turns."""
    found: dict[str, Rates] = {}
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for name, command in commands.items()
        }
        for worker in workers.values():
            _answer(worker)  # it is ready
        while len(found) < len(workers):
            for name in [name for name in workers if name not in found]:
                print(file=workers[name].stdin, flush=True)
                rates = _answer(workers[name])
                if rates is not None:
                    found[name] = rates
    return found


def _answer(worker: subprocess.Popen[str]) -> Rates | None:
    """The rates at the end of a worker's last turn; None at the end of another."""
    assert worker.stdout is not None
    for line in worker.stdout:
        if line == "TURN\n":
            return None
        if line.startswith("RATES "):
            rates: Rates = json.loads(line.removeprefix("RATES "))
            return rates
    raise SystemExit(f"{worker.args!r} failed")


@contextmanager
def serving(command: list[str], port: int) -> Iterator[None]:
    """The server process, from when it listens."""
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        else:
            raise SystemExit(f"{' '.join(command)} did not listen on port {port} within a minute")
        yield
    finally:
        server.terminate()
        server.wait(timeout=10)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def compare(other_python: str, num_spans: int, repeats: int) -> dict[str, dict[str, Rates]]:
    """Median rates by way ("local", "http") and by store."""
    ours, theirs = [sys.executable, "-m", __spec__.name, "--worker"], [other_python, str(OTHER)]
    found: dict[str, list[dict[str, Rates]]] = {way: [] for way in PARTS}
    for _ in range(repeats):
        sizes = {way: ["--spans", str(num_spans), "--parts", str(parts)] for way, parts in PARTS.items()}
        local = ["local", *sizes["local"]]
        found["local"].append(
            rates_in_turns({"raybolt": [*ours, *local], "agentlightning": [*theirs, *local]})
        )
        port, other_port = _free_port(), _free_port()
        with (
            tempfile.TemporaryDirectory() as folder,
            serving([_command(), "store", "serve", folder, "--port", str(port)], port),
            serving([*theirs, "serve", "--port", str(other_port)], other_port),
        ):
            http = ["http", *sizes["http"], "--port"]
            found["http"].append(
                rates_in_turns(
                    {
                        "raybolt": [*ours, *http, str(port)],
                        "agentlightning": [*theirs, *http, str(other_port)],
                    }
                )
            )
    return {
        way: {
            name: {operation: median(each[name][operation] for each in runs) for operation in OPERATIONS}
            for name in runs[0]
        }
        for way, runs in found.items()
    }


def _command() -> str:
    return str(Path(sys.executable).with_name("raybolt"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--agentlightning-python", help="a Python that has agentlightning 0.3.0")
    parser.add_argument("--spans", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--report", type=Path)
    parser.add_argument("--worker", choices=["local", "http"], help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--parts", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        rates = asyncio.run(_worker(arguments.worker, arguments.spans, arguments.parts, arguments.port))
        print("RATES", json.dumps(rates))
        return
    if not arguments.agentlightning_python:
        print("left out: give --agentlightning-python (see --help)")
        return
    load_before = os.getloadavg()[0]
    result = compare(arguments.agentlightning_python, arguments.spans, arguments.repeats)
    table = Table("way", "operation", "raybolt /s", "agentlightning 0.3.0 /s", "ratio")
    for way, stores in result.items():
        for operation in OPERATIONS:
            ours, theirs = stores["raybolt"][operation], stores["agentlightning"][operation]
            table.add_row(way, operation, f"{ours:,.0f}", f"{theirs:,.0f}", f"{ours / theirs:.1f}")
    Console().print(table)
    if arguments.report:
        meta = {
            "date": date.today().isoformat(),
            "cpus": os.cpu_count(),
            "loadavg_before": load_before,
            "spans": arguments.spans,
            "repeats": arguments.repeats,
        }
        arguments.report.write_text(json.dumps({**meta, "spans_per_second": result}, indent=2) + "\n")


if __name__ == "__main__":
    main()

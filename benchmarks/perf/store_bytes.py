"""Bytes copied on the way from a runner to the learner, for each token: counted where they pass.

Two loads go through a RayStore with a journal: spans of 900 token ids with a short text, and rollouts of the
tiny model whose prompts grow with each turn, so that most ids are recorded several times. A process records
them as rl's runners do, another reads the groups as rl's learners do. In bytes:

    arrays        the spans' token ids and log-probabilities, once: the ideal
    rows          the spans packed as rows, texts included
    messages      what Ray makes of them to send to the shard
    written       what the shard writes to files: the journal's log, and the database it is moved to
    folder        what lies there at the end
    tables        the sealed groups' Arrow buffers
    objects       the groups in Ray's object store
    not shared    arrays of the groups as the learner reads them that lie outside of Ray's shared memory
    packed        the learner's micro-batches, after credit and merging (of the rollouts)
    packing peak  what its process needed for that at once

Where there is a C compiler, the copies themselves are counted too, of 512 bytes and more, by a library that
is loaded before C's own into all processes: in memory, in the runner, in the shard while it takes spans and
while it seals groups, and in the learner while it reads them; and through sockets, in all three.

All are given for each token recorded, where an id that stands in two prompts counts twice, and as a multiple
of the ideal; the report has them for each token sampled, too.

    python -m raybolt.benchmarks.perf.store_bytes [--groups 12] [--turns 6] [--report FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import subprocess
import sys
import tempfile
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import ray
from ray.experimental import get_object_locations
from rich.console import Console
from rich.table import Table

from raybolt.benchmarks.perf._copies import copied_so_far, counting
from raybolt.benchmarks.perf._recorded_runs import (
    GROUP_SIZE,
    Run,
    enqueue,
    plain_runs,
    record,
    tiny_model_runs,
)
from raybolt.benchmarks.report import versions, write_json
from raybolt.rl.batching import pack
from raybolt.rl.connectors import credited_calls, succeeded_trajectories
from raybolt.rl.merge import LossCall
from raybolt.rl.training_data import GroupRefs
from raybolt.store import GroupData, GroupHandle, RayStore, decode_group, names
from raybolt.store.shard import unpack_message

STAGES = (
    "arrays",
    "rows",
    "messages",
    "written",
    "folder",
    "tables",
    "objects",
    "not shared",
    "packed",
    "packing peak",
    "in memory: runner",
    "in memory: shard, taking spans",
    "in memory: shard, sealing groups",
    "in memory: learner, reading",
    "through sockets",
)
NUM_PASSES = 2
"""How often the runs are recorded: once to warm up, since first times cost more, and once to count."""
TOKEN_BUDGET = 8192
Mapped = Sequence[tuple[int, int]]
"""Where memory is mapped: first addresses, and those behind the last."""


class Learner:
    """A process that reads groups and makes batches of them, as rl's learners do."""

    def count(self, handles: Sequence[GroupHandle]) -> Counter[str]:
        """Counts the tokens of the groups, and the bytes that become of them here."""
        before = copied_so_far()
        refs = GroupRefs.of(handles)
        refs.solve_refs()
        groups = [decode_group(table) for table in refs.episodes]
        counts: Counter[str] = Counter()
        _add_copies(counts, "learner, reading", before, copied_so_far())
        shared = shared_memory()
        for name, array in (item for group in groups for item in _arrays(group)):
            counts["not shared"] += 0 if lies_in(shared, array) else array.nbytes
            counts["recorded"] += len(array) if name in (names.PROMPT_IDS, names.RESPONSE_IDS) else 0
            counts["sampled"] += len(array) if name == names.RESPONSE_IDS else 0
        trajectories = [succeeded_trajectories(table) for table in refs.episodes]
        calls = [credited_calls(group, "group_norm", lambda role: "policy") for group in trajectories]
        if any(calls):
            counts.update(_packing([of_policy["policy"] for of_policy in calls if of_policy], shared))
        return counts


def _packing(calls: Sequence[Sequence[LossCall]], shared: Mapped) -> dict[str, int]:
    """Counts what merging and packing make of the calls, whose tokens are to be where they were read."""
    arrays = [array for group in calls for call in group for array in (call.prompt_ids, call.response_ids)]
    assert all(lies_in(shared, array) for array in arrays), "credit copies the tokens"
    tracemalloc.start()
    micro_batches = pack(calls, token_budget=TOKEN_BUDGET)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    packed = sum(getattr(batch, name).nbytes for batch in micro_batches for name in batch.__slots__)
    forwarded = sum(batch.num_tokens for batch in micro_batches)
    return {"packed": packed, "packing peak": peak, "forwarded": forwarded}


def _arrays(group: GroupData) -> Iterator[tuple[str, np.ndarray]]:
    spans = (span for data in group.rollouts for span in data.spans)
    attributes = (item for span in spans for item in span.attributes.items())
    return ((name, value) for name, value in attributes if isinstance(value, np.ndarray))


def shared_memory() -> Mapped:
    """The addresses at which this process has Ray's object store mapped."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    ranges = [line.split()[0].split("-") for line in lines if "plasma" in line]
    return [(int(start, 16), int(end, 16)) for start, end in ranges]


def lies_in(mapped: Mapped, array: np.ndarray) -> bool:
    first = array.__array_interface__["data"][0]
    return array.nbytes == 0 or any(start <= first and first + array.nbytes <= end for start, end in mapped)


def written_so_far(_: Any) -> int:
    """Bytes that this process has written to files so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    (written,) = (line.split()[1] for line in lines if line.startswith("wchar:"))
    return int(written)


async def follow(store: RayStore, runs: list[Run]) -> Counter[str]:
    """Counts the bytes of the runs on their whole way, the second time; ends the store."""
    (link,) = store._links
    shard = link.actor
    learner = ray.remote(num_cpus=0)(Learner).remote()
    written = await shard.__ray_call__.remote(written_so_far)
    for number in range(NUM_PASSES):
        counts: Counter[str] = Counter()
        sent: list[tuple[bytes, ...]] = []

        def remote(*parts: bytes, sent: list[tuple[bytes, ...]] = sent) -> Any:
            sent.append(parts)
            return shard.ask.remote(*parts)

        group_ids = await enqueue(store, str(number), len(runs))
        before = copied_so_far(), await shard.__ray_call__.remote(copied_so_far)
        link.actor = SimpleNamespace(ask=SimpleNamespace(remote=remote))
        await record(store, runs)
        link.actor = shard
        recorded = copied_so_far(), await shard.__ray_call__.remote(copied_so_far)
        handles = await store.take_groups(len(group_ids))
        assert len(handles) == len(group_ids), await store.statistics()
        sealed = await shard.__ray_call__.remote(copied_so_far)
        counts.update(await learner.count.remote(handles))
    _add_copies(counts, "runner", before[0], recorded[0])
    _add_copies(counts, "shard, taking spans", before[1], recorded[1])
    _add_copies(counts, "shard, sealing groups", recorded[1], sealed)
    counts.update(_sizes(sent))
    counts["tables"] = sum(handle.nbytes for handle in handles)
    located = get_object_locations([handle.ref for handle in handles])
    counts["objects"] = sum(each["object_size"] for each in located.values())
    await link.close()  # which moves the log into the database
    counts["written"] = await shard.__ray_call__.remote(written_so_far) - written
    counts["written"] //= NUM_PASSES
    await store.destroy()
    return counts


def _add_copies(counts: Counter[str], where: str, before: Counter[str], after: Counter[str]) -> None:
    if after:
        counts[f"in memory: {where}"] += after["in memory"] - before["in memory"]
        counts["through sockets"] += after["sockets"] - before["sockets"]


def _sizes(sent: Sequence[Sequence[bytes]]) -> Counter[str]:
    """Counts what was sent to a shard, as it was given to Ray and as Ray packs it."""
    serialize = ray._private.worker.global_worker.get_serialization_context().serialize
    counts: Counter[str] = Counter()
    for parts in sent:
        asked = unpack_message(parts)
        rows = [row for operation, given in asked if operation == "add_rows" for row in given["rows"]]
        counts["messages"] += sum(serialize(part).total_bytes for part in parts) if rows else 0
        for row in rows:
            counts["arrays"] += len(row.arrays)
            counts["rows"] += len(row.arrays) + sum(len(field) for field in row if isinstance(field, str))
    return counts


def measure(name: str, runs: list[Run]) -> dict[str, Any]:
    """Tokens, and the bytes of each stage: per token, and as a multiple of the arrays' bytes."""
    with tempfile.TemporaryDirectory() as folder:
        counts = asyncio.run(follow(RayStore.create(folder, name=name), runs))
        counts["folder"] = sum(path.stat().st_size for path in Path(folder).rglob("*")) // NUM_PASSES
    tokens = {name: counts.pop(name) for name in ("recorded", "sampled", "forwarded") if name in counts}
    stages = {
        stage: {
            "bytes_per_token_recorded": counts[stage] / tokens["recorded"],
            "bytes_per_token_sampled": counts[stage] / tokens["sampled"],
            "times_arrays": counts[stage] / counts["arrays"],
        }
        for stage in STAGES
        if stage in counts
    }
    return {"tokens": tokens, "stages": stages}


def main() -> None:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--groups", type=int, default=12, help="groups of 8 rollouts, of each load")
    parser.add_argument("--turns", type=int, default=6, help="LLM calls of a rollout of the tiny model")
    parser.add_argument("--report", type=Path, help="JSON file for the figures")
    parser.add_argument("--counting", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.counting:  # the library has to be there before anything else is
        with counting() as variables:
            command = [sys.executable, "-m", __spec__.name, *sys.argv[1:], "--counting"]
            sys.exit(subprocess.run(command, env=os.environ | variables, check=False).returncode)
    ray.init(
        address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, configure_logging=False
    )
    num_runs = options.groups * GROUP_SIZE
    loads = {
        "spans of 900 ids": measure("plain", plain_runs(num_runs)),
        f"tiny model, {options.turns} turns": measure("tiny", tiny_model_runs(num_runs, options.turns)),
    }
    ray.shutdown()
    table = Table("bytes per token recorded", *loads, title="from a runner to the learner")
    for stage in STAGES:
        found = [load["stages"].get(stage) for load in loads.values()]
        if any(found):
            table.add_row(stage, *("" if each is None else _shown(each) for each in found))
    Console().print(table)
    if options.report:
        report = {
            "date": date.today().isoformat(),
            "command": shlex.join(["python", "-m", __spec__.name, *sys.argv[1:-1]]),
            "cpus": os.cpu_count(),
            "loads": loads,
            "versions": versions(),
        }
        write_json(options.report, report)


def _shown(stage: dict[str, float]) -> str:
    return f"{stage['bytes_per_token_recorded']:.2f} ({stage['times_arrays']:.2f} x)"


if __name__ == "__main__":
    main()

"""`raybolt store ls|show|stats|export|import|compact`: commands on a store's folder.

All but `compact` and `import` read beside whoever has the store open, and change nothing.
"""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from raybolt import console, console_store
from raybolt.store.errors import InvalidValue, UnknownRollout
from raybolt.store.types import Attempt, Rollout, RolloutData

Folder = Annotated[Path, typer.Argument(help="Folder of a run or store, or its journal.db.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Status = Annotated[
    list[str] | None, typer.Option(help="Only rollouts of this status; may be given several times.")
]
Mode = Annotated[str | None, typer.Option(help="Only rollouts of this mode: train, val, test or demo.")]
Group = Annotated[str | None, typer.Option(help="Only rollouts whose group id holds this.")]
Task = Annotated[str | None, typer.Option(help="Only rollouts of the task with this id.")]


class Format(enum.StrEnum):
    """What `export` writes."""

    PARQUET = "parquet"
    CHATS = "chats"
    SFT = "sft"
    PREFERENCES = "preferences"


def ls(
    folder: Folder,
    status: Status = None,
    mode: Mode = None,
    group: Group = None,
    task: Task = None,
    contains: Annotated[str | None, typer.Option(help="Only rollouts whose id holds this.")] = None,
    limit: Annotated[int, typer.Option(help="Show so many, the last ones; 0 shows all.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List the rollouts of a store, in the order in which they were enqueued."""
    from raybolt.store.peek import read_outlines

    found = [
        (rollout, attempt)
        for rollout, attempt in read_outlines(folder)
        if _chosen(rollout, status, mode, group, task) and (contains or "") in rollout.rollout_id
    ]
    shown = found[-limit:] if limit > 0 else found
    if as_json:
        console_store.print_json([_outline(rollout, attempt) for rollout, attempt in shown])
    else:
        console_store.print_rollouts(shown, num_found=len(found))


def show(
    folder: Folder,
    rollout: Annotated[str, typer.Argument(help="The rollout's id, or how it begins.")],
    attempt: Annotated[
        int | None, typer.Option(help="Number of the attempt, from 1. Default: the last.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what happened in a rollout: its spans as a tree, with times, tokens and rewards."""
    from raybolt.store.peek import read_attempts

    found = _one_rollout(folder, rollout)
    attempts = read_attempts(folder, found.rollout_id)
    wanted = len(attempts) if attempt is None else attempt
    if attempt is not None and not 1 <= wanted <= len(attempts):
        raise InvalidValue(f"--attempt is {attempt}; rollout {found.rollout_id} has {len(attempts)} attempts")
    tried, spans = attempts[wanted - 1] if attempts else (None, [])
    if as_json:
        console_store.print_json(
            {**asdict(found), "attempt": tried and asdict(tried), "spans": [asdict(span) for span in spans]}
        )
    else:
        console_store.print_rollout(found, tried, spans, num_attempts=len(attempts))


def stats(folder: Folder, as_json: AsJson = False) -> None:
    """Count what is in a store."""
    from raybolt.store.peek import count, journals_of, read_outlines

    statuses: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    rewards: list[float] = []
    num_tokens = num_calls = 0
    for rollout, attempt in read_outlines(folder):
        told = attempt.metadata if attempt is not None else {}
        statuses[rollout.status] += 1
        modes[rollout.mode or "none"] += 1
        num_tokens += told.get("num_tokens", 0)
        num_calls += told.get("num_calls", 0)
        if rollout.status == "succeeded" and told.get("reward") is not None:
            rewards.append(told["reward"])
    files = journals_of(folder)
    known = {
        "rollouts": dict(statuses),
        "modes": dict(modes),
        **count(folder),
        "calls": num_calls,
        "tokens": num_tokens,
        "reward_mean": math.fsum(rewards) / len(rewards) if rewards else None,
        "shards": len(files),
        "bytes": _size(files),
    }
    if as_json:
        console_store.print_json(known)
    else:
        console_store.print_counts(folder, known)


def export(
    folder: Folder,
    out: Annotated[Path, typer.Argument(help="New folder for Parquet, file for anything else.")],
    form: Annotated[Format, typer.Option("--format", help="What to write.")] = Format.PARQUET,
    mode: Mode = None,
    group: Group = None,
    task: Task = None,
    min_reward: Annotated[
        float | None, typer.Option(help="For sft: only rollouts whose return is as high.")
    ] = None,
    min_margin: Annotated[
        float, typer.Option(help="For preferences: returns of a pair differ by more.")
    ] = 0.0,
) -> None:
    """Write a store as Parquet, all of it, or its runs as JSONL: chats, SFT examples, preference pairs."""
    if form is Format.PARQUET:
        if (mode, group, task, min_reward, min_margin) != (None, None, None, None, 0.0):
            raise InvalidValue("Parquet holds the whole store; leave out the filters, or give a --format")
        from raybolt.store.parquet import export_parquet

        with console_store.span_progress("Export") as progress:
            counts = export_parquet(folder, out, on_progress=progress)
        console_store.print_moved(counts, out)
        return
    from raybolt.env.exports import chats, preference_pairs, sft_examples, write_jsonl
    from raybolt.store.peek import read_outlines, read_rollouts

    with console_store.span_progress("Export", unit="rollouts") as progress:
        total = sum(1 for _ in read_outlines(folder))
        runs = _told(read_rollouts(folder), total, progress)
        chosen = (run for run in runs if _chosen(run.rollout, None, mode, group, task))
        if form is Format.CHATS:
            rows = chats(chosen)
        elif form is Format.SFT:
            rows = sft_examples(chosen, min_reward=min_reward)
        else:
            rows = preference_pairs(chosen, min_margin=min_margin)
        num_rows = write_jsonl(out, rows)
    console_store.print_moved({form.value: num_rows}, out)


def import_(
    files: Annotated[Path, typer.Argument(help="Folder of Parquet files that an export made.")],
    folder: Annotated[Path, typer.Argument(help="New folder for the store.")],
) -> None:
    """Make a store from the Parquet files of an export; several shards become one."""
    from raybolt.store.parquet import import_parquet

    with console_store.span_progress("Import") as progress:
        counts = import_parquet(files, folder, on_progress=progress)
    console_store.print_moved(counts, folder)


def compact(folder: Annotated[Path, typer.Argument(help="Folder of a store that nobody has open.")]) -> None:
    """Give the room of deleted rollouts back to the system. The store must not be in use."""
    from raybolt.store import LocalStore, blocking
    from raybolt.store.peek import journals_of

    files = journals_of(folder)
    before = _size(files)
    for file in files:
        store = LocalStore(file.parent, keep_in_flight=True)
        try:
            blocking(store.compact())
        finally:
            blocking(store.close())
    console.out.print(f"{console_store.size(before)} before, {console_store.size(_size(files))} now")


def _chosen(
    rollout: Rollout, status: list[str] | None, mode: str | None, group: str | None, task: str | None
) -> bool:
    return (
        (not status or rollout.status in status)
        and mode in (None, rollout.mode)
        and (group is None or group in (rollout.group_id or ""))
        and task in (None, rollout.task_id)
    )


def _one_rollout(folder: Path, given: str) -> Rollout:
    """The rollout of this id, or the only one whose id begins so."""
    from raybolt.store.peek import read_outlines

    found = [rollout for rollout, _ in read_outlines(folder) if rollout.rollout_id.startswith(given)]
    exact = [rollout for rollout in found if rollout.rollout_id == given]
    if len(exact or found) == 1:
        return (exact or found)[0]
    how_many = f"{len(found)} rollouts begin with" if found else "no rollout has the id"
    raise UnknownRollout(f"{how_many} {given!r}; `raybolt store ls` lists them")


def _outline(rollout: Rollout, attempt: Attempt | None) -> dict[str, Any]:
    return {**asdict(rollout), "attempt": attempt and asdict(attempt)}


def _told(runs: Iterable[RolloutData], total: int, progress: Any) -> Iterator[RolloutData]:
    for done, run in enumerate(runs, start=1):
        yield run
        progress(done, total)


def _size(files: Iterable[Path]) -> int:
    """Bytes of the journals with their logs."""
    parts = (file.with_name(file.name + suffix) for file in files for suffix in ("", "-wal"))
    return sum(part.stat().st_size for part in parts if part.exists())

"""`raybolt store export|import|compact`: what is in a store, written elsewhere, read back, packed."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from raybolt import console, console_store
from raybolt.store.completion import appearing
from raybolt.store.errors import InvalidValue
from raybolt.store.types import RolloutData
from raybolt.store_look import Ca, Group, Mode, Task, Token, Where
from raybolt.store_source import Progress, Wanted, checked_folder, opened


class Format(enum.StrEnum):
    """What `export` writes."""

    PARQUET = "parquet"
    CHATS = "chats"
    SFT = "sft"
    PREFERENCES = "preferences"


def export(
    where: Where,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder for Parquet, else a file.")],
    form: Annotated[
        Format,
        typer.Option("--format", metavar="FORMAT", help="What to write: parquet, chats, sft or preferences."),
    ] = Format.PARQUET,
    mode: Mode = None,
    group: Group = None,
    task: Task = None,
    min_reward: Annotated[
        float | None, typer.Option(help="For sft: only rollouts whose return is as high.")
    ] = None,
    min_margin: Annotated[
        float, typer.Option(help="For preferences: returns of a pair differ by more.")
    ] = 0.0,
    token: Token = None,
    ca: Ca = None,
) -> None:
    """Write a store as Parquet, all of it, or its runs as JSONL: chats, SFT examples, preference pairs.

    OUT appears when it is complete: an export that is interrupted leaves nothing under that name.
    """
    if form is Format.PARQUET:
        if (mode, group, task, min_reward, min_margin) != (None, None, None, None, 0.0):
            raise InvalidValue("Parquet holds the whole store; leave out the filters, or give a --format")
        with (
            opened(where, token=token, ca=ca) as source,
            console_store.progress("Export", unit=source.export_unit) as progress,
        ):
            counts = source.export(out, progress)
        console_store.print_moved(counts, out)
        return
    if out.is_dir():
        raise InvalidValue(f"{out} is a folder; give a file for {form.value}")
    wanted = Wanted(mode=mode, group=group, task=task)
    with (
        opened(where, token=token, ca=ca) as source,
        console_store.progress("Export", unit="rollouts") as progress,
        appearing(out) as file,
    ):
        total = source.num_rollouts() if wanted == Wanted() else None
        num_rows = _write(_told(source.runs(wanted), total, progress), form, file, min_reward, min_margin)
    console_store.print_moved({form.value: num_rows}, out)


def import_(
    files: Annotated[Path, typer.Argument(metavar="FILES", help="Folder of Parquet files of an export.")],
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="New folder for the store.")],
) -> None:
    """Make a store from the Parquet files of an export; several shards become one.

    The store appears in FOLDER when it is complete. To serve it, go on with `raybolt store serve FOLDER`.
    """
    from raybolt.store.parquet import import_parquet

    target = checked_folder(folder)
    with console_store.progress("Import") as progress:
        counts = import_parquet(files, target, on_progress=progress)
    console_store.print_moved(counts, target)


def compact(
    where: Annotated[
        str, typer.Argument(metavar="STORE", help="Folder of a store that nobody has open, or its address.")
    ],
    token: Token = None,
    ca: Ca = None,
) -> None:
    """Give the room of deleted rollouts back to the system.

    A folder must not be in use; a store at work does it itself, between other calls.
    """
    with opened(where, token=token, ca=ca) as source:
        before, after = source.compact()
    console.out.print(f"{console_store.size(before)} before, {console_store.size(after)} now")


def _write(
    runs: Iterable[RolloutData], form: Format, file: Path, min_reward: float | None, min_margin: float
) -> int:
    """Writes the runs as JSONL of this form; returns the number of lines."""
    from raybolt.env.exports import chats, preference_pairs, sft_examples, write_lines

    if form is Format.CHATS:
        return write_lines(file, chats(runs))
    if form is Format.SFT:
        return write_lines(file, sft_examples(runs, min_reward=min_reward))
    return write_lines(file, preference_pairs(runs, min_margin=min_margin))


def _told(runs: Iterable[RolloutData], total: int | None, progress: Progress) -> Iterator[RolloutData]:
    for done, run in enumerate(runs, start=1):
        yield run
        progress(done, total)

"""A store's folder as Parquet files, and such files as a store's folder.

::

    rollouts.parquet  attempts.parquet  groups.parquet  resources.parquet
    changes.parquet   the feed, less what spans.parquet says: position, and the change as JSON
    spans.parquet     the fields of a span; attributes and events as JSON; every array attribute is a list
                      column named <attribute>:<dtype>, null where a span lacks it; the position in the feed

Everything the journal holds goes there and comes back. The shards of a folder are put together: rollouts are
then in the order in which they were enqueued, and the feed is theirs by turns, at positions of its own. So
cursors stay valid for a store that had one shard, and are refused for one that had several.
"""

import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from heapq import merge
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import IO, Any, TypeAlias
from zipfile import BadZipFile, ZipFile

import pyarrow as pa
import pyarrow.parquet as pq

from .completion import appearing
from .errors import InvalidValue, StoreError
from .journal import Journal
from .journal_file import FILE_NAME
from .journal_rows import attempt_of, change_of, rollout_of
from .layout import num_shards_of
from .parquet_spans import POSITION, merged_position, read_rows, write_rows
from .peek import journals_of, reading
from .types import Group, ResourcesUpdate

FORMAT = {b"raybolt.parquet": b"2"}
"""Metadata of every file."""
BATCH_ROWS = 2000
"""Rows written or read at a time."""

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the number of spans done and that of all."""
Open: TypeAlias = Callable[[str], AbstractContextManager[IO[bytes]]]
"""Opens a file of this name to be written."""

_TABLES = {
    "rollouts": {
        "rollout_id": pa.string(),
        "group_id": pa.string(),
        "task_id": pa.string(),
        "mode": pa.string(),
        "resources_id": pa.string(),
        "status": pa.string(),
        "start_time": pa.float64(),
        "end_time": pa.float64(),
        "queue_position": pa.int64(),
        "input": pa.string(),
        "config": pa.string(),
        "metadata": pa.string(),
    },
    "attempts": {
        "attempt_id": pa.string(),
        "rollout_id": pa.string(),
        "sequence_id": pa.int64(),
        "status": pa.string(),
        "start_time": pa.float64(),
        "end_time": pa.float64(),
        "worker_id": pa.string(),
        "metadata": pa.string(),
    },
    "groups": {
        "group_id": pa.string(),
        "task_id": pa.string(),
        "num_rollouts": pa.int64(),
        "num_ended": pa.int64(),
        "num_succeeded": pa.int64(),
        "status": pa.string(),
        "taken_by": pa.string(),
        "lease_end": pa.float64(),
        "create_time": pa.float64(),
        "complete_time": pa.float64(),
    },
    "resources": {
        "resources_id": pa.string(),
        "version": pa.int64(),
        "create_time": pa.float64(),
        "update_time": pa.float64(),
        "resources": pa.string(),
    },
    "changes": {POSITION: pa.int64(), "change": pa.string()},
}
_ORDER = {
    "rollouts": "start_time",
    "attempts": "start_time",
    "groups": "create_time",
    "resources": "update_time",
    "changes": POSITION,
}
"""What the rows of several shards are put in order by."""
_ABSENT = {"create_time": "0.0"}
"""What stands for a column that a journal lacks, if that is not null."""
FILES = tuple(f"{name}.parquet" for name in (*_TABLES, "spans"))


def export_parquet(
    path: str | os.PathLike[str], out: str | os.PathLike[str], *, on_progress: Progress | None = None
) -> dict[str, int]:
    """Writes the store in a folder to Parquet files in another; returns how many rows each has.

    The store may be in use: every shard is read as it is at one moment. The other folder appears when it is
    complete. Raises StoreError if there is no store, and InvalidValue if ``out`` holds anything.
    """
    target = checked_target(out)
    with ExitStack() as stack:
        shards = [stack.enter_context(reading(file)) for file in journals_of(path)]
        folder = stack.enter_context(appearing(target))
        folder.mkdir()
        return _write(shards, lambda name: (folder / name).open("wb"), on_progress)


def export_zip(path: str | os.PathLike[str], sink: IO[bytes]) -> None:
    """Writes the same files as one ZIP archive to what need not be seekable; StoreError likewise."""
    with ExitStack() as stack:
        shards = [stack.enter_context(reading(file)) for file in journals_of(path)]
        archive = stack.enter_context(ZipFile(sink, "w"))
        _write(shards, lambda name: archive.open(name, "w", force_zip64=True), None)


def unpack_zip(archive: Path, folder: Path) -> dict[str, int]:
    """Makes the folder, with the files of such an archive; returns how many rows each has.

    Raises StoreError for one that is none, or not whole.
    """
    try:
        with ZipFile(archive) as files:
            for name in FILES:
                files.extract(name, folder)
    except (BadZipFile, KeyError) as error:
        raise StoreError(f"what came is no export, or not a whole one ({error}); try again") from None
    counts = {}
    for name in (*_TABLES, "spans"):
        with _opened(folder, name) as file:
            counts[name] = file.metadata.num_rows
    return counts


def import_parquet(
    source: str | os.PathLike[str], path: str | os.PathLike[str], *, on_progress: Progress | None = None
) -> dict[str, int]:
    """Makes a store of one shard in a folder from Parquet files; returns how many rows were read.

    The store appears there when it is complete. Raises StoreError if the files are not those that
    ``export_parquet`` writes, and InvalidValue if there is a store in the folder already.
    """
    folder, files = Path(path), Path(source)
    with ExitStack() as stack:
        tables = {name: stack.enter_context(_opened(files, name)) for name in (*_TABLES, "spans")}
        _check_no_store(folder)
        part = stack.enter_context(appearing(folder / FILE_NAME))
        journal = Journal(part.parent)
        try:
            _put_tables(journal, tables)
            _put_spans(journal, tables["spans"], on_progress)
        finally:
            journal.close()
        if part.with_name(f"{FILE_NAME}-wal").exists():
            raise StoreError(f"the log of {part} was not moved into it; is its disk full?")
        _check_no_store(folder)
        return {name: file.metadata.num_rows for name, file in tables.items()}


def checked_target(out: str | os.PathLike[str]) -> Path:
    """Returns the folder for an export; InvalidValue if there is anything in it, or it cannot be one."""
    target = Path(out)
    try:
        is_free = not os.path.lexists(target) or (target.is_dir() and not any(target.iterdir()))
    except OSError as error:
        raise InvalidValue(f"{target} cannot be read ({error.strerror}); give a new folder") from None
    if not is_free:
        raise InvalidValue(f"{target} is not empty; give a new folder")
    return target


def _check_no_store(folder: Path) -> None:
    if num_shards_of(folder) is not None:
        raise InvalidValue(f"{folder} holds a store already; give a new folder")


def _put_tables(journal: Journal, files: Mapping[str, pq.ParquetFile]) -> None:
    for row in _read(files["rollouts"]):
        journal.rollout(*rollout_of(row))
    for row in _read(files["attempts"]):
        journal.attempt(attempt_of(row))
    for row in _read(files["groups"]):
        journal.group(Group(**dict(zip(_TABLES["groups"], row, strict=True))))
    for row in _read(files["resources"]):
        values = dict(zip(_TABLES["resources"], row, strict=True))
        journal.resources(ResourcesUpdate(**{**values, "resources": json.loads(values["resources"])}))
    for position, change in _read(files["changes"]):
        journal.change(position, change_of(position, change))
    journal.flush()


def _put_spans(journal: Journal, file: pq.ParquetFile, on_progress: Progress | None) -> int:
    """Journals the spans, those of one change of the feed at once; returns how many there were."""
    total, done, flushed = file.metadata.num_rows, 0, 0
    for position, found in groupby(read_rows(file, batch_rows=BATCH_ROWS), key=itemgetter(0)):
        rows = (row for _, row in found)
        # Of spans without a position, which older stores left, there may be any number.
        while batch := list(rows if position is not None else islice(rows, BATCH_ROWS)):
            journal.spans(position, batch)
            done += len(batch)
            if done - flushed >= BATCH_ROWS or done == total:
                journal.flush()
                flushed = done
                if on_progress is not None:
                    on_progress(done, total)
    return done


def _write(
    shards: Sequence[sqlite3.Connection], open_file: Open, on_progress: Progress | None
) -> dict[str, int]:
    counts = {}
    for name in _TABLES:
        with open_file(f"{name}.parquet") as file:
            counts[name] = _write_table(shards, name, file)
    with open_file("spans.parquet") as file:
        counts["spans"] = write_rows(
            shards, file, metadata=FORMAT, batch_rows=BATCH_ROWS, on_progress=on_progress
        )
    return counts


def _write_table(shards: Sequence[sqlite3.Connection], name: str, file: IO[bytes]) -> int:
    schema = pa.schema(list(_TABLES[name].items()), metadata=FORMAT)
    parts = (_rows_of(shard, name, index, len(shards)) for index, shard in enumerate(shards))
    # A merge leaves the order of each shard as it is, whatever its clock did.
    rows = merge(*parts, key=itemgetter(schema.get_field_index(_ORDER[name])))
    num_rows = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while batch := list(islice(rows, BATCH_ROWS)):
            arrays = map(pa.array, zip(*batch, strict=True), schema.types)
            writer.write_table(pa.table(list(arrays), schema=schema))
            num_rows += len(batch)
    return num_rows


def _rows_of(shard: sqlite3.Connection, name: str, index: int, num_shards: int) -> Iterator[tuple[Any, ...]]:
    """The rows of a table with all the columns of today, of which the first format had fewer."""
    present = {row[1] for row in shard.execute(f"PRAGMA table_info({name})")}
    if not present:
        return
    columns = [each if each in present else _ABSENT.get(each, "NULL") for each in _TABLES[name]]
    rows = shard.execute(f"SELECT {', '.join(columns)} FROM {name} ORDER BY rowid")
    if name == "changes":
        yield from ((merged_position(position, index, num_shards), text) for position, text in rows)
    else:
        yield from rows


def _read(file: pq.ParquetFile) -> Iterator[tuple[Any, ...]]:
    for batch in file.iter_batches(BATCH_ROWS):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _opened(files: Path, name: str) -> pq.ParquetFile:
    """The file, if it is one of ours."""
    path = files / f"{name}.parquet"
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(f"{path} cannot be read ({error}); give a folder that an export made") from None
    metadata = file.schema_arrow.metadata or {}
    if metadata.get(b"raybolt.parquet") != FORMAT[b"raybolt.parquet"]:
        raise StoreError(f"{path} is none of raybolt's, or of another version; give an export of this one")
    return file

"""A store's folder as Parquet files, and such files as a store's folder.

::

    rollouts.parquet  attempts.parquet  groups.parquet  resources.parquet
    spans.parquet     the fields of a span; attributes and events as JSON; every array attribute is a list
                      column named <attribute>:<dtype>, null where a span lacks it

Everything the journal holds goes there and comes back, but for the feed of changes, which begins anew. The
shards of a folder are put together: rollouts are then in the order in which they were enqueued.
"""

import json
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .blocks import PLAIN_COLUMNS, array_columns, list_cells
from .errors import InvalidValue, StoreError
from .journal import Journal
from .journal_rows import attempt_of, rollout_of
from .layout import num_shards_of
from .peek import journals_of, reading
from .rows import SpanRow
from .schema import SPAN_COLUMNS
from .types import Group, ResourcesUpdate

FORMAT = {b"raybolt.parquet": b"1"}
"""Metadata of every file."""
BATCH_ROWS = 2000
"""Spans written or read at a time."""

Progress = Callable[[int, int], None]
"""Called with the number of spans done and that of all."""

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
}
_ORDER = {"rollouts": "start_time", "attempts": "start_time", "groups": "create_time"}
"""What the rows of several shards are put in order by."""


def export_parquet(
    path: str | os.PathLike[str], out: str | os.PathLike[str], *, on_progress: Progress | None = None
) -> dict[str, int]:
    """Writes the store in a folder to Parquet files in another; returns how many rows each has.

    The store may be in use: every shard is read as it is at one moment. Raises StoreError if there is no
    store, and InvalidValue if ``out`` holds anything.
    """
    target = Path(out)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InvalidValue(f"{target} is not empty; give a new folder")
    with ExitStack() as stack:
        shards = [stack.enter_context(reading(file)) for file in journals_of(path)]
        target.mkdir(parents=True, exist_ok=True)
        counts = {name: _export_table(shards, name, target) for name in _TABLES}
        counts["spans"] = _export_spans(shards, target, on_progress)
    return counts


def import_parquet(
    source: str | os.PathLike[str], path: str | os.PathLike[str], *, on_progress: Progress | None = None
) -> dict[str, int]:
    """Makes a store of one shard in a new folder from Parquet files; returns how many rows were read.

    Raises StoreError if the files are not those that ``export_parquet`` writes, and InvalidValue if there is
    a store in the folder already.
    """
    folder, files = Path(path), Path(source)
    tables = {name: _read_table(files, name) for name in _TABLES}
    spans = _open_spans(files)
    if num_shards_of(folder) is not None:
        raise InvalidValue(f"{folder} holds a store already; give a new folder")
    journal = Journal(folder)
    try:
        for row in tables["rollouts"]:
            journal.rollout(*rollout_of(row))
        for row in tables["attempts"]:
            journal.attempt(attempt_of(row))
        for row in tables["groups"]:
            journal.group(Group(**dict(zip(_TABLES["groups"], row, strict=True))))
        for row in tables["resources"]:
            values = dict(zip(_TABLES["resources"], row, strict=True))
            journal.resources(ResourcesUpdate(**{**values, "resources": json.loads(values["resources"])}))
        journal.flush()
        total, done = spans.metadata.num_rows, 0
        for batch in spans.iter_batches(BATCH_ROWS):
            journal.spans(None, _rows(batch))
            journal.flush()
            done += batch.num_rows
            if on_progress is not None:
                on_progress(done, total)
    finally:
        journal.close()
    return {**{name: len(rows) for name, rows in tables.items()}, "spans": done}


def _export_table(shards: Sequence[sqlite3.Connection], name: str, target: Path) -> int:
    columns = _TABLES[name]
    rows: list[dict[str, Any]] = []
    for shard in shards:
        found = shard.execute(f"SELECT * FROM {name} ORDER BY rowid")
        known = [column for column, *_ in found.description]  # the first format had fewer
        rows += [dict(zip(known, row, strict=True)) for row in found]
    if len(shards) > 1 and name in _ORDER:
        rows.sort(key=lambda row: row.get(_ORDER[name]) or 0.0)
        queued = (row for row in rows if row.get("queue_position") is not None)
        for position, row in enumerate(queued):
            row["queue_position"] = position
    arrays = {
        column: pa.array(
            [row.get(column, 0.0 if column == "create_time" else None) for row in rows], type=kind
        )
        for column, kind in columns.items()
    }
    pq.write_table(pa.table(arrays).replace_schema_metadata(FORMAT), _file(target, name), compression="zstd")
    return len(rows)


def _export_spans(shards: Sequence[sqlite3.Connection], target: Path, on_progress: Progress | None) -> int:
    total = sum(shard.execute("SELECT count(*) FROM spans").fetchone()[0] for shard in shards)
    kinds = _array_kinds(shards)
    schema = pa.schema([*PLAIN_COLUMNS.items(), *kinds.items()], metadata=FORMAT)
    done = 0
    with pq.ParquetWriter(_file(target, "spans"), schema, compression="zstd") as writer:
        for shard in shards:
            rows = map(SpanRow._make, shard.execute(f"SELECT {SPAN_COLUMNS} FROM spans ORDER BY rowid"))
            while batch := list(islice(rows, BATCH_ROWS)):
                writer.write_table(_span_table(batch, schema))
                done += len(batch)
                if on_progress is not None:
                    on_progress(done, total)
    return done


def _array_kinds(shards: Sequence[sqlite3.Connection]) -> dict[str, pa.DataType]:
    """The list columns that all spans together need."""
    query = """
        SELECT DISTINCT json_extract(value, '$[0]'), json_extract(value, '$[1]')
        FROM spans, json_each(spans.layout) WHERE spans.layout != '[]'"""
    found = {pair for shard in shards for pair in shard.execute(query)}
    return {
        f"{attribute}:{dtype}": pa.list_(pa.from_numpy_dtype(np.dtype(dtype)))
        for attribute, dtype in sorted(found)
    }


def _span_table(rows: Sequence[SpanRow], schema: pa.Schema) -> pa.Table:
    columns: dict[str, pa.Array] = {
        name: pa.array([row[index] for row in rows], type=kind)
        for index, (name, kind) in enumerate(PLAIN_COLUMNS.items())
    }
    columns |= array_columns(rows)
    missing = [name for name in schema.names if name not in columns]
    columns |= {name: pa.nulls(len(rows), schema.field(name).type) for name in missing}
    return pa.table([columns[name].cast(schema.field(name).type) for name in schema.names], schema=schema)


def _rows(batch: pa.RecordBatch) -> list[SpanRow]:
    plain = [batch.column(name).to_pylist() for name in PLAIN_COLUMNS]
    arrays = [
        (*name.rsplit(":", 1), list_cells(batch.column(name)))
        for name in batch.schema.names[len(PLAIN_COLUMNS) :]
    ]
    rows = []
    for index, values in enumerate(zip(*plain, strict=True)):
        own = [(name, dtype, cells[index]) for name, dtype, cells in arrays if cells[index] is not None]
        layout = json.dumps([(name, dtype, len(cell)) for name, dtype, cell in own])
        rows.append(SpanRow._make((*values, layout, b"".join(cell.tobytes() for *_, cell in own))))
    return rows


def _read_table(files: Path, name: str) -> list[tuple[Any, ...]]:
    table = pq.read_table(_checked(files, name))
    columns = [table.column(column).to_pylist() for column in _TABLES[name]]
    return list(zip(*columns, strict=True))


def _open_spans(files: Path) -> pq.ParquetFile:
    return pq.ParquetFile(_checked(files, "spans"))


def _checked(files: Path, name: str) -> Path:
    """The file, if it is one of ours."""
    file = _file(files, name)
    try:
        metadata = pq.read_schema(file).metadata or {}
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(f"{file} cannot be read ({error}); give a folder that an export made") from None
    if metadata.get(b"raybolt.parquet") != FORMAT[b"raybolt.parquet"]:
        raise StoreError(f"{file} is none of raybolt's, or of another version; give an export of this one")
    return file


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.parquet"

"""The spans of journals as one Parquet file, and such a file as rows; and where they stand in the feed."""

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .blocks import PLAIN_COLUMNS, array_columns, list_cells
from .rows import SpanRow, dump_json
from .schema import SPAN_COLUMNS, first_span_id, position_of

POSITION = "position"
"""The column that says where in the feed a row stands; null for spans that came before there was one."""
_FIRST_ID = first_span_id(1)
_Progress = Callable[[int, int], None]


def merged_position(position: int, shard: int, num_shards: int) -> int:
    """Returns a change's position in the feed of all shards: theirs by turns, each in its own order."""
    return (position - 1) * num_shards + shard + 1


def write_rows(
    shards: Sequence[sqlite3.Connection],
    file: IO[bytes],
    *,
    metadata: Mapping[bytes, bytes],
    batch_rows: int,
    on_progress: _Progress | None,
) -> int:
    """Writes the spans, those without a position first; returns how many there are."""
    total = sum(shard.execute("SELECT count(*) FROM spans").fetchone()[0] for shard in shards)
    kinds = {POSITION: pa.int64(), **_array_kinds(shards)}
    schema = pa.schema([*PLAIN_COLUMNS.items(), *kinds.items()], metadata=metadata)
    rows, done = _rows(shards), 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while batch := list(islice(rows, batch_rows)):
            writer.write_table(_table(batch, schema))
            done += len(batch)
            if on_progress is not None:
                on_progress(done, total)
    return done


def read_rows(file: pq.ParquetFile, *, batch_rows: int) -> Iterator[tuple[int | None, SpanRow]]:
    """Yields the spans in the file's order, each behind its position."""
    for batch in file.iter_batches(batch_rows):
        yield from zip(batch.column(POSITION).to_pylist(), _rows_of(batch), strict=True)


def _rows(shards: Sequence[sqlite3.Connection]) -> Iterator[tuple[int | None, SpanRow]]:
    for where in (f"rowid < {_FIRST_ID}", f"rowid >= {_FIRST_ID}"):
        for index, shard in enumerate(shards):
            found = shard.execute(f"SELECT rowid, {SPAN_COLUMNS} FROM spans WHERE {where} ORDER BY rowid")
            for id, *values in found:
                position = position_of(id)
                merged = merged_position(position, index, len(shards)) if position > 0 else None
                yield merged, SpanRow._make(values)


def _array_kinds(shards: Sequence[sqlite3.Connection]) -> dict[str, pa.DataType]:
    """The list columns that all spans together need."""
    # As JSON: a name of its own would end at its first NUL.
    query = """
        SELECT DISTINCT json_extract(value, '$[0]', '$[1]')
        FROM spans, json_each(spans.layout) WHERE spans.layout != '[]'"""
    found = {tuple(json.loads(pair)) for shard in shards for (pair,) in shard.execute(query)}
    return {
        f"{attribute}:{dtype}": pa.list_(pa.from_numpy_dtype(np.dtype(dtype)))
        for attribute, dtype in sorted(found)
    }


def _table(batch: Sequence[tuple[int | None, SpanRow]], schema: pa.Schema) -> pa.Table:
    rows = [row for _, row in batch]
    columns: dict[str, pa.Array] = {
        name: pa.array([row[index] for row in rows], type=kind)
        for index, (name, kind) in enumerate(PLAIN_COLUMNS.items())
    }
    columns[POSITION] = pa.array([position for position, _ in batch], type=pa.int64())
    columns |= array_columns(rows)
    missing = [name for name in schema.names if name not in columns]
    columns |= {name: pa.nulls(len(rows), schema.field(name).type) for name in missing}
    return pa.table([columns[name].cast(schema.field(name).type) for name in schema.names], schema=schema)


def _rows_of(batch: pa.RecordBatch) -> list[SpanRow]:
    plain = [batch.column(name).to_pylist() for name in PLAIN_COLUMNS]
    arrays: list[tuple[str, str, Any]] = [
        (*name.rsplit(":", 1), list_cells(batch.column(name)))
        for name in batch.schema.names[len(PLAIN_COLUMNS) + 1 :]
    ]
    rows = []
    for index, values in enumerate(zip(*plain, strict=True)):
        own = [(name, dtype, cells[index]) for name, dtype, cells in arrays if cells[index] is not None]
        layout = dump_json([(name, dtype, len(cell)) for name, dtype, cell in own], "layout")
        rows.append(SpanRow._make((*values, layout, b"".join(cell.tobytes() for *_, cell in own))))
    return rows

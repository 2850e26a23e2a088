"""Groups as Arrow tables: what the store seals, and what the learner reads without copying tokens.

A table has a row per span. Plain fields are columns of their own names; each array attribute is a list
column named ``<attribute>:<dtype>``, for instance ``raybolt.prompt_ids:int32``, null where a span lacks it.
Rollouts and attempts stand as JSON in the schema's metadata under ``raybolt.group``. Only the last attempt
of a rollout is sealed: the learner has no use for the spans of superseded ones.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from . import names
from .errors import InvalidValue, StoreFull
from .remote_block import RemoteBlock
from .rows import SpanRow, iter_arrays, make_span, pack_span
from .types import Attempt, GroupData, GroupHandle, Rollout, RolloutConfig, RolloutData, Span

FETCH_SECONDS = 600.0
"""How long Ray may take to bring groups to a node. Without room to put them it would take for ever."""
_METADATA_KEY = b"raybolt.group"

PLAIN_COLUMNS = {
    "rollout_id": pa.string(),
    "attempt_id": pa.string(),
    "sequence_id": pa.int64(),
    "trace_id": pa.string(),
    "span_id": pa.string(),
    "parent_id": pa.string(),
    "name": pa.string(),
    "start_time": pa.float64(),
    "end_time": pa.float64(),
    "status": pa.string(),
    "status_message": pa.string(),
    "attributes": pa.string(),
    "events": pa.string(),
}
"""Column types of the first fields of ``SpanRow``, in its order."""


def encode_group(rollouts: Sequence[Rollout], attempts: Iterable[Attempt], spans: Iterable[Span]) -> pa.Table:
    """Returns the group's table; of each rollout the attempt with the highest sequence id is kept.

    The rollouts must all name the same group; raises InvalidValue otherwise.
    """
    last: dict[str, Attempt] = {}
    for attempt in sorted(attempts, key=lambda attempt: attempt.sequence_id):
        last[attempt.rollout_id] = attempt
    rows: dict[str, list[SpanRow]] = {attempt.attempt_id: [] for attempt in last.values()}
    for span in sorted(spans, key=lambda span: span.sequence_id):
        if span.attempt_id in rows:
            rows[span.attempt_id].append(pack_span(span))
    group_ids = {rollout.group_id for rollout in rollouts}
    group_id = next(iter(group_ids), None)
    if group_id is None or len(group_ids) > 1:
        raise InvalidValue(f"rollouts name the groups {sorted(map(str, group_ids))}; give those of one group")
    members = [(rollout, last.get(rollout.rollout_id)) for rollout in rollouts]
    return encode_rows(
        group_id,
        next((rollout.task_id for rollout in rollouts if rollout.task_id is not None), None),
        [(rollout, attempt, rows[attempt.attempt_id] if attempt else []) for rollout, attempt in members],
    )


def encode_rows(
    group_id: str, task_id: str | None, members: Sequence[tuple[Rollout, Attempt | None, Sequence[SpanRow]]]
) -> pa.Table:
    """Returns a group's table, given each rollout with its last attempt and that one's rows, in order."""
    rows = [row for _, _, own in members for row in own]
    columns = {
        name: pa.array([row[index] for row in rows], type=kind)
        for index, (name, kind) in enumerate(PLAIN_COLUMNS.items())
    }
    about = {
        "group_id": group_id,
        "task_id": task_id,
        "rollouts": [
            (
                {**_fields(rollout), "config": _fields(rollout.config)},
                _fields(attempt) if attempt else None,
            )
            for rollout, attempt, _ in members
        ],
    }
    table = pa.table(columns | array_columns(rows))
    return table.replace_schema_metadata({_METADATA_KEY: json.dumps(about)})


def decode_group(table: pa.Table) -> GroupData:
    """Returns the group of a table; token arrays are read-only views of the table's buffers."""
    spans: dict[str, list[Span]] = {}
    for span in _decode_spans(table):
        spans.setdefault(span.attempt_id, []).append(span)
    about = json.loads(table.schema.metadata[_METADATA_KEY])
    members = []
    for rollout_fields, attempt_fields in about["rollouts"]:
        config = rollout_fields.pop("config")
        config["retry_condition"] = tuple(config["retry_condition"])
        rollout = Rollout(config=RolloutConfig(**config), **rollout_fields)
        attempt = Attempt(**attempt_fields) if attempt_fields else None
        own = spans.get(attempt.attempt_id, []) if attempt else []
        members.append(RolloutData(rollout, attempt, tuple(own)))
    return GroupData(about["group_id"], about["task_id"], tuple(members))


def read_group(handle: GroupHandle) -> GroupData:
    """Returns the group behind a handle, wherever its table lies; blocks while it is fetched."""
    if isinstance(handle.ref, pa.Table):
        return decode_group(handle.ref)
    if isinstance(handle.ref, RemoteBlock):
        return decode_group(handle.ref.table())
    return decode_group(fetch_tables([handle.ref])[0])


def fetch_tables(refs: Sequence[Any]) -> list[pa.Table]:
    """Returns the tables of handles of a ``RayStore``; blocks until all are on this node.

    Raises StoreFull if that takes longer than ``FETCH_SECONDS``.
    """
    import ray  # a handle of a LocalStore is read without Ray

    try:
        tables: list[pa.Table] = ray.get(list(refs), timeout=FETCH_SECONDS)
    except ray.exceptions.GetTimeoutError:
        raise StoreFull(
            f"Ray has not brought {len(refs)} groups here within {FETCH_SECONDS:g} s, as happens when its "
            "object store is full and so is the disk it spills to (`ray memory` and `df` tell): let go of "
            "handles and of what was read from them, read fewer at a time, or make room on the disk"
        ) from None
    return tables


def num_sampled_tokens(table: pa.Table) -> int:
    """Returns the summed length of the response ids in a table made by ``encode_rows``."""
    column_names = [name for name in table.column_names if name.startswith(names.RESPONSE_IDS + ":")]
    return sum(len(table.column(name).chunk(0).values) for name in column_names)


class SealedTable:
    """Pickles as one Arrow stream and unpickles as the table itself, whose buffers are views of it.

    Left to itself Ray pickles a table column by column, which takes five times as long to read.
    """

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __reduce__(self) -> tuple[Any, ...]:
        measured = pa.MockOutputStream()
        self._write(measured)
        # Room of the right size: a buffer that grows copies what it has each time.
        buffer = pa.allocate_buffer(measured.size())
        self._write(pa.FixedSizeBufferWriter(buffer))
        return _open_stream, (buffer,)

    def _write(self, sink: pa.NativeFile) -> None:
        with pa.ipc.new_stream(sink, self._table.schema) as stream:
            stream.write_table(self._table)


def _open_stream(buffer: pa.Buffer) -> pa.Table:
    return pa.ipc.open_stream(buffer).read_all()


def _fields(record: Rollout | RolloutConfig | Attempt) -> dict[str, Any]:
    """Returns the record's fields, without the deep copies of ``dataclasses.asdict``."""
    return {each.name: getattr(record, each.name) for each in fields(record)}


def array_columns(rows: Sequence[SpanRow]) -> dict[str, pa.Array]:
    """Returns the list columns of the rows' array attributes."""
    cells: dict[str, dict[int, npt.NDArray[Any]]] = {}
    for index, row in enumerate(rows):
        for attribute, dtype, array in iter_arrays(row):
            cells.setdefault(f"{attribute}:{dtype}", {})[index] = array
    return {name: _list_column(column, len(rows)) for name, column in cells.items()}


def _list_column(cells: dict[int, npt.NDArray[Any]], num_rows: int) -> pa.Array:
    """Returns the list column that has ``cells[i]`` in row i and null in every other row."""
    lengths = np.zeros(num_rows + 1, np.int64)
    missing = np.ones(num_rows, bool)
    for index, array in cells.items():
        lengths[index + 1] = len(array)
        missing[index] = False
    offsets = np.cumsum(lengths).astype(np.int32)
    values = np.concatenate(list(cells.values()))
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values), mask=pa.array(missing))


def _decode_spans(table: pa.Table) -> Iterable[Span]:
    table = table.combine_chunks()  # copies nothing: an encoded table has one chunk per column
    plain = [table.column(name).to_pylist() for name in PLAIN_COLUMNS]
    arrays = [
        (name.rsplit(":", 1)[0], list_cells(table.column(name).chunk(0)))
        for name in table.column_names[len(PLAIN_COLUMNS) :]
    ]
    for index, values in enumerate(zip(*plain, strict=True)):
        row = SpanRow._make((*values, "[]", b""))
        attributes = json.loads(row.attributes)
        attributes.update((name, cells[index]) for name, cells in arrays if cells[index] is not None)
        yield make_span(row, attributes)


def list_cells(column: pa.ListArray) -> list[npt.NDArray[Any] | None]:
    """Returns each row's array as a view of the column's values; None where there is none."""
    values = column.values.to_numpy(zero_copy_only=True)
    offsets = column.offsets.to_numpy()
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    return [
        values[start:end] if present else None
        for start, end, present in zip(offsets[:-1], offsets[1:], valid, strict=True)
    ]

"""Spans as flat rows: the one form in which they travel, are journalled and are sealed.

A row is made once, where the span was recorded. The shard then only moves strings and bytes: it parses no
JSON and touches no array, which is what keeps it cheap.
"""

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import InvalidValue
from .plain import check_span
from .types import ARRAY_DTYPES, Json, Span, SpanEvent, SpanStatus

MAX_DEPTH = 300
"""How deep JSON may be nested: what reads and writes it takes a frame of Python's stack for every level."""


class SpanRow(NamedTuple):
    """A span without Python objects in it; the fields are those of ``Span`` unless said otherwise."""

    rollout_id: str
    attempt_id: str
    sequence_id: int
    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    start_time: float
    end_time: float
    status: SpanStatus
    status_message: str | None
    attributes: str
    """JSON object of the attributes that are not arrays."""
    events: str
    """JSON list of ``[name, time, attributes]``."""
    layout: str
    """JSON list of ``[attribute, dtype, length]``, one per array attribute, in the order of ``arrays``."""
    arrays: bytes
    """The array attributes' little-endian elements, one after the other."""


def pack_span(span: Span) -> SpanRow:
    """Returns the span as a row; raises InvalidValue for a field or attribute that cannot be stored."""
    check_span(span)
    plain: dict[str, Json] = {}
    layout: list[tuple[str, str, int]] = []
    parts: list[memoryview] = []  # copied once, when they are joined
    for name, value in span.attributes.items():
        if isinstance(value, np.ndarray):
            layout.append((name, _dtype_name(name, value), len(value)))
            parts.append(np.ascontiguousarray(value).data)
        else:
            plain[name] = value
    return SpanRow(
        span.rollout_id,
        span.attempt_id,
        span.sequence_id,
        span.trace_id,
        span.span_id,
        span.parent_id,
        span.name,
        span.start_time,
        span.end_time,
        span.status,
        span.status_message,
        dump_json(plain, f"attributes of span {span.name!r}"),
        dump_json(
            [(e.name, e.time, dict(e.attributes)) for e in span.events], f"events of span {span.name!r}"
        )
        if span.events
        else "[]",
        _ENCODER.encode(layout) if layout else "[]",
        b"".join(parts),
    )


def unpack_span(row: SpanRow) -> Span:
    """Returns the span of a row; its arrays are read-only views of the row's bytes."""
    attributes = _decode(row.attributes)[0]
    for name, _, array in iter_arrays(row):
        attributes[name] = array
    return make_span(row, attributes)


def make_span(row: SpanRow, attributes: dict[str, Any]) -> Span:
    """Returns the span with the row's plain fields and the given attributes."""
    return Span(
        rollout_id=row.rollout_id,
        attempt_id=row.attempt_id,
        sequence_id=row.sequence_id,
        trace_id=row.trace_id,
        span_id=row.span_id,
        parent_id=row.parent_id,
        name=row.name,
        start_time=row.start_time,
        end_time=row.end_time,
        status=row.status,
        status_message=row.status_message,
        attributes=attributes,
        events=tuple(SpanEvent(*event) for event in json.loads(row.events)) if row.events != "[]" else (),
    )


def iter_arrays(row: SpanRow) -> Iterable[tuple[str, str, npt.NDArray[Any]]]:
    """Yields the row's array attributes as (name, dtype name, read-only 1-D view)."""
    if row.layout == "[]":
        return
    offset = 0
    for name, dtype, length in _decode(row.layout)[0]:
        array = np.frombuffer(row.arrays, _DTYPES[dtype], length, offset)
        offset += array.nbytes
        yield name, dtype, array


def dump_json(value: Json, field: str, *, allowed: str = "JSON values or 1-D arrays") -> str:
    """Returns the value as compact JSON text, NumPy scalars as numbers.

    InvalidValue names the field for what is no JSON or nested deeper than ``MAX_DEPTH``.
    """
    try:
        text = _ENCODER.encode(value)
    except (TypeError, ValueError) as error:
        raise InvalidValue(f"{field} cannot be stored: {error}; give {allowed}") from None
    except RecursionError:
        text = ""
    if not text or (text.count("[") + text.count("{") > MAX_DEPTH and _is_deep(value)):
        raise InvalidValue(f"{field} is nested more than {MAX_DEPTH} deep; give flatter JSON")
    return text


def _is_deep(value: Json) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list | tuple)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return bool(level)


def _plain_scalar(value: object) -> Json:
    if isinstance(value, np.generic):
        return value.item()
    kind = f"a {value.ndim}-D array inside a list or dict" if isinstance(value, np.ndarray) else repr(value)
    raise TypeError(f"{kind} of type {type(value).__name__} is not JSON")


_ENCODER = json.JSONEncoder(separators=(",", ":"), default=_plain_scalar)
_decode = json.JSONDecoder().raw_decode  # takes half the time of `json.loads`, which looks for spaces around
# Look-ups, since NumPy takes a microsecond for either direction.
_DTYPES = {name: np.dtype(name) for name in ARRAY_DTYPES}
_DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def _dtype_name(name: str, array: npt.NDArray[Any]) -> str:
    if array.ndim != 1:
        raise InvalidValue(f"attribute {name!r} is an array of shape {array.shape}; give a 1-D array")
    dtype = _DTYPE_NAMES.get(array.dtype)
    if dtype is None:
        raise InvalidValue(
            f"attribute {name!r} is an array of {array.dtype}; convert it to one of {', '.join(ARRAY_DTYPES)}"
        )
    return dtype

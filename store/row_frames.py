"""Spans on the wire: packed, as programs send them, and as JSON that can be read and typed.

A packed frame is the length of its head (8 bytes, little-endian), the head, which is JSON with the rows less
their arrays, and then all the arrays' bytes, row after row. The JSON form of a span has the fields of
``Span``; array attributes stand beside the others under ``arrays``, as dtype and values.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Final

import numpy as np

from .errors import InvalidValue
from .plain import are_fields_sound, check_texts, is_unicode
from .rows import MAX_DEPTH, SpanRow, dump_json, iter_arrays, pack_span, unpack_span
from .types import ARRAY_DTYPES, Json, Span, SpanEvent, SpanStatus
from .wire import checked_text, decoder, load

ROWS_TYPE: Final = "application/vnd.raybolt.rows"
"""Media type of a packed frame."""

_LENGTH_BYTES = 8
_ENCODER = json.JSONEncoder(separators=(",", ":"), check_circular=False)
_ITEM_BYTES = {name: np.dtype(name).itemsize for name in ARRAY_DTYPES}


def pack_rows(rows: Sequence[SpanRow], next_offset: int | None = None) -> bytes:
    """Returns the rows as a frame, which may say where the next page begins."""
    plain = [(*row[:-1], len(row.arrays)) for row in rows]
    head = _ENCODER.encode({"rows": plain, "next_offset": next_offset}).encode()
    return b"".join([len(head).to_bytes(_LENGTH_BYTES, "little"), head, *(row.arrays for row in rows)])


def unpack_rows(frame: bytes, *, check: bool) -> tuple[list[SpanRow], int | None]:
    """Returns a frame's rows and next offset; InvalidValue for what is no frame.

    Checked, each row is one that ``pack_span`` could have made: what a server needs to know of a stranger's.
    """
    start = _LENGTH_BYTES + int.from_bytes(frame[:_LENGTH_BYTES], "little")
    head = load(frame[_LENGTH_BYTES:start], "the head of the packed spans")
    if not isinstance(head, dict) or not isinstance(head.get("rows"), list):
        raise InvalidValue('the head of the packed spans has no list "rows"')
    rows = []
    for index, values in enumerate(head["rows"]):
        if not isinstance(values, list) or len(values) != len(SpanRow._fields) or not _is_size(values[-1]):
            raise InvalidValue(
                f"rows[{index}] of the packed spans does not have {len(SpanRow._fields)} fields"
            )
        end = start + values[-1]
        values[-1] = frame[start:end]
        row = SpanRow._make(values)
        rows.append(_checked(row, f"rows[{index}]") if check and not _is_sound(row) else row)
        start = end
    if start != len(frame):
        raise InvalidValue(f"the packed spans announce {start} bytes and have {len(frame)}")
    return rows, head.get("next_offset")


def span_fields(row: SpanRow) -> dict[str, Json]:
    """Returns the span as JSON that can be read."""
    span = unpack_span(row)
    arrays = {name: {"dtype": dtype, "values": array.tolist()} for name, dtype, array in iter_arrays(row)}
    plain = {name: value for name, value in span.attributes.items() if name not in arrays}
    found = {each.name: getattr(span, each.name) for each in fields(span)}
    return {**found, "attributes": plain, "arrays": arrays}


def row_from_fields(value: Json, field: str) -> SpanRow:
    """Returns the row of a span in JSON; InvalidValue names the field that is wrong."""
    if not isinstance(value, dict):
        raise InvalidValue(f"{field} is no object; give a span's fields")
    plain = {name: each for name, each in value.items() if name != "arrays"}
    span = decoder(Span, strict=True)(plain, field)
    arrays = value.get("arrays", {})
    if not isinstance(arrays, dict):
        raise InvalidValue(f"{field}.arrays is no object; give attributes' names with dtype and values")
    for name, each in arrays.items():
        span.attributes[checked_text(name, f"{field}.arrays")] = _array(each, f"{field}.arrays[{name!r}]")
    return _checked(pack_span(span), field)


def _array(value: Json, field: str) -> np.ndarray[Any, Any]:
    if not isinstance(value, dict) or set(value) != {"dtype", "values"}:
        raise InvalidValue(f'{field} is no array; give {{"dtype": "int32", "values": [...]}}')
    if value["dtype"] not in ARRAY_DTYPES:
        raise InvalidValue(f"{field} has the dtype {value['dtype']!r}; give one of {', '.join(ARRAY_DTYPES)}")
    values = value["values"]
    if isinstance(values, list):
        values = [_NOT_FINITE.get(each, each) if type(each) is str else each for each in values]
    if not isinstance(values, list) or not all(type(each) in (int, float) for each in values):
        raise InvalidValue(f"{field}.values is no list of numbers")
    dtype = np.dtype(value["dtype"])
    if dtype.kind != "f" and not all(type(each) is int for each in values):
        raise InvalidValue(f"{field}.values has fractions, but the dtype {dtype}")
    try:
        with np.errstate(over="raise"):
            return np.array(values, dtype)
    except (OverflowError, FloatingPointError):
        raise InvalidValue(f"{field}.values has numbers that no {dtype} can hold") from None


_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""What a server writes for numbers that JSON lacks."""
_ROW_KINDS: tuple[Any, ...] = (
    str, str, int, str, str, str | None, str, float, float, SpanStatus, str | None, str, str, str,
)  # fmt: skip
_EVENT = decoder(tuple[str, float, dict[str, Any]], strict=True)
_LAYOUT = decoder(list[tuple[str, str, int]], strict=True)
_decode = json.JSONDecoder().raw_decode


def _is_sound(row: SpanRow) -> bool:
    """What `_checked` finds out, in a fifth of its time; False also for some that it has nothing against."""
    attributes, layout = row.attributes, row.layout
    try:
        decoded, end = _decode(attributes)
        return (
            are_fields_sound(row)
            and is_unicode(attributes)
            and type(decoded) is dict
            and end == len(attributes)
            and (end <= 2 * MAX_DEPTH or attributes.count("[") + attributes.count("{") <= MAX_DEPTH)
            and row.events == "[]"
            and (len(row.arrays) == 0 if layout == "[]" else _num_bytes(layout) == len(row.arrays))
        )
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        return False


def _num_bytes(layout: str) -> int | None:
    """The bytes of the layout's arrays; None, or one of several errors, for what may be no layout."""
    arrays, end = _decode(layout)
    if type(arrays) is not list or end != len(layout):
        return None
    num_bytes = 0
    for name, dtype, length in arrays:
        if type(name) is not str or not is_unicode(name) or type(length) is not int or length < 0:
            return None
        num_bytes += _ITEM_BYTES[dtype] * length
    return num_bytes


def _checked(row: SpanRow, field: str) -> SpanRow:
    values = [
        decoder(kind, strict=True)(value, f"{field}.{name}")
        for kind, value, name in zip(_ROW_KINDS, row[:-1], SpanRow._fields, strict=False)
    ]
    row = SpanRow._make((*values, row.arrays))
    check_texts(row, f"{field}.")
    # Readers expect the texts to begin and end with what they hold.
    row = row._replace(attributes=row.attributes.strip(), layout=row.layout.strip())
    if not isinstance(_loaded(row.attributes, f"{field}.attributes"), dict):
        raise InvalidValue(f"{field}.attributes is no object")
    if row.events != "[]":
        events = _loaded(row.events, f"{field}.events")
        if not isinstance(events, list):
            raise InvalidValue(f"{field}.events is no list")
        for event in events:
            SpanEvent(*_EVENT(event, f"{field}.events"))
    _check_layout(row, field)
    return row


def _loaded(text: str, field: str) -> Json:
    value: Json = load(text, field)
    dump_json(value, field)  # which refuses what is nested too deeply
    return value


def _check_layout(row: SpanRow, field: str) -> None:
    layout = [] if row.layout == "[]" else _LAYOUT(load(row.layout, f"{field}.layout"), f"{field}.layout")
    for name, dtype, length in layout:
        if dtype not in _ITEM_BYTES or length < 0:
            raise InvalidValue(f"{field}.layout: {name!r} is {length} times {dtype!r}")
    num_bytes = sum(_ITEM_BYTES[dtype] * length for _, dtype, length in layout)
    if num_bytes != len(row.arrays):
        raise InvalidValue(f"{field}.layout names {num_bytes} bytes; the arrays have {len(row.arrays)}")


def _is_size(value: Any) -> bool:
    return type(value) is int and value >= 0

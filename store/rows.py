"""Spans as flat rows: the one form in which they travel, are journalled and are sealed.

A row is made once, where the span was recorded. The shard then only moves strings and bytes: it parses no
JSON and touches no array, which is what keeps it cheap.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
import numpy.typing as npt

from .errors import InvalidValue
from .plain import check_span, is_unicode
from .types import ARRAY_DTYPES, Json, Span, SpanEvent, SpanStatus

MAX_DEPTH = 300
"""How deep JSON may be nested: what reads and writes it takes a frame of Python's stack for every level."""
MAX_BYTES = 2**28
"""How long a JSON value, or all arrays of a span, may be: SQLite holds no row above 10**9 bytes."""


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


_NUM_PLAIN = SpanRow._fields.index("attributes")
"""How many fields of a row are those of its span as they are; they come first."""
_plain_values = attrgetter(*SpanRow._fields[:_NUM_PLAIN])


def pack_span(span: Span) -> SpanRow:
    """Returns the span as a row; raises InvalidValue for a field or attribute that cannot be stored."""
    check_span(span)
    plain: dict[str, Json] = {}
    layout: list[tuple[str, str, int]] = []
    parts: list[npt.NDArray[Any]] = []  # copied once, when they are joined
    for name, value in span.attributes.items():
        if isinstance(value, np.ndarray):
            layout.append((_array_name(name), _dtype_name(name, value), len(value)))
            parts.append(np.ascontiguousarray(value))
        else:
            plain[name] = value
    if parts and sum(part.nbytes for part in parts) > MAX_BYTES:
        raise InvalidValue(f"the arrays of span {span.name!r} have over {MAX_BYTES} bytes; give shorter ones")
    values = (
        *_plain_values(span if type(span.start_time) is type(span.end_time) is float else _timed(span)),
        dump_json(plain, f"attributes of span {span.name!r}"),
        dump_json(
            [(e.name, e.time, dict(e.attributes)) for e in span.events], f"events of span {span.name!r}"
        )
        if span.events
        else "[]",
        _encode(layout) if layout else "[]",
        b"".join(parts),  # type: ignore[arg-type]  # an array is a buffer
    )
    return tuple.__new__(SpanRow, values)  # as `_make` does, less its own check


def _timed(span: Span) -> Span:
    """The span with times that files and tables hold: whole numbers may be too large for both."""
    return replace(span, start_time=float(span.start_time), end_time=float(span.end_time))


def unpack_span(row: SpanRow) -> Span:
    """Returns the span of a row, as `unpack_spans` does."""
    return unpack_spans([row])[0]


def unpack_spans(rows: Sequence[SpanRow]) -> list[Span]:
    """Returns the spans of rows: arrays are read-only views of the rows' bytes, all else is a span's own.

    Attributes and events are decoded when they are first looked at, for each span by itself: who queries an
    attempt's spans mostly wants a few of them.
    """
    return [_make_span(_UnreadSpan, row, row, ()) for row in rows]


def make_span(row: SpanRow, attributes: dict[str, Any]) -> Span:
    """Returns the span with the row's plain fields and events and the given attributes."""
    return _make_span(Span, row, attributes, _events(row))


class _UnreadSpan(Span):
    """A span that holds its row in place of its attributes; it becomes a plain ``Span`` when these are read.

    Threads may read at once: each decodes for itself, and what one sets the other may find or set again.
    """

    __slots__ = ()

    def __new__(cls, *args: Any, **fields: Any) -> Any:
        """Makes a ``Span``: whoever replaces fields of one makes another of its class."""
        return Span(*args, **fields)

    @property
    def attributes(self) -> dict[str, Any]:
        held = _get_attributes(self)
        return _read(self, held) if type(held) is SpanRow else held

    @property
    def events(self) -> tuple[SpanEvent, ...]:
        return _whole(self).events

    def __repr__(self) -> str:
        return repr(_whole(self))

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        return _whole(self).__reduce_ex__(protocol)


# Direct ways around what a frozen class and a property forbid.
_get_attributes: Callable[[Span], Any] = Span.__dict__["attributes"].__get__
_set_attributes: Callable[[Span, Any], None] = Span.__dict__["attributes"].__set__
_set_events: Callable[[Span, Any], None] = Span.__dict__["events"].__set__
_set_class: Callable[[Span, type[Span]], None] = object.__dict__["__class__"].__set__


def _read(span: _UnreadSpan, row: SpanRow) -> dict[str, Any]:
    """Makes it a ``Span`` with the row's attributes and events; returns the former."""
    attributes: dict[str, Any] = _decode(row.attributes)[0]
    arrays = row.arrays
    for name, dtype, length, offset in _places(row.layout):
        attributes[name] = _frombuffer(arrays, dtype, length, offset)
    if row.events != "[]":
        _set_events(span, _events(row))  # first, as attributes tell other threads that both are read
    _set_attributes(span, attributes)
    _set_class(span, Span)
    return attributes


def _whole(span: _UnreadSpan) -> Span:
    """The span as a ``Span``."""
    held = _get_attributes(span)
    if type(held) is SpanRow:
        _read(span, held)
    else:
        _set_class(span, Span)  # as the thread that was quicker is about to do
    return span


def _events(row: SpanRow) -> tuple[SpanEvent, ...]:
    return () if row.events == "[]" else tuple([SpanEvent(*event) for event in _decode(row.events)[0]])


class _UnfrozenSpan:
    """A span that is being made. It has a span's slots, which is what lets it become one."""

    __slots__ = Span.__slots__


def _make_span(
    kind: type[Span], row: SpanRow, attributes: dict[str, Any] | SpanRow, events: tuple[SpanEvent, ...]
) -> Span:
    span: Any = _UnfrozenSpan()  # a frozen one's fields are set by calls, which take seven times as long
    (
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
    ) = row[:_NUM_PLAIN]
    span.attributes = attributes
    span.events = events
    span.__class__ = kind
    made: Span = span
    return made


def iter_arrays(row: SpanRow) -> Iterable[tuple[str, str, npt.NDArray[Any]]]:
    """Yields the row's array attributes as (name, dtype name, read-only 1-D view)."""
    for name, dtype, length, offset in _places(row.layout):
        yield name, _DTYPE_NAMES[dtype], np.frombuffer(row.arrays, dtype, length, offset)


def _places(layout: str) -> tuple[tuple[str, np.dtype[Any], int, int], ...]:
    """Where a layout's arrays are among a row's bytes: name, dtype, length and offset of each."""
    return _known_places(layout) if len(layout) <= _KEPT_LENGTH else _find_places(layout)


def _find_places(layout: str) -> tuple[tuple[str, np.dtype[Any], int, int], ...]:
    places = []
    offset = 0
    for name, dtype_name, length in _decode(layout)[0]:
        dtype, item_bytes = _DTYPES[dtype_name]
        places.append((name, dtype, length, offset))
        offset += length * item_bytes
    return tuple(places)


_KEPT_LENGTH = 500
"""Characters of the longest layout that is remembered, so that a thousand of them take little memory."""
_known_places = lru_cache(maxsize=1000)(_find_places)


def dump_json(value: Json, field: str, *, allowed: str = "JSON values or 1-D arrays") -> str:
    """Returns the value as compact JSON text, NumPy scalars as numbers.

    InvalidValue names the field for what is no JSON or nested deeper than ``MAX_DEPTH``.
    """
    try:
        text = _encode(value)
    except (TypeError, ValueError) as error:
        raise InvalidValue(f"{field} cannot be stored: {error}; give {allowed}") from None
    except RecursionError:
        text = ""
    if len(text) > MAX_BYTES:
        raise InvalidValue(
            f"{field} has over {MAX_BYTES} bytes as JSON; keep it in a file, and store its path"
        )
    if not text or (len(text) > 2 * MAX_DEPTH and _is_deep(value, text)):
        raise InvalidValue(f"{field} is nested more than {MAX_DEPTH} deep; give flatter JSON")
    return text


def _is_deep(value: Json, text: str) -> bool:
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
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


def _fast_encoder() -> Callable[[Json], str]:
    """What `JSONEncoder.encode` does, less what it makes anew for every value: half of its time for a span.

    It looks for no circles: a value that holds itself is too deep.
    """
    of = json.encoder
    try:
        chunks_of = of.c_make_encoder(  # type: ignore[attr-defined]  # not every Python has it
            None, _plain_scalar, of.encode_basestring_ascii, None, ":", ",", False, False, True
        )
    except (AttributeError, TypeError):
        return json.JSONEncoder(separators=(",", ":"), default=_plain_scalar, check_circular=False).encode
    return lambda value: "".join(chunks_of(value, 0))


_encode = _fast_encoder()
_frombuffer = np.frombuffer
_decode = json.JSONDecoder().raw_decode  # takes half the time of `json.loads`, which looks for spaces around
# Look-ups, since NumPy takes a microsecond for either direction.
_DTYPES = {name: (np.dtype(name), np.dtype(name).itemsize) for name in ARRAY_DTYPES}
_DTYPE_NAMES = {dtype: name for name, (dtype, _) in _DTYPES.items()}


def _array_name(name: str) -> str:
    if not isinstance(name, str) or not is_unicode(name):
        raise InvalidValue(f"an attribute is called {name!r}; give a text that is valid Unicode")
    return name


def _dtype_name(name: str, array: npt.NDArray[Any]) -> str:
    if array.ndim != 1:
        raise InvalidValue(f"attribute {name!r} is an array of shape {array.shape}; give a 1-D array")
    dtype = _DTYPE_NAMES.get(array.dtype)
    if dtype is None:
        raise InvalidValue(
            f"attribute {name!r} is an array of {array.dtype}; convert it to one of {', '.join(ARRAY_DTYPES)}"
        )
    return dtype

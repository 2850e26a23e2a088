"""Text, numbers and times that files and messages can hold as they are; what they cannot is refused here.

It has to be refused before anything is changed: a value that only the journal finds fault with would leave
memory ahead of the file.
"""

from collections.abc import Mapping
from typing import Any, get_args

from .errors import InvalidValue
from .types import Span, SpanEvent, SpanStatus

LARGEST = 2**63 - 1  # of SQLite's whole numbers
LARGEST_FLOAT = 1e300  # nearly; whole numbers up to here are floats, too
_SPAN_STATUSES = get_args(SpanStatus)


def checked_text(value: str, field: str) -> str:
    """Returns an id or a name; InvalidValue for what is no text, empty, or no valid Unicode."""
    if not isinstance(value, str) or not value or not is_unicode(value):
        raise InvalidValue(f"{field} is {value!r}; give a text that is not empty and valid Unicode")
    return value


def checked_whole(value: int, field: str) -> int:
    """Returns the number; InvalidValue for what is no whole number below 2**63."""
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > LARGEST:
        raise InvalidValue(f"{field} is {value!r}; give a whole number below 2**63")
    return value


def checked_time(value: float, field: str) -> float:
    """Returns the time; InvalidValue for what is no finite number."""
    if not isinstance(value, float | int) or isinstance(value, bool) or not abs(value) <= LARGEST_FLOAT:
        raise InvalidValue(f"{field} is {value!r}; give seconds since 1970")
    return value


def check_texts(span: Any, where: str = "") -> None:
    """Raises InvalidValue for a span, or its row, that lacks one of its ids or its name."""
    for field in ("rollout_id", "attempt_id", "trace_id", "span_id", "name"):
        checked_text(getattr(span, field), f"{where}{field}")


def check_span(span: Span) -> None:
    """Raises InvalidValue, naming the field, for a span with a plain field that cannot be kept."""
    if not isinstance(span, Span):
        raise InvalidValue(f"spans holds {span!r}; give a Span")
    if are_fields_sound(span) and type(span.attributes) is dict and not span.events:
        return
    check_texts(span)
    for field in ("parent_id", "status_message"):
        if getattr(span, field) not in (None, ""):
            checked_text(getattr(span, field), field)
    checked_whole(span.sequence_id, "sequence_id")
    for field in ("start_time", "end_time"):
        checked_time(getattr(span, field), field)
    if span.status not in _SPAN_STATUSES:
        raise InvalidValue(f"status of a span is {span.status!r}; give one of {', '.join(_SPAN_STATUSES)}")
    _check_attributes(span.attributes, f"attributes of span {span.name!r}")
    for event in span.events:
        if not isinstance(event, SpanEvent):
            raise InvalidValue(f"events of span {span.name!r} hold {event!r}; give a SpanEvent")
        checked_text(event.name, "name of an event")
        checked_time(event.time, f"time of event {event.name!r}")
        _check_attributes(event.attributes, f"attributes of event {event.name!r}")


def _check_attributes(attributes: Mapping[str, Any], field: str) -> None:
    if not isinstance(attributes, Mapping):
        raise InvalidValue(f"{field} are {attributes!r}; give a dict")


def are_fields_sound(span: Any) -> bool:
    """Whether the plain fields of a span, or of its row, can be kept, as `check_span` finds out one by one.

    It takes a microsecond, and says False also of a few that nothing is wrong with.
    """
    texts: tuple[Any, ...] = (
        span.rollout_id,
        span.attempt_id,
        span.trace_id,
        span.span_id,
        span.name,
        "" if span.parent_id is None else span.parent_id,
        "" if span.status_message is None else span.status_message,
    )
    try:
        return (
            all(texts[:5])
            and is_unicode("".join(texts))
            and type(span.sequence_id) is int
            and abs(span.sequence_id) <= LARGEST
            and type(span.start_time) is type(span.end_time) is float
            and abs(span.start_time) <= LARGEST_FLOAT
            and abs(span.end_time) <= LARGEST_FLOAT
            and span.status in _SPAN_STATUSES
        )
    except TypeError:  # one of the texts is none
        return False


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8, which half of a character cannot."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False

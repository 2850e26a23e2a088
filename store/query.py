"""Filters, order and pages: how queries choose among what a store holds."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import fields
from itertools import islice
from typing import Any, Literal, TypeAlias, TypeVar

from .errors import InvalidValue

T = TypeVar("T")
FilterLogic: TypeAlias = Literal["and", "or"]
SortOrder: TypeAlias = Literal["asc", "desc"]
Test: TypeAlias = Callable[[T], bool]


def is_in(field: str, values: Collection[Any] | None) -> Test[Any] | None:
    """Tests whether a field is one of the values; None for no filter."""
    if values is None:
        return None
    wanted = set(values)
    return lambda item: getattr(item, field) in wanted


def equals(field: str, value: Any) -> Test[Any] | None:
    """Tests whether a field has the value; None for no filter."""
    return None if value is None else lambda item: bool(getattr(item, field) == value)


def contains(field: str, text: str | None) -> Test[Any] | None:
    """Tests whether a field contains the text; None for no filter."""
    return None if text is None else lambda item: text in (getattr(item, field) or "")


def chosen(items: Iterable[T], tests: Sequence[Test[T] | None], logic: FilterLogic = "and") -> Iterable[T]:
    """Yields the items that pass all the given tests (or one of them, for "or"); all, if there is no test."""
    given = [test for test in tests if test is not None]
    if not given:
        return items
    combine = all if logic == "and" else any
    return (item for item in items if combine(test(item) for test in given))


def page(
    items: Iterable[T],
    kind: type[T],
    *,
    sort_by: str | None = None,
    sort_order: SortOrder = "asc",
    limit: int = -1,
    offset: int = 0,
) -> list[T]:
    """Returns the items from ``offset`` on, at most ``limit`` (-1: all), sorted by a field if one is named.

    Missing values come last in either order; items that compare equal keep their order.
    Raises InvalidValue for what is no sortable field of ``kind``, or a count below its minimum.
    """
    if limit < -1:
        raise InvalidValue(f"limit is {limit}; give 0 or more, or -1 for all")
    if offset < 0:
        raise InvalidValue(f"offset is {offset}; give 0 or more")
    if sort_by is not None:
        items = _sorted(list(items), kind, sort_by, sort_order)
    if offset == 0 and limit == -1:
        return list(items)
    return list(islice(items, offset, None if limit == -1 else offset + limit))


def _sorted(items: list[T], kind: type[T], sort_by: str, sort_order: SortOrder) -> list[T]:
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # every kind here is a dataclass
    if sort_by not in names:
        raise InvalidValue(f"sort_by is {sort_by!r}; give one of {', '.join(names)}")
    present = [item for item in items if getattr(item, sort_by) is not None]
    missing = [item for item in items if getattr(item, sort_by) is None]
    kinds = {_kind_of(getattr(item, sort_by)) for item in present}
    if None in kinds:
        raise InvalidValue(f"sort_by is {sort_by!r}, which is neither a number nor a text")
    if len(kinds) > 1:
        raise InvalidValue(f"sort_by is {sort_by!r}, which is a number of some and a text of others")
    present.sort(key=lambda item: getattr(item, sort_by), reverse=sort_order == "desc")
    return present + missing


def _kind_of(value: Any) -> type[Any] | None:
    """Whether a value is compared with texts or with numbers; None for neither."""
    if isinstance(value, str):
        return str
    return float if isinstance(value, int | float) else None

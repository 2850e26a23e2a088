"""The arguments of a question to a keeper, by their names: what is wrong is refused alike by every store."""

from collections.abc import Callable, Iterable
from math import inf, isnan, nan
from numbers import Real  # NumPy's, too
from operator import index
from typing import Any, Final, get_args

from .errors import InvalidValue
from .plain import is_unicode
from .types import UNSET, GroupStatus, Mode, RolloutStatus, WorkerStatus

_STATUSES: Final = {"rollouts": RolloutStatus, "groups": GroupStatus, "workers": WorkerStatus}
_LARGEST_COUNT: Final = 2**62 - 1  # of which two can be added and still be counted up to
_LONGEST_SECONDS: Final = 1e9  # some thirty years, which clocks and event loops can count


def checked_arguments(operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments, counts as ints; InvalidValue for one of a type or value that none can be of."""
    checked = dict(arguments)
    needed = _NEEDED_BY.get(operation, _NEEDED)
    for name, value in arguments.items():
        if value is None and name not in needed:
            continue
        check = _CHECKS.get(name)
        if check is not None and value is not UNSET:
            checked[name] = check(value, name)
    if checked.get("status_in") is not None:
        _check_among(checked["status_in"], "status_in", get_args(_STATUSES[operation]))
    if operation == "rollouts" and checked["mode"] is not None:
        _check_among([checked["mode"]], "mode", get_args(Mode))
    return checked


def pairs_of(ids: Iterable[tuple[str, str]], field: str) -> list[tuple[str, str]]:
    """Returns the (rollout id, attempt id) pairs as a list; InvalidValue for what is none."""
    pairs = []
    for pair in each_of(ids, field):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InvalidValue(f"{field} holds {pair!r}; give pairs of a rollout's and an attempt's id")
        pairs.append((_text(pair[0], "rollout_id"), _text(pair[1], "attempt_id")))
    return pairs


def each_of(values: Iterable[Any], field: str) -> Iterable[Any]:
    """Returns the values; InvalidValue for what cannot be gone through, or is a single text."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        shown = f"the string {values!r}" if isinstance(values, str) else repr(values)
        raise InvalidValue(f"{field} is {shown}; give a list")
    return values


def whole(value: Any, field: str) -> int:
    """Returns the number as an int; InvalidValue for what is no whole one, or larger than any count."""
    try:
        number = index(value)  # NumPy's integers, too
    except TypeError:
        raise InvalidValue(f"{field} is {value!r}; give a whole number") from None
    if abs(number) > _LARGEST_COUNT:
        raise InvalidValue(f"{field} is {value}; give a number below 2**62")
    return number


def age(value: Any, field: str) -> float:
    """Returns the seconds, at most thirty years; InvalidValue for what is no number, or below 0."""
    seconds = _number(value)
    if not seconds >= 0:
        raise InvalidValue(f"{field} is {value!r}; give 0 seconds or more")
    return min(seconds, _LONGEST_SECONDS)


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise InvalidValue(f"{field} is {value!r}; give a text")
    if not is_unicode(value):
        raise InvalidValue(f"{field} is {value!a}, which is half of a character")
    return value


def _texts(values: Any, field: str) -> list[str]:
    return [_text(value, f"{field}[{place}]") for place, value in enumerate(each_of(values, field))]


def _number(value: Any) -> float:
    """The number as a float, infinite if it is too large for one; not a number for what is none."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return nan
    number: Any = value
    try:
        return float(number)
    except OverflowError:
        return inf if number > 0 else -inf


def _seconds(value: Any, field: str) -> float | None:
    """Seconds to wait, 0 if less; so many that no clock counts them are no limit."""
    seconds = _number(value)
    if isnan(seconds):
        raise InvalidValue(f"{field} is {value!r}; give a number of seconds, or None for no limit")
    return None if seconds > _LONGEST_SECONDS else max(seconds, 0.0)


def _lease(value: Any, field: str) -> float:
    seconds = _number(value)
    if not 0 < seconds < inf:
        raise InvalidValue(f"{field} is {value!r}; give more than 0 seconds, or None for no lease")
    return min(seconds, _LONGEST_SECONDS)


def _one_of(*allowed: str) -> Callable[[Any, str], str]:
    def check(value: Any, field: str) -> str:
        if value not in allowed:
            raise InvalidValue(f"{field} is {value!r}; give {' or '.join(map(repr, allowed))}")
        return str(value)

    return check


def _check_among(values: Iterable[str], field: str, allowed: tuple[str, ...]) -> None:
    for value in values:
        if value not in allowed:
            raise InvalidValue(f"{field} has {value!r}; give some of {', '.join(allowed)}")


_CHECKS: Final[dict[str, Callable[[Any, str], Any]]] = {
    **dict.fromkeys(("rollout_id", "attempt_id", "group_id", "resources_id", "worker_id", "cursor"), _text),
    **dict.fromkeys(("trace_id", "span_id", "parent_id", "name", "mode", "sort_by"), _text),
    **dict.fromkeys(("trace_id_contains", "span_id_contains", "parent_id_contains", "name_contains"), _text),
    **dict.fromkeys(("rollout_id_contains", "resources_id_contains", "worker_id_contains"), _text),
    **dict.fromkeys(("rollout_ids", "group_ids", "status_in", "rollout_id_in", "group_id_in"), _texts),
    **dict.fromkeys(("limit", "offset"), whole),
    "sort_order": _one_of("asc", "desc"),
    "filter_logic": _one_of("and", "or"),
    "timeout": _seconds,
    "lease_seconds": _lease,
    "older_than_seconds": age,
}
_NEEDED: Final = frozenset(
    {"rollout_id", "attempt_id", "group_id", "resources_id", "rollout_ids", "group_ids", "cursor"}
    | {"limit", "offset", "older_than_seconds", "sort_order", "filter_logic"}
)
"""What must not be None, whatever is asked."""
_NEEDED_BY: Final = {
    "rows": _NEEDED - {"attempt_id"},
    "query_resources": _NEEDED - {"resources_id"},
    "update_rollout": _NEEDED - {"resources_id"},
    "worker": _NEEDED | {"worker_id"},
}
"""By operation, where that differs."""

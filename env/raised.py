"""What a tool raised, kept in its span such that a replay can raise the same again."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from raybolt.env.results import why_not_json
from raybolt.store import names


def raised_attribute(error: BaseException) -> dict[str, Any]:
    """The class, arguments and attributes of an exception; nothing if these would not give it again.

    They do if they are JSON, and if the class can be found by its name.
    """
    if not isinstance(error, Exception):
        return {}
    cls = type(error)
    for arguments in (error.args, _pickled_arguments(error)):
        told = {
            "module": cls.__module__,
            "class": cls.__qualname__,
            "arguments": list(arguments),
            "attributes": dict(vars(error)),
        }
        if why_not_json(told) is None and _same(raised_again(told), error):
            return {names.RAISED: told}
    return {}


def raised_again(told: Mapping[str, Any]) -> Exception | None:
    """The exception anew; None if its class cannot be found now, since its module is not loaded, say."""
    found: Any = sys.modules.get(told["module"])
    for name in told["class"].split("."):
        found = getattr(found, name, None)
    if not isinstance(found, type) or not issubclass(found, Exception):
        return None
    try:
        error: Exception = found.__new__(found, *told["arguments"])  # its `__init__` may want something else
    except Exception:  # whatever a foreign class makes of these arguments
        return None
    vars(error).update(told["attributes"])
    return error


def _pickled_arguments(error: Exception) -> tuple[Any, ...]:
    """What pickling would keep, which of an `OSError` is more than its `args`: the file's name, too."""
    try:
        made = error.__reduce__()
    except Exception:  # a foreign class that cannot be pickled
        return ()
    return made[1] if isinstance(made, tuple) and isinstance(made[1], tuple) else ()


def _same(one: Exception | None, other: Exception) -> bool:
    try:
        return type(one) is type(other) and (str(one), repr(one)) == (str(other), repr(other))
    except Exception:  # a foreign class that shows what only its `__init__` sets
        return False

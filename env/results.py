"""What an agent or a tool returned, kept in a span if it can be used again as it was."""

from __future__ import annotations

import json
from typing import Any

from raybolt.store import names

MAX_RESULT_CHARS = 64_000
"""Length of a result's JSON beyond which it is not recorded."""


def result_attributes(result: Any) -> dict[str, Any]:
    """The result as an attribute, or why it is none."""
    reason = why_not_recorded(result)
    return {names.RESULT: result} if reason is None else {names.RESULT_MISSING: reason}


def why_not_recorded(result: Any) -> str | None:
    """Why a value would not come back from its JSON as it is; None if it would."""
    stranger = _stranger(result)
    if stranger is not None:
        return f"it is, or holds, a value of type {stranger}, which JSON does not give back"
    num_chars = len(json.dumps(result))
    if num_chars > MAX_RESULT_CHARS:
        return f"its JSON has {num_chars} characters, more than {MAX_RESULT_CHARS}"
    return None


def _stranger(value: Any) -> str | None:
    """The type of the first value inside that is not JSON's own."""
    if value is None or type(value) in (str, bool, int, float):
        return None
    if type(value) is dict and all(type(key) is str for key in value):
        return next(filter(None, map(_stranger, value.values())), None)
    if type(value) is list:
        return next(filter(None, map(_stranger, value)), None)
    return type(value).__name__

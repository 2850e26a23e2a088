"""What an agent or a tool returned, kept in a span if it can be used again as it was."""

from __future__ import annotations

import json
from typing import Any

from raybolt.store import names

MAX_RESULT_CHARS = 64_000
"""Length of a result's JSON beyond which it is not recorded."""


def result_attributes(result: Any) -> dict[str, Any]:
    """The result as an attribute, or why it is none."""
    reason = why_not_json(result)
    if reason is None and (num_chars := len(json.dumps(result))) > MAX_RESULT_CHARS:
        reason = f"its JSON has {num_chars} characters, more than {MAX_RESULT_CHARS}"
    return {names.RESULT: result} if reason is None else {names.RESULT_MISSING: reason}


def why_not_json(value: Any) -> str | None:
    """Why a value would not come back from its JSON as it is; None if it would."""
    try:
        stranger = _stranger(value)
    except RecursionError:
        return "it holds itself, or is nested too deeply"
    if stranger is None:
        return None
    return f"it is, or holds, a value of type {stranger}, which JSON does not give back"


def missing_attribute(value: Any) -> dict[str, str]:
    """What the span of a tool says beside a result that would not come back as it is; else nothing."""
    reason = why_not_json(value)
    return {} if reason is None else {names.RESULT_MISSING: reason}


def _stranger(value: Any) -> str | None:
    """The type of the first value inside that is not JSON's own."""
    if value is None or type(value) in (str, bool, int, float):
        return None
    if type(value) is dict and all(type(key) is str for key in value):
        return next(filter(None, map(_stranger, value.values())), None)
    if type(value) is list:
        return next(filter(None, map(_stranger, value)), None)
    return type(value).__name__

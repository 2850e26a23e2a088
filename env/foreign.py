"""Spans from anywhere: what they call by our names need not be what we mean by them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, get_args

import numpy as np

from raybolt.env.chat import Role
from raybolt.store import names
from raybolt.store.types import Span

_ROLES = (*get_args(Role), "developer", "function")


def sound(spans: Iterable[Span]) -> list[Span]:
    """The spans, less those of our attributes that hold what they never do: a reward that is a text, say."""
    return [_sound(span) for span in spans]


def is_number(value: object) -> bool:
    """Whether it is a number that a float holds."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max


def _sound(span: Span) -> Span:
    attributes = span.attributes
    odd = [name for name, value in attributes.items() if name in _HOLDS and not _HOLDS[name](value)]
    if not odd:
        return span
    return replace(span, attributes={name: each for name, each in attributes.items() if name not in odd})


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


def _list_of(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list | tuple) and all(map(holds, value))


def _is_message(value: Any) -> bool:
    if not isinstance(value, Mapping) or value.get("role") not in _ROLES:
        return False
    content, calls = value.get("content"), value.get("tool_calls")
    return (content is None or isinstance(content, str) or _are_parts(content)) and (
        calls is None or _are_tool_calls(calls)
    )


def _is_version(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_part(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, Mapping) and isinstance(value.get("text"), str))


def _is_tool_call(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("function", value), Mapping)


_are_parts, _are_tool_calls = _list_of(_is_part), _list_of(_is_tool_call)
_HOLDS: Mapping[str, Callable[[Any], bool]] = {
    **dict.fromkeys(
        (names.OPERATION, names.AGENT_NAME, names.CALL_ID, names.KIND, names.ERROR_ORIGIN, names.ERROR_TYPE),
        _is(str),
    ),
    **dict.fromkeys((names.PARSE_ERROR, names.DRIFT, names.POLICY, names.TOOL_NAME), _is(str)),
    **dict.fromkeys((names.INPUT_MESSAGES, names.OUTPUT_MESSAGES), _list_of(_is_message)),
    **dict.fromkeys((names.PROMPT_IDS, names.RESPONSE_IDS, names.LOGPROBS), _is(np.ndarray)),
    **dict.fromkeys((names.REWARD, names.TEMPERATURE), is_number),
    **dict.fromkeys((names.REWARD_VERSION, names.WEIGHTS_VERSION), _is_version),
    names.FINISH_REASONS: _list_of(_is(str)),
    names.TOOL_DEFINITIONS: _list_of(_is(Mapping)),
    names.TRAINABLE: _is(bool),
}
"""What our attributes hold, of those that trajectories and diagnoses are made of."""

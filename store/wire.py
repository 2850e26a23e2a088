"""The store's nouns and errors as JSON, and back, by the types they are declared with."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from . import errors
from .errors import InvalidValue, StoreError
from .plain import LARGEST_FLOAT
from .types import UNSET, GroupHandle, Unset

Decode: TypeAlias = Callable[[Any, str], Any]
"""Turns a JSON value into what a field holds; InvalidValue names the field."""

_INT64 = 2**63


class Missing(Exception):
    """There is no such thing: what a server says where a local store returns None."""


def dump(value: Any) -> bytes:
    """Returns plain data and the store's dataclasses as compact JSON; fields that are UNSET are left out."""
    return _ENCODER.encode(value).encode()


def dump_strict(value: Any) -> bytes:
    """Returns what JSON (RFC 8259) allows: NaN and infinities as texts, "NaN", "Infinity" and "-Infinity"."""
    try:
        return _STRICT_ENCODER.encode(value).encode()
    except ValueError:
        read = json.loads(_ENCODER.encode(value), parse_constant=str)
        return _STRICT_ENCODER.encode(read).encode()


def load(text: bytes | str, what: str) -> Any:
    """Returns the JSON value; InvalidValue for what is none, nested too deeply, or no UTF-8."""
    try:
        return _DECODER.decode(text if isinstance(text, str) else text.decode())
    except (ValueError, RecursionError) as error:
        raise InvalidValue(f"{what} is no JSON: {error}") from None


@cache
def decoder(kind: Any, *, strict: bool) -> Decode:
    """Returns what makes a ``kind`` of a JSON value.

    Strict is what a server is with what anybody may send: unknown fields are refused, not passed over.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _any_of(kind, strict)
    if origin is Literal:
        return _one_of(arguments)
    if origin is list or (origin is tuple and arguments[-1] is Ellipsis):
        return _sequence(origin, decoder(arguments[0], strict=strict))
    if origin is tuple:
        return _fixed([decoder(each, strict=strict) for each in arguments])
    if origin in (dict, Mapping):
        return _instance(dict, "an object")
    if isinstance(kind, type) and is_dataclass(kind):
        return _record(kind, strict)
    return _PLAIN[kind]


def without_unset(kind: Any) -> Any:
    """Returns the type less ``Unset``, which is what a field that is absent means."""
    if get_origin(kind) not in (Union, UnionType):
        return kind
    return Union[tuple(each for each in get_args(kind) if each is not Unset)]  # noqa: UP007  # made here


def error_fields(error: Exception) -> dict[str, Any]:
    """Returns what an error is sent as: its type's name and its message."""
    return {"error": {"type": type(error).__name__, "message": str(error)}}


def error_from(answer: Any) -> Exception | None:
    """Returns the error that was sent, of the type it had; None if the answer is none of ours."""
    about = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(about, dict) or not isinstance(about.get("type"), str):
        return None
    name, message = about["type"], str(about.get("message"))
    if name == Missing.__name__:
        return Missing(message)
    known: type[Exception] = getattr(errors, name) if name in errors.__all__ else StoreError
    return known(message)


def checked_text(value: Any, field: str) -> str:
    """Returns the string; InvalidValue for what is none, or cannot be written as UTF-8."""
    if not isinstance(value, str):
        raise InvalidValue(f"{field} is {_shown(value)}; give a string")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidValue(f"{field} is {_shown(value)}, which is half of a character") from None
    return value


def _fields_of(value: Any) -> dict[str, Any]:
    kind = type(value)
    if not is_dataclass(kind):
        raise TypeError(f"{kind.__name__} does not travel")
    given = ((name, getattr(value, name)) for name in _travelling(kind))
    return {name: each for name, each in given if each is not UNSET}


@cache
def _travelling(kind: type[Any]) -> list[str]:
    """The names of a dataclass's fields, less a handle's block, which has an address of its own."""
    return [each.name for each in fields(kind) if (kind, each.name) != (GroupHandle, "ref")]


# Made once, as `json.loads` and `json.dumps` would for every value.
_DECODER = json.JSONDecoder()
_ENCODER = json.JSONEncoder(separators=(",", ":"), default=_fields_of)
_STRICT_ENCODER = json.JSONEncoder(separators=(",", ":"), default=_fields_of, allow_nan=False)


def _integer(value: Any, field: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not -_INT64 <= value < _INT64:
        raise InvalidValue(f"{field} is {_shown(value)}; give a whole number of at most 64 bits")
    return value


def _number(value: Any, field: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > LARGEST_FLOAT:
        raise InvalidValue(f"{field} is {_shown(value)}; give a number")
    if not math.isfinite(value):
        raise InvalidValue(f"{field} is {_shown(value)}; give a finite number")
    return float(value)


def _anything(value: Any, field: str) -> Any:
    return value


def _instance(kind: type, described: str) -> Decode:
    def decode(value: Any, field: str) -> Any:
        if not isinstance(value, kind):
            raise InvalidValue(f"{field} is {_shown(value)}; give {described}")
        return value

    return decode


_PLAIN: dict[Any, Decode] = {
    Any: _anything,
    str: checked_text,
    int: _integer,
    float: _number,
    bool: _instance(bool, "true or false"),
}


def _any_of(kind: Any, strict: bool) -> Decode:
    """Of several kinds, which are records, a value is the first whose needed fields it has."""
    *others, last = (each for each in get_args(kind) if each not in (NoneType, Unset))
    decode = decoder(last, strict=strict)
    for each in reversed(others):
        decode = _if_complete(each, decoder(each, strict=strict), decode)
    if NoneType not in get_args(kind):
        return decode
    return lambda value, field: None if value is None else decode(value, field)


def _if_complete(kind: type[Any], decode: Decode, otherwise: Decode) -> Decode:
    needed = set(_needed(kind))

    def decode_either(value: Any, field: str) -> Any:
        complete = isinstance(value, dict) and needed <= value.keys()
        return decode(value, field) if complete else otherwise(value, field)

    return decode_either


def _one_of(allowed: tuple[str, ...]) -> Decode:
    def decode(value: Any, field: str) -> Any:
        if not isinstance(value, str) or value not in allowed:
            raise InvalidValue(f"{field} is {_shown(value)}; give one of {', '.join(allowed)}")
        return value

    return decode


def _sequence(make: Callable[[Any], Any], decode: Decode) -> Decode:
    def decode_all(value: Any, field: str) -> Any:
        if not isinstance(value, list):
            raise InvalidValue(f"{field} is {_shown(value)}; give a list")
        return make([decode(each, f"{field}[{index}]") for index, each in enumerate(value)])

    return decode_all


def _fixed(decoders: list[Decode]) -> Decode:
    def decode_all(value: Any, field: str) -> Any:
        if not isinstance(value, list) or len(value) != len(decoders):
            raise InvalidValue(f"{field} is {_shown(value)}; give a list of {len(decoders)}")
        return tuple(decode(each, field) for decode, each in zip(decoders, value, strict=True))

    return decode_all


def _record(kind: type[Any], strict: bool) -> Decode:
    hints = get_type_hints(kind)
    decoders = {each.name: decoder(hints[each.name], strict=strict) for each in fields(kind)}
    needed = _needed(kind)

    def decode(value: Any, field: str) -> Any:
        if not isinstance(value, dict):
            raise InvalidValue(f"{field} is {_shown(value)}; give an object with {', '.join(needed)}")
        given = {}
        for name, each in value.items():
            if name in decoders:
                given[name] = decoders[name](each, f"{field}.{name}")
            elif strict:
                raise InvalidValue(f"{field} has no field {name!r}; it has {', '.join(decoders)}")
        missing = [name for name in needed if name not in given]
        if missing:
            raise InvalidValue(f"{field} lacks {', '.join(missing)}")
        return kind(**given)

    return decode


def _needed(kind: type[Any]) -> list[str]:
    """The fields of a dataclass that have no default."""
    return [each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING]


def _shown(value: Any) -> str:
    try:
        shown = ascii(value)
    except RecursionError:
        shown = f"a deeply nested {type(value).__name__}"
    return shown if len(shown) <= 100 else f"{shown[:100]}…"

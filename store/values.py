"""What callers give a store, checked and copied, so that it can travel and never changes afterwards."""

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import get_args

from .arguments import each_of, whole
from .errors import InvalidValue
from .plain import checked_text
from .rows import dump_json
from .types import EnqueueRolloutRequest, GroupHandle, Json, Mode, RolloutConfig


def new_id(prefix: str) -> str:
    """Returns an id that nobody else makes up."""
    return f"{prefix}-{uuid.uuid4().hex}"


def prepared(request: EnqueueRolloutRequest) -> EnqueueRolloutRequest:
    """Returns the request with an id, and with JSON that the caller can no longer change."""
    if not isinstance(request, EnqueueRolloutRequest):
        raise InvalidValue(f"rollouts holds {request!r}; give a list of EnqueueRolloutRequest(input=…)")
    for field in ("rollout_id", "task_id", "group_id", "resources_id"):
        optional_text(getattr(request, field), field)
    return replace(
        request,
        rollout_id=request.rollout_id or new_id("ro"),
        input=json_copy(request.input, "input"),
        mode=checked_mode(request.mode),
        config=None if request.config is None else checked_config(request.config),
        metadata=object_copy(request.metadata, "metadata"),
    )


def json_copy(value: Json, field: str) -> Json:
    """Returns a copy of a JSON value; InvalidValue, naming the field, for what is none, or too deep."""
    return json.loads(dump_json(value, field, allowed="JSON values"))


def object_copy(value: Mapping[str, Json] | None, field: str) -> dict[str, Json]:
    """Returns a copy of a JSON object, likewise; an empty one for None."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidValue(f"{field} is {value!r}; give a dict, whose values are JSON")
    copy: dict[str, Json] = json_copy(dict(value), field)
    return copy


def given_object(value: Mapping[str, Json], field: str) -> dict[str, Json]:
    """Returns a copy of a JSON object; InvalidValue for None, too."""
    if value is None:
        raise InvalidValue(f"{field} is None; give a dict, whose values are JSON")
    return object_copy(value, field)


def checked_mode(mode: Mode | None) -> Mode | None:
    """Returns the mode; InvalidValue for what is none."""
    if mode is not None and mode not in get_args(Mode):
        raise InvalidValue(f"mode is {mode!r}; give one of {', '.join(get_args(Mode))}, or None")
    return mode


def optional_text(value: str | None, field: str) -> str | None:
    """Returns an id or None; InvalidValue for what is no text, empty, or no valid Unicode."""
    return None if value is None else checked_text(value, field)


def checked_config(config: RolloutConfig) -> RolloutConfig:
    """Returns the config; InvalidValue for what is none."""
    if not isinstance(config, RolloutConfig):
        raise InvalidValue(f"config is {config!r}; give a RolloutConfig")
    return config


def checked_count(value: int, field: str, *, least: int | None = 0) -> int:
    """Returns the number as an int; InvalidValue, naming the field, for what is none, or below the least."""
    number = whole(value, field)
    if least is not None and number < least:
        raise InvalidValue(f"{field} is {value}; give {least} or more")
    return number


def claims_of(handles: Iterable[GroupHandle]) -> list[tuple[str, str]]:
    """Returns (group id, claim) of each; InvalidValue for what is no handle, or comes from no taking."""
    claims = []
    if isinstance(handles, GroupHandle):
        raise InvalidValue(f"handles holds {handles!r}; give a list of what take_groups returned")
    for handle in each_of(handles, "handles"):
        if not isinstance(handle, GroupHandle):
            raise InvalidValue(f"handles holds {handle!r}; give a list of what take_groups returned")
        if handle.claim is None:
            raise InvalidValue(
                f"the handle of group {handle.group_id!r} comes from get_group, which takes nothing; give "
                "the one that take_groups returned"
            )
        claims.append((handle.group_id, handle.claim))
    return claims

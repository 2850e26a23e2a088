"""The contract's methods in terms of questions to a keeper, wherever that one lives.

All that concerns one caller happens here: ids are made up, values checked and copied, spans packed and
unpacked. A question is thus plain data, may be asked twice, and gets the same answer.
"""

import json
import uuid
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

from .base import Latest, LightningStore
from .errors import InvalidValue
from .rows import dump_json, pack_span, unpack_span
from .types import (
    UNSET,
    Attempt,
    AttemptedRollout,
    AttemptStatus,
    EnqueueRolloutRequest,
    Group,
    GroupHandle,
    GroupStatus,
    Json,
    Mode,
    ResourcesUpdate,
    Rollout,
    RolloutConfig,
    RolloutStatus,
    Span,
    Unset,
)


class StoreClient(LightningStore):
    """A store whose keeper is reached by ``_ask``; all that an implementation adds."""

    @abstractmethod
    async def _ask(self, operation: str, **arguments: Any) -> Any:
        """Returns the keeper's answer; raises what the keeper raised."""

    # Rollouts

    async def enqueue_many_rollouts(self, requests: Sequence[EnqueueRolloutRequest]) -> list[Rollout]:
        rollouts: list[Rollout] = await self._ask("enqueue", requests=[_prepare(r) for r in requests])
        return rollouts

    async def start_rollout(
        self,
        input: Json,
        *,
        task_id: str | None = None,
        group_id: str | None = None,
        mode: Mode | None = None,
        resources_id: str | None = None,
        config: RolloutConfig | None = None,
        metadata: Mapping[str, Json] | None = None,
        rollout_id: str | None = None,
        worker_id: str | None = None,
    ) -> AttemptedRollout:
        request = EnqueueRolloutRequest(
            input=input,
            task_id=task_id,
            group_id=group_id,
            mode=mode,
            resources_id=resources_id,
            config=config,
            metadata=metadata,
            rollout_id=rollout_id,
        )
        started: AttemptedRollout = await self._ask(
            "start_rollout", request=_prepare(request), worker_id=worker_id, attempt_id=_new_id("at")
        )
        return started

    async def dequeue_many_rollouts(
        self, limit: int, *, worker_id: str | None = None
    ) -> list[AttemptedRollout]:
        taken: list[AttemptedRollout] = await self._ask(
            "dequeue", limit=_check_count(limit, "limit"), worker_id=worker_id, claim=uuid.uuid4().hex
        )
        return taken

    async def update_rollout(
        self,
        rollout_id: str,
        *,
        input: Json | Unset = UNSET,
        mode: Mode | Unset | None = UNSET,
        resources_id: str | Unset | None = UNSET,
        status: RolloutStatus | Unset = UNSET,
        config: RolloutConfig | Unset = UNSET,
        metadata: Mapping[str, Json] | Unset = UNSET,
    ) -> Rollout:
        rollout: Rollout = await self._ask(
            "update_rollout",
            rollout_id=rollout_id,
            input=input if input is UNSET else _copy_json(input, "input"),
            mode=mode if mode is UNSET else _check_mode(mode),
            resources_id=resources_id,
            status=status,
            config=config,
            metadata=metadata if metadata is UNSET else _copy_object(metadata, "metadata"),
        )
        return rollout

    async def get_rollout_by_id(self, rollout_id: str) -> Rollout | None:
        rollout: Rollout | None = await self._ask("rollout", rollout_id=rollout_id)
        return rollout

    async def query_rollouts(
        self,
        *,
        status_in: Iterable[RolloutStatus] | None = None,
        rollout_id_in: Iterable[str] | None = None,
        group_id_in: Iterable[str] | None = None,
        mode: Mode | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Rollout]:
        rollouts: list[Rollout] = await self._ask(
            "rollouts",
            status_in=_listed(status_in, "status_in"),
            rollout_id_in=_listed(rollout_id_in, "rollout_id_in"),
            group_id_in=_listed(group_id_in, "group_id_in"),
            mode=mode,
            limit=None if limit is None else _check_count(limit, "limit"),
            offset=_check_count(offset, "offset"),
        )
        return rollouts

    async def wait_for_rollouts(
        self, rollout_ids: Iterable[str], timeout: float | None = None
    ) -> list[Rollout]:
        ended: list[Rollout] = await self._ask(
            "wait_for_rollouts", rollout_ids=_listed(rollout_ids, "rollout_ids"), timeout=timeout
        )
        return ended

    # Attempts

    async def start_attempt(self, rollout_id: str, *, worker_id: str | None = None) -> AttemptedRollout:
        started: AttemptedRollout = await self._ask(
            "start_attempt", rollout_id=rollout_id, worker_id=worker_id, attempt_id=_new_id("at")
        )
        return started

    async def update_attempt(
        self,
        rollout_id: str,
        attempt_id: str | Latest,
        *,
        status: AttemptStatus | Unset = UNSET,
        worker_id: str | Unset | None = UNSET,
        last_heartbeat_time: float | Unset = UNSET,
        metadata: Mapping[str, Json] | Unset = UNSET,
    ) -> Attempt:
        attempt: Attempt = await self._ask(
            "update_attempt",
            rollout_id=rollout_id,
            attempt_id=attempt_id,
            status=status,
            worker_id=worker_id,
            last_heartbeat_time=last_heartbeat_time,
            metadata=metadata if metadata is UNSET else _copy_object(metadata, "metadata"),
        )
        return attempt

    async def query_attempts(self, rollout_id: str) -> list[Attempt]:
        attempts: list[Attempt] = await self._ask("attempts", rollout_id=rollout_id)
        return attempts

    async def get_latest_attempts(self, rollout_ids: Iterable[str]) -> list[Attempt | None]:
        attempts: list[Attempt | None] = await self._ask(
            "latest_attempts", rollout_ids=_listed(rollout_ids, "rollout_ids")
        )
        return attempts

    # Spans

    async def add_many_spans(self, spans: Sequence[Span]) -> int:
        num_new: int = await self._ask("add_rows", rows=[pack_span(span) for span in spans])
        return num_new

    async def query_spans(self, rollout_id: str, attempt_id: str | Latest | None = None) -> list[Span]:
        rows = await self._ask("rows", rollout_id=rollout_id, attempt_id=attempt_id)
        return [unpack_span(row) for row in rows]

    # Groups

    async def declare_group(self, group_id: str, num_rollouts: int, *, task_id: str | None = None) -> Group:
        group: Group = await self._ask(
            "declare_group", group_id=group_id, num_rollouts=num_rollouts, task_id=task_id
        )
        return group

    async def query_groups(
        self, *, status_in: Iterable[GroupStatus] | None = None, group_id_in: Iterable[str] | None = None
    ) -> list[Group]:
        groups: list[Group] = await self._ask(
            "groups",
            status_in=_listed(status_in, "status_in"),
            group_id_in=_listed(group_id_in, "group_id_in"),
        )
        return groups

    async def take_groups(self, limit: int, *, group_id_in: Iterable[str] | None = None) -> list[GroupHandle]:
        handles: list[GroupHandle] = await self._ask(
            "take_groups",
            limit=_check_count(limit, "limit"),
            group_id_in=_listed(group_id_in, "group_id_in"),
            claim=uuid.uuid4().hex,
        )
        return handles

    async def get_group(self, group_id: str) -> GroupHandle:
        handle: GroupHandle = await self._ask("get_group", group_id=group_id)
        return handle

    # Resources

    async def add_resources(
        self, resources: Mapping[str, Json], *, resources_id: str | None = None
    ) -> ResourcesUpdate:
        update: ResourcesUpdate = await self._ask(
            "add_resources",
            resources=_copy_object(resources, "resources"),
            resources_id=resources_id or _new_id("rs"),
        )
        return update

    async def update_resources(self, resources_id: str, resources: Mapping[str, Json]) -> ResourcesUpdate:
        update: ResourcesUpdate = await self._ask(
            "update_resources",
            resources_id=resources_id,
            resources=_copy_object(resources, "resources"),
        )
        return update

    async def get_resources_by_id(self, resources_id: str) -> ResourcesUpdate | None:
        update: ResourcesUpdate | None = await self._ask("resources", resources_id=resources_id)
        return update

    async def get_latest_resources(self) -> ResourcesUpdate | None:
        update: ResourcesUpdate | None = await self._ask("latest_resources")
        return update

    async def statistics(self) -> dict[str, Any]:
        counts: dict[str, Any] = await self._ask("statistics")
        return counts


def _new_id(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex}"


def _prepare(request: EnqueueRolloutRequest) -> EnqueueRolloutRequest:
    """Returns the request with an id, and with JSON that the caller can no longer change."""
    return replace(
        request,
        rollout_id=request.rollout_id or _new_id("ro"),
        input=_copy_json(request.input, "input"),
        mode=_check_mode(request.mode),
        metadata=_copy_object(request.metadata, "metadata") if request.metadata else {},
    )


def _copy_json(value: Json, field: str) -> Json:
    return json.loads(dump_json(value, field))


def _copy_object(value: Mapping[str, Json], field: str) -> dict[str, Json]:
    copy: dict[str, Json] = _copy_json(dict(value), field)
    return copy


def _check_mode(mode: Mode | None) -> Mode | None:
    if mode is not None and mode not in get_args(Mode):
        raise InvalidValue(f"mode is {mode!r}; give one of {', '.join(get_args(Mode))}, or None")
    return mode


def _check_count(value: int, field: str) -> int:
    if value < 0:
        raise InvalidValue(f"{field} is {value}; give 0 or more")
    return value


def _listed(values: Iterable[Any] | None, field: str) -> list[Any] | None:
    """Returns the values as a list, which travels; a lone string is a mistake, not a list of letters."""
    if isinstance(values, str):
        raise InvalidValue(f"{field} is the string {values!r}; give a list of strings")
    return None if values is None else list(values)

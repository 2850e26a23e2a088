"""The contract's methods in terms of questions to a keeper, wherever that one lives.

All that concerns one caller happens here: ids are made up, values checked and copied, spans packed and
unpacked. A question is thus plain data, may be asked twice, and gets the same answer.
"""

import uuid
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .arguments import checked_arguments, each_of, pairs_of
from .base import START, Latest, LightningStore
from .plain import checked_text, checked_time, checked_whole
from .query import FilterLogic, SortOrder
from .resource_kinds import typed
from .rows import pack_span, unpack_spans
from .types import (
    UNSET,
    Attempt,
    AttemptedRollout,
    AttemptStatus,
    Change,
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
    Worker,
    WorkerStatus,
)
from .values import (
    checked_config,
    checked_count,
    checked_mode,
    claims_of,
    given_object,
    json_copy,
    new_id,
    object_copy,
    optional_text,
    prepared,
)


class StoreClient(LightningStore):
    """A store whose keeper is reached by ``_reach``; all that an implementation adds."""

    folder: Path | None = None
    """Where its journals are, on the machine of its keeper; None in memory, and where only that knows."""

    async def _ask(self, operation: str, **arguments: Any) -> Any:
        """Returns the keeper's answer; raises what the keeper raised, InvalidValue for a wrong argument."""
        return await self._reach(operation, checked_arguments(operation, arguments))

    @abstractmethod
    async def _reach(self, operation: str, arguments: dict[str, Any]) -> Any:
        """Returns the keeper's answer; raises what the keeper raised."""

    # Rollouts

    async def enqueue_many_rollouts(self, rollouts: Sequence[EnqueueRolloutRequest]) -> list[Rollout]:
        requests = [prepared(each) for each in each_of(rollouts, "rollouts")]
        queued: list[Rollout] = await self._ask("enqueue", requests=requests)
        return queued

    async def start_rollout(
        self,
        input: Json,
        mode: Mode | None = None,
        resources_id: str | None = None,
        config: RolloutConfig | None = None,
        metadata: Mapping[str, Json] | None = None,
        worker_id: str | None = None,
        *,
        task_id: str | None = None,
        group_id: str | None = None,
        rollout_id: str | None = None,
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
            "start_rollout",
            request=prepared(request),
            worker_id=optional_text(worker_id, "worker_id"),
            attempt_id=new_id("at"),
        )
        return started

    async def dequeue_many_rollouts(
        self, limit: int = 1, *, worker_id: str | None = None
    ) -> list[AttemptedRollout]:
        taken: list[AttemptedRollout] = await self._ask(
            "dequeue",
            limit=max(checked_count(limit, "limit", least=None), 0),
            worker_id=optional_text(worker_id, "worker_id"),
            claim=uuid.uuid4().hex,
        )
        return taken

    async def update_rollout(
        self,
        rollout_id: str,
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
            input=input if input is UNSET else json_copy(input, "input"),
            mode=mode if mode is UNSET else checked_mode(mode),
            resources_id=resources_id,
            status=status,
            config=config if config is UNSET else checked_config(config),
            metadata=metadata if metadata is UNSET else object_copy(metadata, "metadata"),
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
        rollout_id_contains: str | None = None,
        group_id_in: Iterable[str] | None = None,
        mode: Mode | None = None,
        filter_logic: FilterLogic = "and",
        sort_by: str | None = None,
        sort_order: SortOrder = "asc",
        limit: int = -1,
        offset: int = 0,
    ) -> list[Rollout]:
        rollouts: list[Rollout] = await self._ask(
            "rollouts",
            status_in=status_in,
            rollout_id_in=rollout_id_in,
            rollout_id_contains=rollout_id_contains,
            group_id_in=group_id_in,
            mode=mode,
            filter_logic=filter_logic,
            sort_by=sort_by,
            sort_order=sort_order,
            limit=limit,
            offset=offset,
        )
        return rollouts

    async def wait_for_rollouts(
        self, rollout_ids: Iterable[str], timeout: float | None = None
    ) -> list[Rollout]:
        ended: list[Rollout] = await self._ask("wait_for_rollouts", rollout_ids=rollout_ids, timeout=timeout)
        return ended

    async def delete_rollouts(self, rollout_ids: Iterable[str]) -> int:
        num_deleted: int = await self._ask("delete_rollouts", rollout_ids=rollout_ids)
        return num_deleted

    async def prune(self, older_than_seconds: float) -> int:
        num_deleted: int = await self._ask("prune", older_than_seconds=older_than_seconds)
        return num_deleted

    # Attempts

    async def start_attempt(self, rollout_id: str, worker_id: str | None = None) -> AttemptedRollout:
        started: AttemptedRollout = await self._ask(
            "start_attempt",
            rollout_id=rollout_id,
            worker_id=optional_text(worker_id, "worker_id"),
            attempt_id=new_id("at"),
        )
        return started

    async def update_attempt(
        self,
        rollout_id: str,
        attempt_id: str | Latest,
        status: AttemptStatus | Unset = UNSET,
        worker_id: str | Unset | None = UNSET,
        last_heartbeat_time: float | Unset = UNSET,
        metadata: Mapping[str, Json] | Unset = UNSET,
    ) -> Attempt:
        heard = last_heartbeat_time
        attempt: Attempt = await self._ask(
            "update_attempt",
            rollout_id=rollout_id,
            attempt_id=attempt_id,
            status=status,
            worker_id=worker_id if worker_id is UNSET else optional_text(worker_id, "worker_id"),
            last_heartbeat_time=heard if heard is UNSET else checked_time(heard, "last_heartbeat_time"),
            metadata=metadata if metadata is UNSET else object_copy(metadata, "metadata"),
        )
        return attempt

    async def query_attempts(
        self,
        rollout_id: str,
        *,
        sort_by: str | None = "sequence_id",
        sort_order: SortOrder = "asc",
        limit: int = -1,
        offset: int = 0,
    ) -> list[Attempt]:
        attempts: list[Attempt] = await self._ask(
            "attempts",
            rollout_id=rollout_id,
            sort_by="sequence_id" if sort_by is None else sort_by,
            sort_order=sort_order,
            limit=limit,
            offset=offset,
        )
        return attempts

    async def get_latest_attempts(self, rollout_ids: Iterable[str]) -> list[Attempt | None]:
        attempts: list[Attempt | None] = await self._ask("latest_attempts", rollout_ids=rollout_ids)
        return attempts

    # Spans

    async def add_many_spans(self, spans: Sequence[Span]) -> list[Span]:
        given = list(each_of(spans, "spans"))
        repeated = await self._ask("add_rows", rows=[pack_span(span) for span in given])
        if not repeated:
            return given
        skipped = set(repeated)
        return [span for index, span in enumerate(given) if index not in skipped]

    async def query_spans(
        self,
        rollout_id: str,
        attempt_id: str | Latest | None = None,
        *,
        trace_id: str | None = None,
        trace_id_contains: str | None = None,
        span_id: str | None = None,
        span_id_contains: str | None = None,
        parent_id: str | None = None,
        parent_id_contains: str | None = None,
        name: str | None = None,
        name_contains: str | None = None,
        filter_logic: FilterLogic = "and",
        limit: int = -1,
        offset: int = 0,
        sort_by: str | None = None,
        sort_order: SortOrder = "asc",
    ) -> list[Span]:
        rows = await self._ask(
            "rows",
            rollout_id=rollout_id,
            attempt_id=attempt_id,
            trace_id=trace_id,
            trace_id_contains=trace_id_contains,
            span_id=span_id,
            span_id_contains=span_id_contains,
            parent_id=parent_id,
            parent_id_contains=parent_id_contains,
            name=name,
            name_contains=name_contains,
            filter_logic=filter_logic,
            limit=limit,
            offset=offset,
            sort_by=sort_by,
            sort_order=sort_order,
        )
        return unpack_spans(rows)

    async def get_many_span_sequence_ids(self, rollout_attempt_ids: Sequence[tuple[str, str]]) -> list[int]:
        numbers: list[int] = await self._ask(
            "next_sequence_ids",
            pairs=pairs_of(rollout_attempt_ids, "rollout_attempt_ids"),
        )
        return numbers

    # Groups

    async def declare_group(self, group_id: str, num_rollouts: int, *, task_id: str | None = None) -> Group:
        group: Group = await self._ask(
            "declare_group",
            group_id=checked_text(group_id, "group_id"),
            num_rollouts=checked_whole(num_rollouts, "num_rollouts"),
            task_id=optional_text(task_id, "task_id"),
        )
        return group

    async def query_groups(
        self, *, status_in: Iterable[GroupStatus] | None = None, group_id_in: Iterable[str] | None = None
    ) -> list[Group]:
        groups: list[Group] = await self._ask("groups", status_in=status_in, group_id_in=group_id_in)
        return groups

    async def wait_for_groups(self, group_ids: Iterable[str], timeout: float | None = None) -> list[Group]:
        complete: list[Group] = await self._ask("wait_for_groups", group_ids=group_ids, timeout=timeout)
        return complete

    async def take_groups(
        self,
        limit: int,
        *,
        group_id_in: Iterable[str] | None = None,
        lease_seconds: float | None = None,
    ) -> list[GroupHandle]:
        handles: list[GroupHandle] = await self._ask(
            "take_groups",
            limit=checked_count(limit, "limit"),
            group_id_in=group_id_in,
            claim=uuid.uuid4().hex,
            lease_seconds=lease_seconds,
        )
        return handles

    async def acknowledge_groups(self, handles: Iterable[GroupHandle]) -> None:
        await self._ask("acknowledge_groups", claims=claims_of(handles))

    async def get_group(self, group_id: str) -> GroupHandle:
        handle: GroupHandle = await self._ask("get_group", group_id=group_id)
        return handle

    # Resources

    async def add_resources(
        self, resources: Mapping[str, Json], *, resources_id: str | None = None
    ) -> ResourcesUpdate:
        update: ResourcesUpdate = await self._ask(
            "add_resources",
            resources=given_object(resources, "resources"),
            resources_id=new_id("rs") if resources_id is None else checked_text(resources_id, "resources_id"),
        )
        return typed(update)

    async def update_resources(self, resources_id: str, resources: Mapping[str, Json]) -> ResourcesUpdate:
        update: ResourcesUpdate = await self._ask(
            "update_resources",
            resources_id=checked_text(resources_id, "resources_id"),
            resources=given_object(resources, "resources"),
        )
        return typed(update)

    async def get_resources_by_id(self, resources_id: str) -> ResourcesUpdate | None:
        update: ResourcesUpdate | None = await self._ask("resources", resources_id=resources_id)
        return None if update is None else typed(update)

    async def get_latest_resources(self) -> ResourcesUpdate | None:
        update: ResourcesUpdate | None = await self._ask("latest_resources")
        return None if update is None else typed(update)

    async def query_resources(
        self,
        *,
        resources_id: str | None = None,
        resources_id_contains: str | None = None,
        sort_by: str | None = None,
        sort_order: SortOrder = "asc",
        limit: int = -1,
        offset: int = 0,
    ) -> list[ResourcesUpdate]:
        updates: list[ResourcesUpdate] = await self._ask(
            "query_resources",
            resources_id=resources_id,
            resources_id_contains=resources_id_contains,
            sort_by=sort_by,
            sort_order=sort_order,
            limit=limit,
            offset=offset,
        )
        return [typed(update) for update in updates]

    # Workers

    async def update_worker(
        self, worker_id: str, heartbeat_stats: Mapping[str, Json] | Unset = UNSET
    ) -> Worker:
        stats = heartbeat_stats
        if stats is not UNSET:
            stats = given_object(stats, "heartbeat_stats")
        worker: Worker = await self._ask(
            "update_worker", worker_id=checked_text(worker_id, "worker_id"), heartbeat_stats=stats
        )
        return worker

    async def query_workers(
        self,
        *,
        status_in: Iterable[WorkerStatus] | None = None,
        worker_id_contains: str | None = None,
        filter_logic: FilterLogic = "and",
        sort_by: str | None = None,
        sort_order: SortOrder = "asc",
        limit: int = -1,
        offset: int = 0,
    ) -> list[Worker]:
        workers: list[Worker] = await self._ask(
            "workers",
            status_in=status_in,
            worker_id_contains=worker_id_contains,
            filter_logic=filter_logic,
            sort_by=sort_by,
            sort_order=sort_order,
            limit=limit,
            offset=offset,
        )
        return workers

    async def get_worker_by_id(self, worker_id: str) -> Worker | None:
        worker: Worker | None = await self._ask("worker", worker_id=worker_id)
        return worker

    # The store itself

    async def get_changes(
        self, cursor: str = START, *, limit: int = 1000, timeout: float | None = 0
    ) -> list[Change]:
        changes: list[Change] = await self._ask(
            "changes", cursor=cursor, limit=checked_count(limit, "limit"), timeout=timeout
        )
        return changes

    async def statistics(self) -> dict[str, Any]:
        counts: dict[str, Any] = await self._ask("statistics")
        return {"name": type(self).__name__, **counts}

    async def compact(self) -> None:
        await self._ask("compact")

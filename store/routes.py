"""Which question to a keeper is which request: the one table of server, client and OpenAPI page.

Arguments that stand in the path are named there; the others of a GET stand in its query, of any other method
in a JSON object. A route with ``search`` can also be asked by POST at ``PATH/search``, with its arguments as
JSON: lists of ids outgrow a query.
"""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from .client import START
from .query import FilterLogic, SortOrder
from .rows import SpanRow
from .types import (
    UNSET,
    Attempt,
    AttemptedRollout,
    AttemptStatus,
    Change,
    EnqueueRolloutRequest,
    Group,
    GroupHandle,
    Json,
    Mode,
    ResourcesUpdate,
    Rollout,
    RolloutConfig,
    RolloutStatus,
    Unset,
    Worker,
)
from .values import new_id

JSON_WITH_NAN: Final = "application/json;nan=literal"
"""What a client accepts that reads NaN and infinities as Python's ``json`` writes them. Others get texts."""
MAX_WAIT_SECONDS: Final = 30.0
"""How long one request may wait, whatever its timeout: proxies cut what is silent for longer."""
MAX_TAKEN: Final = 10_000
"""How many rollouts one request may dequeue, and how many changes it gets."""


class _Needed:
    pass


NEEDED: Final = _Needed()


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of an operation."""

    kind: Any
    """Its type; with ``Unset`` in it, absence means "leave this as it is"."""
    default: Any = NEEDED
    make: Callable[[], Any] | None = None
    """Makes it up if it is absent. Give your own, and the request can be repeated."""
    maximum: int | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """One operation of a keeper over HTTP."""

    operation: str
    method: str
    path: str
    summary: str
    gives: Any
    """Type of the answer; None for none. An answer of None to another type is status 404."""
    takes: Mapping[str, Argument]
    page: int | None = None
    """How many items one answer has at most; None if it has no pages."""
    search: bool = False
    waits: bool = False

    def in_path(self, name: str) -> bool:
        return f"{{{name}}}" in self.path


def _id() -> Argument:
    return Argument(str)


def _may_be(kind: Any) -> Argument:
    return Argument(kind | None, None)


def _update(kind: Any) -> Argument:
    return Argument(kind | Unset, UNSET)


_IDS = Argument(list[str])
_SOME_IDS = _may_be(list[str])
_TIMEOUT = _may_be(float)
_LOGIC = Argument(FilterLogic, "and")
_CLAIM = Argument(str, make=lambda: uuid.uuid4().hex)
_ATTEMPT_ID = Argument(str, make=lambda: new_id("at"))


def _paging(sort_by: str | None = None) -> dict[str, Argument]:
    return {
        "sort_by": Argument(str | None, sort_by),
        "sort_order": Argument(SortOrder, "asc"),
        "limit": Argument(int, -1),
        "offset": Argument(int, 0),
    }


_SPAN_FILTERS = {
    f"{field}{how}": _may_be(str)
    for field in ("trace_id", "span_id", "parent_id", "name")
    for how in ("", "_contains")
}
_ROLLOUTS, _ROLLOUT = "/v1/rollouts", "/v1/rollouts/{rollout_id}"
_ATTEMPTS, _ATTEMPT = f"{_ROLLOUT}/attempts", f"{_ROLLOUT}/attempts/{{attempt_id}}"
_GROUPS, _GROUP = "/v1/groups", "/v1/groups/{group_id}"
_RESOURCES, _RESOURCE = "/v1/resources", "/v1/resources/{resources_id}"
_WORKERS, _WORKER = "/v1/workers", "/v1/workers/{worker_id}"

ROUTES: Final = (
    Route(
        "enqueue", "POST", _ROLLOUTS, "Queue rollouts, all of them or none.", list[Rollout],
        {"requests": Argument(list[EnqueueRolloutRequest])},
    ),
    Route(
        "start_rollout", "POST", f"{_ROLLOUTS}/start", "Make a rollout and start its first attempt.",
        AttemptedRollout,
        {
            "request": Argument(EnqueueRolloutRequest),
            "worker_id": _may_be(str),
            "attempt_id": _ATTEMPT_ID,
        },
    ),
    Route(
        "dequeue", "POST", f"{_ROLLOUTS}/dequeue", "Start attempts on the rollouts that waited longest.",
        list[AttemptedRollout],
        {"limit": Argument(int, 1, maximum=MAX_TAKEN), "worker_id": _may_be(str), "claim": _CLAIM},
    ),
    Route(
        "rollouts", "GET", _ROLLOUTS, "Rollouts that pass the filters.",
        list[AttemptedRollout | Rollout],
        {
            "status_in": _SOME_IDS, "rollout_id_in": _SOME_IDS, "rollout_id_contains": _may_be(str),
            "group_id_in": _SOME_IDS, "mode": _may_be(str), "filter_logic": _LOGIC, **_paging(),
        },
        page=10_000, search=True,
    ),
    Route(
        "rollout", "GET", _ROLLOUT, "One rollout, with its last attempt.", AttemptedRollout | Rollout,
        {"rollout_id": _id()},
    ),
    Route(
        "update_rollout", "PATCH", _ROLLOUT, "Change the fields that are given.", Rollout,
        {
            "rollout_id": _id(), "input": _update(Json), "mode": _update(Mode | None),
            "resources_id": _update(str | None), "status": _update(RolloutStatus),
            "config": _update(RolloutConfig), "metadata": _update(dict[str, Json]),
        },
    ),
    Route(
        "wait_for_rollouts", "POST", f"{_ROLLOUTS}/wait", "Those that have ended, when all have.",
        list[Rollout], {"rollout_ids": _IDS, "timeout": _TIMEOUT}, waits=True,
    ),
    Route(
        "delete_rollouts", "POST", f"{_ROLLOUTS}/delete", "Delete ended rollouts; says how many.", int,
        {"rollout_ids": _IDS},
    ),
    Route(
        "prune", "POST", f"{_ROLLOUTS}/prune", "Delete rollouts that ended longer ago; says how many.", int,
        {"older_than_seconds": Argument(float)},
    ),
    Route(
        "start_attempt", "POST", _ATTEMPTS, "Start another attempt.", AttemptedRollout,
        {"rollout_id": _id(), "worker_id": _may_be(str), "attempt_id": _ATTEMPT_ID},
    ),
    Route(
        "attempts", "GET", _ATTEMPTS, "A rollout's attempts.", list[Attempt],
        {"rollout_id": _id(), **_paging("sequence_id")}, page=10_000,
    ),
    Route(
        "update_attempt", "PATCH", _ATTEMPT, "Change the fields that are given; the id may be `latest`.",
        Attempt,
        {
            "rollout_id": _id(), "attempt_id": _id(), "status": _update(AttemptStatus),
            "worker_id": _update(str | None), "last_heartbeat_time": _update(float),
            "metadata": _update(dict[str, Json]),
        },
    ),
    Route(
        "latest_attempts", "POST", "/v1/attempts/latest", "The latest attempt of each rollout, or null.",
        list[Attempt | None], {"rollout_ids": _IDS},
    ),
    Route(
        "add_rows", "POST", "/v1/spans", "Add spans; says which, by place, were there already.",
        list[int], {"spans": Argument(list[SpanRow])},
    ),
    Route(
        "rows", "GET", f"{_ROLLOUT}/spans", "A rollout's spans that pass the filters.", list[SpanRow],
        {
            "rollout_id": _id(), "attempt_id": _may_be(str), **_SPAN_FILTERS, "filter_logic": _LOGIC,
            **_paging(),
        },
        page=1000, search=True,
    ),
    Route(
        "next_sequence_ids", "POST", "/v1/spans/sequence-ids",
        "For each [rollout id, attempt id] a number that nobody gets twice.", list[int],
        {"pairs": Argument(list[tuple[str, str]])},
    ),
    Route(
        "declare_group", "PUT", _GROUP, "Say how many rollouts complete a group.", Group,
        {"group_id": _id(), "num_rollouts": Argument(int), "task_id": _may_be(str)},
    ),
    Route(
        "groups", "GET", _GROUPS, "Groups that pass the filters.", list[Group],
        {"status_in": _SOME_IDS, "group_id_in": _SOME_IDS}, search=True,
    ),
    Route(
        "wait_for_groups", "POST", f"{_GROUPS}/wait", "Those that are complete, when all are.", list[Group],
        {"group_ids": _IDS, "timeout": _TIMEOUT}, waits=True,
    ),
    Route(
        "take_groups", "POST", f"{_GROUPS}/take", "Take complete groups, each of which is handed out once.",
        list[GroupHandle],
        {
            "limit": Argument(int), "group_id_in": _SOME_IDS, "lease_seconds": _may_be(float),
            "claim": _CLAIM,
        },
    ),
    Route(
        "acknowledge_groups", "POST", f"{_GROUPS}/acknowledge",
        "Say that taken groups, as [group id, claim], were used.", None,
        {"claims": Argument(list[tuple[str, str]])},
    ),
    Route("get_group", "GET", _GROUP, "A group, without taking it.", GroupHandle, {"group_id": _id()}),
    Route(
        "add_resources", "POST", _RESOURCES, "Add named resources.", ResourcesUpdate,
        {
            "resources": Argument(dict[str, Json]),
            "resources_id": Argument(str, make=lambda: new_id("rs")),
        },
    ),
    Route(
        "update_resources", "PUT", _RESOURCE, "Replace resources by a new version.", ResourcesUpdate,
        {"resources_id": _id(), "resources": Argument(dict[str, Json])},
    ),
    Route(
        "resources", "GET", _RESOURCE, "Resources by id.", ResourcesUpdate, {"resources_id": _id()}
    ),
    Route(
        "latest_resources", "GET", "/v1/latest-resources", "What was added or updated last.",
        ResourcesUpdate, {},
    ),
    Route(
        "query_resources", "GET", _RESOURCES, "Resources that pass the filters.", list[ResourcesUpdate],
        {"resources_id": _may_be(str), "resources_id_contains": _may_be(str), **_paging()},
        page=1000, search=True,
    ),
    Route(
        "update_worker", "PATCH", _WORKER, "A worker's heartbeat.", Worker,
        {"worker_id": _id(), "heartbeat_stats": _update(dict[str, Json])},
    ),
    Route("worker", "GET", _WORKER, "One worker.", Worker, {"worker_id": _id()}),
    Route(
        "workers", "GET", _WORKERS, "Workers that pass the filters.", list[Worker],
        {
            "status_in": _SOME_IDS, "worker_id_contains": _may_be(str), "filter_logic": _LOGIC, **_paging(),
        },
        page=10_000, search=True,
    ),
    Route(
        "changes", "GET", "/v1/changes", "Changes behind a cursor; waits for the first.", list[Change],
        {
            "cursor": Argument(str, START), "limit": Argument(int, 1000, maximum=MAX_TAKEN),
            "timeout": Argument(float | None, 0.0),
        },
        waits=True,
    ),
    Route("statistics", "GET", "/v1/statistics", "Counts.", dict[str, Json], {}),
    Route("compact", "POST", "/v1/compact", "Give the room of what was deleted back.", None, {}),
)  # fmt: skip

BY_OPERATION: Final = {route.operation: route for route in ROUTES}
SEARCH: Final = "/search"
BLOCK_PATH: Final = f"{_GROUP}/block"
"""Where the Arrow stream of a group is."""
CAPABILITIES_PATH: Final = "/v1/capabilities"
EXPORT_PATH: Final = "/v1/export"
"""Where all that a folder keeps is, as a ZIP archive of Parquet files."""
TRACES_PATH: Final = "/v1/traces"
"""Where OTLP/HTTP exporters send to."""
REPEAT_HEADER: Final = "Idempotency-Key"
"""Names a request, so that sent again it gets the answer of the first."""
ARROW_TYPE: Final = "application/vnd.apache.arrow.stream"

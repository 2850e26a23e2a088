"""Answers of several shards, made into one."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from .errors import InvalidValue
from .query import chosen, contains, is_in, page
from .types import Change, Worker

T = TypeVar("T")
AskAll = Callable[[str, Mapping[str, Any]], Awaitable[list[Any]]]
_SEPARATOR = "."


async def merged_page(
    ask_all: AskAll, operation: str, query: Mapping[str, Any], kind: type[T], *, order: str
) -> list[T]:
    """The page that a query would give of all shards' items together, which are in order of a field."""
    limit, offset = query["limit"], query["offset"]
    wanted = -1 if limit == -1 else offset + limit
    parts = await ask_all(operation, {**query, "limit": wanted, "offset": 0})
    items = sorted((item for part in parts for item in part), key=lambda item: getattr(item, order))
    return page(
        items, kind, sort_by=query["sort_by"], sort_order=query["sort_order"], limit=limit, offset=offset
    )


async def merged_workers(ask_all: AskAll, query: Mapping[str, Any]) -> list[Worker]:
    """The workers that pass the query, each of which several shards may know."""
    everyone = {"status_in": None, "worker_id_contains": None, "filter_logic": "and", "sort_by": None}
    parts = await ask_all("workers", {**everyone, "sort_order": "asc", "limit": -1, "offset": 0})
    known: dict[str, list[Worker]] = {}
    for part in parts:
        for worker in part:
            known.setdefault(worker.worker_id, []).append(worker)
    workers = sorted(map(merged_worker, known.values()), key=lambda worker: worker.first_heard_time or 0.0)
    tests = [is_in("status", query["status_in"]), contains("worker_id", query["worker_id_contains"])]
    paging = {name: query[name] for name in ("sort_by", "sort_order", "limit", "offset")}
    return page(chosen(workers, tests, query["filter_logic"]), Worker, **paging)


def merged_worker(parts: Sequence[Worker]) -> Worker:
    """One worker as several shards know it: busy if it is busy for one of them, else as it was left last."""
    by_heartbeat = max(parts, key=lambda worker: worker.last_heartbeat_time or 0.0)
    by_work = max(parts, key=lambda w: (w.current_attempt_id is not None, w.last_busy_time or 0.0))
    # What a shard holds for idle, since it has no attempt of it, may be busy for another.
    busy_since = [worker.last_busy_time or 0.0 for worker in parts if worker.status == "busy"]
    idle = [worker.last_idle_time for worker in parts if worker.last_idle_time is not None]
    return replace(
        by_heartbeat,
        status=max(parts, key=_says_most).status,
        first_heard_time=min(
            (each.first_heard_time for each in parts if each.first_heard_time is not None), default=None
        ),
        last_dequeue_time=_largest([worker.last_dequeue_time for worker in parts]),
        last_busy_time=_largest([worker.last_busy_time for worker in parts]),
        last_idle_time=_largest([time for time in idle if not busy_since or time <= min(busy_since)]),
        current_rollout_id=by_work.current_rollout_id,
        current_attempt_id=by_work.current_attempt_id,
    )


def _says_most(worker: Worker) -> tuple[bool, float]:
    left = _largest([worker.last_idle_time, worker.last_dequeue_time])
    return worker.status == "busy", left or 0.0


def _largest(times: Sequence[float | None]) -> float | None:
    return max((time for time in times if time is not None), default=None)


def split_cursor(cursor: str, num_shards: int) -> list[str]:
    """Each shard's cursor; InvalidValue for one of a store with another number of shards."""
    if cursor == "0":
        return ["0"] * num_shards
    parts = cursor.split(_SEPARATOR)
    if len(parts) != num_shards:
        raise InvalidValue(
            f"cursor is {cursor!r}, which is none of this store of {num_shards} shards; give the cursor of "
            "one of its changes"
        )
    return parts


def merged_changes(
    cursors: Sequence[str], answers: Mapping[int, Sequence[Change]], limit: int
) -> list[Change]:
    """The shards' changes by turns, each with the cursor that goes on behind it on every shard."""
    at = list(cursors)
    merged: list[Change] = []
    for turn in range(max(map(len, answers.values()), default=0)):
        for shard, changes in answers.items():
            if turn < len(changes) and len(merged) < limit:
                at[shard] = changes[turn].cursor
                merged.append(replace(changes[turn], cursor=_SEPARATOR.join(at)))
    return merged


def in_order_of(shards: Iterable[int], answers: Mapping[int, Sequence[Any]]) -> list[Any]:
    """The answers' items, taken from the shards in the order given, as far as there are any."""
    left = {shard: list(reversed(answer)) for shard, answer in answers.items()}
    return [left[shard].pop() for shard in shards if left.get(shard)]


def merged_statistics(parts: Sequence[Mapping[str, Any]], *, num_workers: int) -> dict[str, Any]:
    """Sums of counts; what was lost, together; the longest wait; how long the first shard has been up."""
    total: dict[str, Any] = {}
    for name in parts[0]:
        values = [part[name] for part in parts]
        if name == "lost":
            total[name] = {key: [id for value in values for id in value[key]] for key in values[0]}
        elif name == "oldest_queued_seconds":
            total[name] = _largest(values)
        elif isinstance(values[0], Mapping):
            total[name] = dict(sum(map(Counter, values), Counter()))
        else:
            total[name] = sum(values)
    return {**total, "uptime": parts[0]["uptime"], "total_workers": num_workers}

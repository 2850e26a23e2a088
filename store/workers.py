"""The workers of a store: who runs attempts, derived from what they do.

Kept in memory only: a store that is opened again learns of its workers when they are heard from.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from .types import ENDED_ATTEMPT, Attempt, Json, Worker, WorkerStatus


@dataclass(slots=True)
class _Entry:
    worker: Worker
    in_flight: dict[str, str]
    """Attempt id -> rollout id, in the order in which they were started."""


class WorkerBook:
    """Workers by id. One is busy while an attempt of its own is in flight; nobody sets that by hand."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def all(self) -> Iterable[Worker]:
        """All workers, in the order in which they were first heard of."""
        return (entry.worker for entry in self._entries.values())

    def get(self, worker_id: str) -> Worker | None:
        entry = self._entries.get(worker_id)
        return entry.worker if entry else None

    def beat(self, worker_id: str, now: float, stats: Mapping[str, Json] | None) -> Worker:
        """Notes a heartbeat, with new statistics if any are given."""
        entry = self._entry(worker_id, now)
        entry.worker = replace(
            entry.worker,
            last_heartbeat_time=now,
            heartbeat_stats=entry.worker.heartbeat_stats if stats is None else dict(stats),
        )
        return entry.worker

    def attempts_of(self, worker_id: str) -> list[tuple[str, str]]:
        """The (rollout id, attempt id) pairs that the worker has in flight."""
        entry = self._entries.get(worker_id)
        return (
            [(rollout_id, attempt_id) for attempt_id, rollout_id in entry.in_flight.items()] if entry else []
        )

    def asked(self, worker_id: str, now: float) -> None:
        """Notes that the worker asked for work: it has no other than what is known to be in flight."""
        entry = self._entry(worker_id, now)
        entry.worker = replace(entry.worker, last_dequeue_time=now)
        if not entry.in_flight and entry.worker.status != "idle":
            self._settle(entry, "idle", now)

    def follow(self, before: Attempt | None, attempt: Attempt, now: float) -> None:
        """Derives the worker's state from what became of one of its attempts."""
        if before is not None and (before.worker_id, before.status) == (attempt.worker_id, attempt.status):
            return  # something else changed, which says nothing of the worker
        if before is not None and before.worker_id not in (None, attempt.worker_id):
            self._release(str(before.worker_id), attempt.attempt_id, "idle", now)
        if attempt.worker_id is None:
            return
        if attempt.status in ENDED_ATTEMPT or attempt.status == "unresponsive":
            # Of one that went silent or too slow nobody knows what it is doing.
            gone = attempt.status in ("timeout", "unresponsive")
            self._release(attempt.worker_id, attempt.attempt_id, "unknown" if gone else "idle", now)
        elif before is None or before.worker_id != attempt.worker_id or before.status == "unresponsive":
            entry = self._entry(attempt.worker_id, now)
            entry.in_flight[attempt.attempt_id] = attempt.rollout_id
            entry.worker = replace(entry.worker, last_busy_time=now)
            self._settle(entry, "busy", now)

    def forget(self, attempt: Attempt, now: float) -> None:
        """Takes a deleted attempt from the worker that may still be at it."""
        if attempt.worker_id is None:
            return
        if attempt.attempt_id in self._entry(attempt.worker_id, now).in_flight:
            self._release(attempt.worker_id, attempt.attempt_id, "idle", now)

    def _release(self, worker_id: str, attempt_id: str, status: WorkerStatus, now: float) -> None:
        entry = self._entry(worker_id, now)
        entry.in_flight.pop(attempt_id, None)
        self._settle(entry, "busy" if entry.in_flight else status, now)

    def _settle(self, entry: _Entry, status: WorkerStatus, now: float) -> None:
        attempt_id, rollout_id = next(reversed(entry.in_flight.items()), (None, None))
        worker = replace(
            entry.worker, status=status, current_attempt_id=attempt_id, current_rollout_id=rollout_id
        )
        if status != "busy":
            worker = replace(worker, last_idle_time=now)
        entry.worker = worker

    def _entry(self, worker_id: str, now: float) -> _Entry:
        if worker_id not in self._entries:
            self._entries[worker_id] = _Entry(Worker(worker_id=worker_id, first_heard_time=now), {})
        return self._entries[worker_id]

"""The state machine of every store: in memory, without I/O, O(1) per rollout, attempt or span touched.

``LightningCore`` decides what may happen and what follows from it; whoever drives it gives the time and
the journal. It is not thread-safe. Each method either raises before it changes anything or succeeds.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .deadlines import Deadlines
from .entries import Entry, EntryBook
from .errors import InvalidTransition, InvalidValue
from .feed import ChangeFeed
from .groups import GroupBook
from .queue import RolloutQueue
from .record import Recorder, Snapshot
from .resources import ResourcesBook
from .rules import (
    IN_FLIGHT,
    check_attempt_status,
    check_new_status,
    deadline,
    differs,
    given,
    named,
    overdue_reason,
    status_after,
)
from .types import (
    ENDED_ATTEMPT,
    ENDED_ROLLOUT,
    UNSET,
    Attempt,
    AttemptedRollout,
    AttemptStatus,
    EnqueueRolloutRequest,
    Json,
    Mode,
    Rollout,
    RolloutConfig,
    RolloutStatus,
    Unset,
    Worker,
)
from .watch import Watch
from .workers import WorkerBook

_GIVEN_UP = frozenset({"error", "origin", "lost"})
"""Metadata of an attempt that was given up, which it loses when it is heard from again."""
_SIGN_SECONDS = 0.001
"""Spans that follow each other faster than this are one sign of life."""
_QUEUED: frozenset[RolloutStatus] = frozenset({"queuing", "requeuing"})


class LightningCore:
    """Rollouts and attempts, and the rules by which they change; groups, resources and workers follow.

    Whoever makes a new thing gives its id, so that a call which is sent twice, because its answer was lost,
    gets the same answer twice. ``watch`` gives the time and hears of what others may be waiting for.
    """

    def __init__(self, *, recorder: Recorder, watch: Watch, snapshot: Snapshot | None = None) -> None:
        self._clock = watch.clock
        self._record = recorder
        self._watch = watch
        self.feed = ChangeFeed(recorder.change, watch.on_change, watch.recall_changes)
        self.groups = GroupBook(recorder, self.feed, self._clock, on_complete=watch.on_complete)
        self.resources = ResourcesBook(recorder, self.feed, self._clock)
        self.workers = WorkerBook()
        self.deadlines = Deadlines(self._due_at)
        self.entries = EntryBook()
        self._queue = RolloutQueue()
        if snapshot is not None:
            self._restore(snapshot)

    # Rollouts

    def enqueue(
        self, requests: Sequence[EnqueueRolloutRequest], *, times: Sequence[float] | None = None
    ) -> list[Rollout]:
        """Queues one rollout per request, each of which must name its id.

        One shard of several is given the times at which they count as enqueued; their resources, which
        another shard keeps, are then known to exist.
        """
        repeated = self.check_requests(requests, resolved=times is not None)
        moments = times or [self._clock()] * len(requests)
        return [
            repeated.get(named(request)) or self._add(request, moment)
            for request, moment in zip(requests, moments, strict=True)
        ]

    def start_rollout(
        self,
        request: EnqueueRolloutRequest,
        *,
        worker_id: str | None,
        attempt_id: str,
        time: float | None = None,
    ) -> AttemptedRollout:
        """Adds the rollout, whose id the request names, and starts its first attempt."""
        self.entries.started(named(request), attempt_id)  # refuses a wrong id before anything is changed
        (rollout,) = self.enqueue([request], times=None if time is None else [time])
        return self.start_attempt(rollout.rollout_id, worker_id=worker_id, attempt_id=attempt_id)

    def queued(self, limit: int) -> list[tuple[int, str]]:
        """Position and id of the up to ``limit`` rollouts that have waited longest, which go on waiting."""
        return self._queue.waiting(limit)

    def queue_counts(self) -> dict[str, Any]:
        """How many rollouts wait, and for how long the first of them has."""
        since = self._queue.since()
        return {
            "queued": len(self._queue),
            "oldest_queued_seconds": None if since is None else max(0.0, self._clock() - since),
        }

    def dequeue(self, limit: int, *, worker_id: str | None, claim: str) -> list[AttemptedRollout]:
        """Starts attempts, named after the claim, on up to ``limit`` rollouts, longest queued first."""
        if worker_id is not None:
            self.workers.asked(worker_id, self._clock())
        return self.entries.claimed([claim], limit) or [
            self.start_attempt(rollout_id, worker_id=worker_id, attempt_id=f"at-{claim}-{index}")
            for index, rollout_id in enumerate(self._queue.first(limit))
        ]

    def update_rollout(
        self,
        rollout_id: str,
        *,
        input: Json | Unset,
        mode: Mode | Unset | None,
        resources_id: str | Unset | None,
        status: RolloutStatus | Unset,
        config: RolloutConfig | Unset,
        metadata: Mapping[str, Json] | Unset,
        resolved: bool = False,
    ) -> Rollout:
        """Sets what is given; ``resolved`` says that another shard, which keeps the resources, knows them."""
        entry = self.entries.get(rollout_id)
        if status is not UNSET:
            check_new_status(entry.rollout, status)
        if resources_id is not UNSET and not resolved:
            self.resources.check_known(resources_id)
        changes = given(input=input, mode=mode, resources_id=resources_id, config=config, metadata=metadata)
        if changes:
            entry.rollout = replace(entry.rollout, **changes)
            self._record.rollout(entry.rollout, self._queue.position(rollout_id))
        if config is not UNSET:
            for attempt_id in entry.attempts:
                self.deadlines.note(attempt_id)
        if status is not UNSET:
            self._move(entry, status)
        return entry.rollout

    def rollout(self, rollout_id: str) -> Rollout | None:
        entry = self.entries.find(rollout_id)
        return entry.rollout if entry else None

    def delete(self, rollout_ids: Sequence[str]) -> int:
        """Deletes ended rollouts with all they have, and groups that become empty. See `deletable`."""
        entries = self.deletable(rollout_ids)
        for entry in entries:
            self._delete(entry)
        return len(entries)

    def deletable(self, rollout_ids: Sequence[str]) -> list[Entry]:
        """The rollouts among those that (still) exist.

        Raises InvalidTransition for one that goes on, or whose declared group nobody has taken yet.
        """
        found = map(self.entries.find, dict.fromkeys(rollout_ids))
        entries = [entry for entry in found if entry is not None]
        for entry in entries:
            if not self._is_done_with(entry.rollout):
                raise InvalidTransition(
                    f"rollout {entry.rollout.rollout_id!r} is {entry.rollout.status}"
                    + (f" in group {entry.rollout.group_id!r}" if entry.rollout.group_id else "")
                    + "; cancel it, or have its group taken and acknowledged, before you delete it"
                )
        return entries

    def ended_before(self, time: float) -> list[str]:
        """The ids of the rollouts that ended before a time and that nobody waits for any more."""
        return [
            entry.rollout.rollout_id
            for entry in self.entries
            if entry.rollout.end_time is not None
            and entry.rollout.end_time < time
            and self._is_done_with(entry.rollout)
        ]

    # Attempts

    def start_attempt(self, rollout_id: str, *, worker_id: str | None, attempt_id: str) -> AttemptedRollout:
        known = self.entries.started(rollout_id, attempt_id)
        if known is not None:
            return known
        entry = self.entries.get(rollout_id)
        check_new_status(entry.rollout, "preparing")
        now = self._clock()
        attempt = Attempt(
            rollout_id=rollout_id,
            attempt_id=attempt_id,
            sequence_id=len(entry.attempts) + 1,
            start_time=now,
            worker_id=worker_id,
        )
        self._keep_attempt(attempt)
        self._move(entry, "preparing")
        return AttemptedRollout.of(entry.rollout, attempt)

    def update_attempt(
        self,
        rollout_id: str,
        attempt_id: str,
        *,
        status: AttemptStatus | Unset,
        worker_id: str | Unset | None,
        last_heartbeat_time: float | Unset,
        metadata: Mapping[str, Json] | Unset,
    ) -> Attempt:
        entry, attempt = self.entries.get_attempt(rollout_id, attempt_id)
        changes = dict(
            given(
                status=status,
                worker_id=worker_id,
                last_heartbeat_time=last_heartbeat_time,
                metadata=metadata,
            )
        )
        if status is not UNSET:
            check_attempt_status(status)
        if status is not UNSET and status != attempt.status:
            if attempt.status in ENDED_ATTEMPT:
                raise InvalidTransition(
                    f"attempt {attempt.attempt_id!r} ended as {attempt.status} and cannot become {status}"
                )
            changes["end_time"] = self._clock() if status in ENDED_ATTEMPT else None
        attempt = replace(attempt, **changes)
        self._keep_attempt(attempt)
        if status is not UNSET:
            self._follow(entry, attempt)
        return attempt

    def attempts(self, rollout_id: str) -> list[Attempt]:
        return list(self.entries.get(rollout_id).attempts.values())

    def latest_attempts(self, rollout_ids: Sequence[str]) -> list[Attempt | None]:
        return [self.entries.get(rollout_id).latest for rollout_id in rollout_ids]

    def abandon_in_flight(self, reason: str) -> dict[str, list[str]]:
        """Declares every attempt in flight unresponsive; returns what became of their rollouts.

        For a store that is opened again: whoever ran those attempts is gone.
        """
        lost: dict[str, list[str]] = {"requeued": [], "failed": []}
        for entry in self.entries:
            in_flight = [one for one in entry.attempts.values() if one.status in IN_FLIGHT]
            before = entry.rollout.status
            for attempt in in_flight:
                given_up = self._give_up(attempt, "unresponsive", {"lost": reason})
                if before not in _QUEUED:  # otherwise somebody wants another attempt anyway
                    self._follow(entry, given_up)
            if before in ("preparing", "running") and entry.rollout.status != before:
                outcome = "failed" if entry.rollout.status == "failed" else "requeued"
                lost[outcome].append(entry.rollout.rollout_id)
        return lost

    def expire(self) -> None:
        """Gives up the attempts that took too long or were silent for too long; ends overdue leases."""
        now = self._clock()
        for attempt_id in self.deadlines.overdue(now):
            entry = self.entries.owner(attempt_id)
            assert entry is not None, "deadlines of deleted attempts never come"
            attempt = entry.attempts[attempt_id]
            status, reason = overdue_reason(attempt, entry.rollout.config, now)
            given_up = self._give_up(attempt, status, {"error": reason, "origin": "limit"})
            self._follow(entry, given_up)
        self.groups.end_leases(now)

    def next_deadline(self) -> float | None:
        """When to call ``expire`` next; None for not before something changes."""
        deadline, lease_end = self.deadlines.next(), self.groups.leases.next()
        if deadline is None or lease_end is None:
            return lease_end if deadline is None else deadline
        return min(deadline, lease_end)

    def hear_from(self, entry: Entry, attempt: Attempt) -> None:
        """Notes a sign of life: a preparing or unresponsive attempt is running."""
        now = self._clock()
        if attempt.status not in ("preparing", "unresponsive"):
            if now - (attempt.last_heartbeat_time or 0.0) >= _SIGN_SECONDS:
                entry.attempts[attempt.attempt_id] = replace(attempt, last_heartbeat_time=now)
            return
        metadata = {name: value for name, value in attempt.metadata.items() if name not in _GIVEN_UP}
        attempt = replace(attempt, status="running", last_heartbeat_time=now, metadata=metadata)
        self._keep_attempt(attempt)
        self._follow(entry, attempt)

    def update_worker(self, worker_id: str, *, heartbeat_stats: Mapping[str, Json] | Unset) -> Worker:
        """Notes a worker's heartbeat, which keeps its attempts alive."""
        now = self._clock()
        for rollout_id, attempt_id in self.workers.attempts_of(worker_id):
            entry = self.entries.get(rollout_id)
            entry.attempts[attempt_id] = replace(entry.attempts[attempt_id], last_heartbeat_time=now)
        return self.workers.beat(worker_id, now, None if heartbeat_stats is UNSET else heartbeat_stats)

    # Rules

    def check_requests(
        self, requests: Sequence[EnqueueRolloutRequest], *, resolved: bool
    ) -> dict[str, Rollout]:
        """Returns the rollouts that exist already; raises InvalidValue if one contradicts its request."""
        repeated: dict[str, Rollout] = {}
        added: Counter[str] = Counter()
        named_ids: set[str] = set()
        for request in requests:
            rollout_id = named(request)
            known = self.rollout(rollout_id)
            repeats = rollout_id in named_ids
            named_ids.add(rollout_id)
            if not resolved:
                self.resources.check_known(request.resources_id)
            if known is None and not repeats:
                if request.group_id is not None:
                    added[request.group_id] += 1
            elif known is None or repeats or differs(request, known):
                raise InvalidValue(f"rollout_id {rollout_id!r} is taken; give another, or none")
            else:
                repeated[rollout_id] = known
        self.groups.check_room(added)
        return repeated

    def _follow(self, entry: Entry, attempt: Attempt) -> None:
        """Moves the rollout after its attempt's status, if the attempt is the latest and it has not ended."""
        if attempt is entry.latest and not entry.rollout.ended:
            self._move(entry, status_after(attempt, entry.rollout.config, num_attempts=len(entry.attempts)))

    def _give_up(self, attempt: Attempt, status: AttemptStatus, notes: Mapping[str, Json]) -> Attempt:
        end_time = self._clock() if status in ENDED_ATTEMPT else None
        metadata = {**attempt.metadata, **notes}
        attempt = replace(attempt, status=status, end_time=end_time, metadata=metadata)
        self._keep_attempt(attempt)
        return attempt

    def _due_at(self, attempt_id: str) -> float | None:
        entry = self.entries.owner(attempt_id)
        return None if entry is None else deadline(entry.attempts[attempt_id], entry.rollout.config)

    def _is_done_with(self, rollout: Rollout) -> bool:
        """Whether it has ended and no group still wants it."""
        if not rollout.ended:
            return False
        if rollout.group_id is None:
            return True
        group = self.groups.get(rollout.group_id)
        return group.num_rollouts is None or (group.status == "taken" and group.lease_end is None)

    # Changes, each of which is recorded

    def _add(self, request: EnqueueRolloutRequest, time: float) -> Rollout:
        latest = self.resources.latest()
        rollout = Rollout(
            rollout_id=named(request),
            input=request.input,
            task_id=request.task_id,
            group_id=request.group_id,
            mode=request.mode,
            resources_id=request.resources_id or (latest.resources_id if latest else None),
            config=request.config or RolloutConfig(),
            start_time=time,
            metadata=dict(request.metadata or {}),
        )
        self.entries.add(rollout)
        self._watch.on_new(rollout.rollout_id)
        self.groups.add_member(rollout)
        self._record.rollout(rollout, self._queue.push(rollout.rollout_id, rollout.start_time))
        self.feed.add("rollout", rollout_id=rollout.rollout_id, status=rollout.status)
        return rollout

    def _move(self, entry: Entry, status: RolloutStatus) -> None:
        rollout = entry.rollout
        if status == rollout.status:
            return
        position = None
        if status in _QUEUED:
            position = self._queue.push(rollout.rollout_id, self._clock())
        else:
            self._queue.remove(rollout.rollout_id)
        entry.rollout = replace(
            rollout, status=status, end_time=self._clock() if status in ENDED_ROLLOUT else None
        )
        self._record.progress(entry.rollout, position)
        self.feed.add("rollout", rollout_id=rollout.rollout_id, status=status)
        if entry.rollout.ended:
            self.groups.count_end(entry.rollout)
            self._watch.on_end(rollout.rollout_id)

    def _keep_attempt(self, attempt: Attempt) -> None:
        before = self.entries.put_attempt(attempt)
        self.deadlines.note(attempt.attempt_id)
        self.workers.follow(before, attempt, self._clock())
        self._record.attempt(attempt)
        if before is None or before.status != attempt.status:
            self.feed.add(
                "attempt",
                rollout_id=attempt.rollout_id,
                attempt_id=attempt.attempt_id,
                status=attempt.status,
            )

    def _delete(self, entry: Entry) -> None:
        rollout_id = entry.rollout.rollout_id
        self.entries.remove(entry)
        self._record.rollout_deleted(rollout_id)
        for attempt in entry.attempts.values():
            self.workers.forget(attempt, self._clock())
        self._watch.on_delete(rollout_id, list(entry.attempts))
        self.feed.add("deleted", rollout_id=rollout_id)
        self.groups.forget(entry.rollout)

    def _restore(self, snapshot: Snapshot) -> None:
        self.feed.last = snapshot.last_change
        self.groups.restore(snapshot.groups, [rollout for rollout, _ in snapshot.rollouts])
        self.resources.restore(snapshot.resources)
        for rollout, _ in snapshot.rollouts:
            self.entries.add(rollout)
        now = self._clock()
        for attempt in snapshot.attempts:
            if attempt.end_time is None:
                # Heartbeats are not journalled, and a clock may have been set back since.
                attempt = replace(attempt, start_time=min(attempt.start_time, now), last_heartbeat_time=now)
            self.entries.put_attempt(attempt)
            if attempt.status in IN_FLIGHT:
                self.workers.follow(None, attempt, now)
                self.deadlines.note(attempt.attempt_id)
        self._queue.restore(
            (position, rollout.rollout_id, rollout.start_time)
            for rollout, position in snapshot.rollouts
            if position is not None
        )

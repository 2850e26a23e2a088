"""The state machine of every store: in memory, without I/O, O(1) per rollout, attempt or span touched.

``LightningCore`` decides what may happen and what follows from it; whoever drives it gives the time and
the journal. It is not thread-safe. Each method either raises before it changes anything or succeeds.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, get_args

from .errors import InvalidTransition, InvalidValue, UnknownAttempt, UnknownRollout
from .groups import GroupBook
from .record import Recorder, Snapshot
from .resources import ResourcesBook
from .rows import SpanRow
from .span_cache import SpanCache
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
)

_QUEUED: frozenset[RolloutStatus] = frozenset({"queuing", "requeuing"})


@dataclass(slots=True)
class _Entry:
    rollout: Rollout
    order: int
    """Place among all rollouts, by enqueuing."""
    attempts: dict[str, Attempt] = field(default_factory=dict)

    @property
    def latest(self) -> Attempt | None:
        return next(reversed(self.attempts.values()), None)


class LightningCore:
    """Rollouts, attempts, spans, groups and resources, and the rules by which they change.

    Whoever makes a new thing gives its id, so that a call which is sent twice, because its answer was lost,
    gets the same answer twice. ``on_end`` is called with the id of each rollout that ends.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        recorder: Recorder,
        spans: SpanCache,
        on_end: Callable[[str], None],
        snapshot: Snapshot | None = None,
    ) -> None:
        self._clock = clock
        self._record = recorder
        self._spans = spans
        self._on_end = on_end
        self.groups = GroupBook(recorder)
        self.resources = ResourcesBook(recorder, clock)
        self._rollouts: dict[str, _Entry] = {}
        self._owner: dict[str, str] = {}  # attempt id -> rollout id
        self._queue: OrderedDict[str, int] = OrderedDict()  # rollout id -> position
        self._next_position = 0
        self._num_spans = 0
        if snapshot is not None:
            self._restore(snapshot)

    # Rollouts

    def enqueue(self, requests: Sequence[EnqueueRolloutRequest]) -> list[Rollout]:
        """Queues one rollout per request, each of which must name its id."""
        repeated = self._check_requests(requests)
        return [repeated.get(_named(request)) or self._add(request) for request in requests]

    def start_rollout(
        self, request: EnqueueRolloutRequest, *, worker_id: str | None, attempt_id: str
    ) -> AttemptedRollout:
        """Adds the rollout, whose id the request names, and starts its first attempt."""
        rollout = self.enqueue([request])[0]
        return self.start_attempt(rollout.rollout_id, worker_id=worker_id, attempt_id=attempt_id)

    def dequeue(self, limit: int, *, worker_id: str | None, claim: str) -> list[AttemptedRollout]:
        """Starts attempts, named after the claim, on up to ``limit`` rollouts, longest queued first."""
        attempt_ids = [f"at-{claim}-{index}" for index in range(limit)]
        if attempt_ids and attempt_ids[0] in self._owner:
            return [self._attempted(attempt_id) for attempt_id in attempt_ids if attempt_id in self._owner]
        return [
            self.start_attempt(rollout_id, worker_id=worker_id, attempt_id=attempt_id)
            for attempt_id, rollout_id in zip(attempt_ids, list(islice(self._queue, limit)), strict=False)
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
    ) -> Rollout:
        entry = self._entry(rollout_id)
        if status is not UNSET:
            self._check_status(entry.rollout, status)
        changes = _given(input=input, mode=mode, resources_id=resources_id, config=config, metadata=metadata)
        if changes:
            entry.rollout = replace(entry.rollout, **changes)
            self._record.rollout(entry.rollout, self._queue.get(rollout_id))
        if status is not UNSET:
            self._move(entry, status)
        return entry.rollout

    def rollout(self, rollout_id: str) -> Rollout | None:
        entry = self._rollouts.get(rollout_id)
        return entry.rollout if entry else None

    def rollouts(
        self,
        *,
        status_in: Iterable[RolloutStatus] | None,
        rollout_id_in: Iterable[str] | None,
        group_id_in: Iterable[str] | None,
        mode: Mode | None,
        limit: int | None,
        offset: int,
    ) -> list[Rollout]:
        found: Iterable[Rollout] = self._candidates(rollout_id_in, group_id_in)
        if status_in is not None:
            statuses = set(status_in)
            found = (rollout for rollout in found if rollout.status in statuses)
        if mode is not None:
            found = (rollout for rollout in found if rollout.mode == mode)
        return list(islice(found, offset, None if limit is None else offset + limit))

    # Attempts

    def start_attempt(self, rollout_id: str, *, worker_id: str | None, attempt_id: str) -> AttemptedRollout:
        if attempt_id in self._owner:
            return self._attempted(attempt_id)
        entry = self._entry(rollout_id)
        self._check_status(entry.rollout, "preparing")
        now = self._clock()
        attempt = Attempt(
            rollout_id=rollout_id,
            attempt_id=attempt_id,
            sequence_id=len(entry.attempts) + 1,
            start_time=now,
            worker_id=worker_id,
            last_heartbeat_time=now,
        )
        self._keep_attempt(entry, attempt)
        self._move(entry, "preparing")
        return AttemptedRollout(entry.rollout, attempt)

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
        entry, attempt = self._entry_and_attempt(rollout_id, attempt_id)
        changes = _given(
            status=status, worker_id=worker_id, last_heartbeat_time=last_heartbeat_time, metadata=metadata
        )
        if status is not UNSET and status not in get_args(AttemptStatus):
            raise InvalidValue(f"status is {status!r}; give one of {', '.join(get_args(AttemptStatus))}")
        if status is not UNSET and status != attempt.status:
            if attempt.status in ENDED_ATTEMPT:
                raise InvalidTransition(
                    f"attempt {attempt.attempt_id!r} ended as {attempt.status} and cannot become {status}"
                )
            changes["end_time"] = self._clock() if status in ENDED_ATTEMPT else None
        attempt = replace(attempt, **changes)
        self._keep_attempt(entry, attempt)
        if status is not UNSET:
            self._follow(entry, attempt)
        return attempt

    def attempts(self, rollout_id: str) -> list[Attempt]:
        return list(self._entry(rollout_id).attempts.values())

    def latest_attempts(self, rollout_ids: Sequence[str]) -> list[Attempt | None]:
        return [self._entry(rollout_id).latest for rollout_id in rollout_ids]

    def abandon_in_flight(self, reason: str) -> dict[str, list[str]]:
        """Declares every attempt in flight unresponsive; returns what became of their rollouts.

        For a store that is opened again: whoever ran those attempts is gone.
        """
        lost: dict[str, list[str]] = {"requeued": [], "failed": []}
        for entry in self._rollouts.values():
            attempt = entry.latest
            if entry.rollout.status not in ("preparing", "running") or attempt is None:
                continue
            attempt = replace(attempt, status="unresponsive", metadata={**attempt.metadata, "lost": reason})
            self._keep_attempt(entry, attempt)
            self._follow(entry, attempt)
            outcome = "failed" if entry.rollout.status == "failed" else "requeued"
            lost[outcome].append(entry.rollout.rollout_id)
        return lost

    # Spans

    def add_rows(self, rows: Sequence[SpanRow]) -> int:
        """Adds the rows; returns how many were new."""
        touched = {row.attempt_id: self._entry_and_attempt(row.rollout_id, row.attempt_id) for row in rows}
        new = [row for row in rows if self._spans.add(row)]
        if new:
            self._record.spans(new)
            self._num_spans += len(new)
        now = self._clock()
        for entry, attempt in touched.values():
            self._hear_from(entry, attempt, now)
        return len(new)

    def rows(self, rollout_id: str, attempt_id: str | None) -> list[SpanRow]:
        """Returns the rows of one attempt or, for None, of all, by attempt and sequence id."""
        entry = self._entry(rollout_id)
        if attempt_id is None:
            order = {attempt.attempt_id: attempt.sequence_id for attempt in entry.attempts.values()}
            return sorted(
                self._spans.rows_of(rollout_id), key=lambda row: (order[row.attempt_id], row.sequence_id)
            )
        _, attempt = self._entry_and_attempt(rollout_id, attempt_id)
        rows = self._spans.rows_of(rollout_id)
        return sorted(
            (row for row in rows if row.attempt_id == attempt.attempt_id), key=lambda row: row.sequence_id
        )

    def members(self, group_id: str) -> list[tuple[Rollout, Attempt | None, list[SpanRow]]]:
        """Returns the group's rollouts, each with its last attempt and that attempt's rows."""
        members = []
        for rollout_id in self.groups.members(group_id):
            entry = self._rollouts[rollout_id]
            attempt = entry.latest
            rows = self.rows(rollout_id, attempt.attempt_id) if attempt else []
            members.append((entry.rollout, attempt, rows))
        return members

    def statistics(self) -> dict[str, Any]:
        return {
            "rollouts": dict(Counter(entry.rollout.status for entry in self._rollouts.values())),
            "attempts": len(self._owner),
            "spans": self._num_spans,
            "groups": dict(
                Counter(group.status for group in self.groups.query(status_in=None, group_id_in=None))
            ),
        }

    # Rules

    def _check_requests(self, requests: Sequence[EnqueueRolloutRequest]) -> dict[str, Rollout]:
        """Returns the rollouts that exist already; raises InvalidValue if one contradicts its request."""
        repeated: dict[str, Rollout] = {}
        added: Counter[str] = Counter()
        new_ids: set[str] = set()
        for request in requests:
            rollout_id = _named(request)
            known = self.rollout(rollout_id)
            if known is None and rollout_id not in new_ids:
                new_ids.add(rollout_id)
                if request.group_id is not None:
                    added[request.group_id] += 1
            elif known is None or _differs(request, known):
                raise InvalidValue(f"rollout_id {rollout_id!r} is taken; give another, or none")
            else:
                repeated[rollout_id] = known
        self.groups.check_room(added)
        return repeated

    def _check_status(self, rollout: Rollout, status: RolloutStatus) -> None:
        if status not in get_args(RolloutStatus):
            raise InvalidValue(f"status is {status!r}; give one of {', '.join(get_args(RolloutStatus))}")
        if rollout.ended and status != rollout.status:
            raise InvalidTransition(
                f"rollout {rollout.rollout_id!r} ended as {rollout.status} and cannot become {status}"
            )

    def _follow(self, entry: _Entry, attempt: Attempt) -> None:
        """Moves the rollout after its attempt's status, if the attempt is the latest and it has not ended."""
        if attempt is not entry.latest or entry.rollout.ended:
            return
        if attempt.status in ("preparing", "running", "succeeded"):
            self._move(entry, attempt.status)
            return
        config = entry.rollout.config
        again = attempt.status in config.retry_condition and len(entry.attempts) < config.max_attempts
        self._move(entry, "requeuing" if again else "failed")

    def _hear_from(self, entry: _Entry, attempt: Attempt, now: float) -> None:
        """Notes a sign of life: a preparing or unresponsive attempt is running."""
        if attempt.status not in ("preparing", "unresponsive"):
            entry.attempts[attempt.attempt_id] = replace(attempt, last_heartbeat_time=now)
            return
        attempt = replace(attempt, status="running", last_heartbeat_time=now)
        self._keep_attempt(entry, attempt)
        self._follow(entry, attempt)

    # Changes, each of which is recorded

    def _add(self, request: EnqueueRolloutRequest) -> Rollout:
        rollout = Rollout(
            rollout_id=_named(request),
            input=request.input,
            task_id=request.task_id,
            group_id=request.group_id,
            mode=request.mode,
            resources_id=request.resources_id,
            config=request.config or RolloutConfig(),
            start_time=self._clock(),
            metadata=dict(request.metadata or {}),
        )
        self._rollouts[rollout.rollout_id] = _Entry(rollout, len(self._rollouts))
        self._spans.expect(rollout.rollout_id)
        self.groups.add_member(rollout)
        self._record.rollout(rollout, self._push(rollout.rollout_id))
        return rollout

    def _move(self, entry: _Entry, status: RolloutStatus) -> None:
        rollout = entry.rollout
        if status == rollout.status:
            return
        if status in _QUEUED:
            position: int | None = self._push(rollout.rollout_id)
        else:
            self._queue.pop(rollout.rollout_id, None)
            position = None
        entry.rollout = replace(
            rollout, status=status, end_time=self._clock() if status in ENDED_ROLLOUT else None
        )
        self._record.progress(entry.rollout, position)
        if entry.rollout.ended:
            self.groups.count_end(entry.rollout)
            self._on_end(rollout.rollout_id)

    def _push(self, rollout_id: str) -> int:
        """Returns the rollout's place in the queue, the last one unless it had one already."""
        if rollout_id not in self._queue:
            self._queue[rollout_id] = self._next_position
            self._next_position += 1
        return self._queue[rollout_id]

    def _keep_attempt(self, entry: _Entry, attempt: Attempt) -> None:
        entry.attempts[attempt.attempt_id] = attempt
        self._owner[attempt.attempt_id] = attempt.rollout_id
        self._record.attempt(attempt)

    # Look-ups

    def _entry(self, rollout_id: str) -> _Entry:
        entry = self._rollouts.get(rollout_id)
        if entry is None:
            raise UnknownRollout(f"no rollout has the id {rollout_id!r}")
        return entry

    def _entry_and_attempt(self, rollout_id: str, attempt_id: str) -> tuple[_Entry, Attempt]:
        entry = self._entry(rollout_id)
        attempt = entry.latest if attempt_id == "latest" else entry.attempts.get(attempt_id)
        if attempt is None:
            raise UnknownAttempt(f"rollout {rollout_id!r} has no attempt {attempt_id!r}")
        return entry, attempt

    def _attempted(self, attempt_id: str) -> AttemptedRollout:
        entry = self._rollouts[self._owner[attempt_id]]
        return AttemptedRollout(entry.rollout, entry.attempts[attempt_id])

    def _candidates(
        self, rollout_id_in: Iterable[str] | None, group_id_in: Iterable[str] | None
    ) -> Iterable[Rollout]:
        """Yields the rollouts that pass both filters, in order, looking at no more than these name."""
        if rollout_id_in is None and group_id_in is None:
            return (entry.rollout for entry in self._rollouts.values())
        ids = None if rollout_id_in is None else {id for id in rollout_id_in if id in self._rollouts}
        if group_id_in is not None:
            groups = self.groups.query(status_in=None, group_id_in=group_id_in)
            members = {id for group in groups for id in self.groups.members(group.group_id)}
            ids = members if ids is None else ids & members
        entries = [self._rollouts[id] for id in ids or ()]
        return [entry.rollout for entry in sorted(entries, key=lambda entry: entry.order)]

    def _restore(self, snapshot: Snapshot) -> None:
        self.groups.restore(snapshot.groups, [rollout for rollout, _ in snapshot.rollouts])
        self.resources.restore(snapshot.resources)
        for rollout, _ in snapshot.rollouts:
            self._rollouts[rollout.rollout_id] = _Entry(rollout, len(self._rollouts))
        for attempt in snapshot.attempts:
            self._rollouts[attempt.rollout_id].attempts[attempt.attempt_id] = attempt
            self._owner[attempt.attempt_id] = attempt.rollout_id
        queued = [
            (position, rollout.rollout_id) for rollout, position in snapshot.rollouts if position is not None
        ]
        for position, rollout_id in sorted(queued):
            self._queue[rollout_id] = position
            self._next_position = position + 1
        self._num_spans = snapshot.num_spans


def _named(request: EnqueueRolloutRequest) -> str:
    assert request.rollout_id is not None, "the caller of the core names every rollout"
    return request.rollout_id


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not UNSET}


def _differs(request: EnqueueRolloutRequest, rollout: Rollout) -> bool:
    return (request.input, request.task_id, request.group_id) != (
        rollout.input,
        rollout.task_id,
        rollout.group_id,
    )

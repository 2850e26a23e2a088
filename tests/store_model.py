"""A store in a hundred lines: dictionaries and the rules, to compare real ones with.

Attempts are named (rollout id, sequence id), since every store makes up ids of its own.
"""

from dataclasses import dataclass, field
from typing import Any

from raybolt.store import InvalidTransition, InvalidValue, RolloutConfig, UnknownAttempt, UnknownRollout

IN_FLIGHT = ("preparing", "running")
ENDED = ("succeeded", "failed", "cancelled")
FINAL = ("succeeded", "failed", "timeout")


@dataclass
class ModelAttempt:
    status: str = "preparing"
    worker: str | None = None
    spans: dict[str, int] = field(default_factory=dict)
    """Span id -> sequence id."""


@dataclass
class ModelRollout:
    input: Any
    group: str | None
    config: RolloutConfig
    status: str = "queuing"
    mode: str | None = None
    attempts: list[ModelAttempt] = field(default_factory=list)


@dataclass
class ModelGroup:
    num_rollouts: int | None = None
    num_ended: int = 0
    num_succeeded: int = 0
    status: str = "open"
    members: list[str] = field(default_factory=list)


class Model:
    """What a store should answer; every method returns plain data or raises a store's error."""

    def __init__(self) -> None:
        self.rollouts: dict[str, ModelRollout] = {}
        self.groups: dict[str, ModelGroup] = {}
        self.queue: list[str] = []
        self.complete: list[str] = []

    # Operations

    def enqueue(self, rollout_id: str, input: Any, group: str | None, config: RolloutConfig) -> str:
        known = self.rollouts.get(rollout_id)
        if known is not None:
            if (known.input, known.group) != (input, group):
                raise InvalidValue("taken")
            return known.status
        if group is not None:
            entry = self.groups.get(group, ModelGroup())
            num_known = max(len(entry.members), entry.num_ended)
            if entry.num_rollouts is not None and num_known >= entry.num_rollouts:
                raise InvalidValue("full")
            entry.members.append(rollout_id)
            self.groups[group] = entry
        self.rollouts[rollout_id] = ModelRollout(input, group, config)
        self.queue.append(rollout_id)
        return "queuing"

    def dequeue(self, limit: int, worker: str | None) -> list[tuple[str, int]]:
        taken = self.queue[:limit]
        return [(rollout_id, self._attempt(rollout_id, worker)) for rollout_id in taken]

    def start_attempt(self, rollout_id: str, worker: str | None) -> tuple[str, int]:
        if self._rollout(rollout_id).status in ENDED:
            raise InvalidTransition("ended")
        return rollout_id, self._attempt(rollout_id, worker)

    def end_attempt(self, rollout_id: str, number: int, status: str) -> str:
        rollout, attempt = self._find(rollout_id, number)
        if attempt.status in FINAL and status != attempt.status:
            raise InvalidTransition("ended")
        attempt.status = status
        self._follow(rollout_id, rollout, attempt)
        return status

    def add_spans(self, rollout_id: str, number: int, sequence_ids: list[int]) -> list[int]:
        rollout, attempt = self._find(rollout_id, number)
        new = []
        for sequence_id in sequence_ids:
            if f"span-{sequence_id}" not in attempt.spans:
                attempt.spans[f"span-{sequence_id}"] = sequence_id
                new.append(sequence_id)
        if attempt.status in ("preparing", "unresponsive"):
            attempt.status = "running"
            self._follow(rollout_id, rollout, attempt)
        return new

    def add_numbered(self, rollout_id: str, number: int) -> int:
        _, attempt = self._find(rollout_id, number)
        sequence_id = max(attempt.spans.values(), default=0) + 1
        self.add_spans(rollout_id, number, [sequence_id])
        return sequence_id

    def set_status(self, rollout_id: str, status: str) -> str:
        rollout = self._rollout(rollout_id)
        if rollout.status in ENDED and status != rollout.status:
            raise InvalidTransition("ended")
        self._move(rollout_id, rollout, status)
        return rollout.status

    def set_mode(self, rollout_id: str, mode: str) -> str:
        self._rollout(rollout_id).mode = mode
        return mode

    def declare(self, group: str, num_rollouts: int) -> str:
        entry = self.groups.get(group)
        if entry is not None and entry.num_rollouts not in (None, num_rollouts):
            raise InvalidValue("declared otherwise")
        if entry is not None and len(entry.members) > num_rollouts:
            raise InvalidValue("too many")
        entry = self.groups.setdefault(group, ModelGroup())
        entry.num_rollouts = num_rollouts
        self._settle(group)
        return entry.status

    def take(self, limit: int) -> list[str]:
        taken, self.complete = self.complete[:limit], self.complete[limit:]
        for group in taken:
            self.groups[group].status = "taken"
        return taken

    def delete(self, rollout_ids: list[str]) -> int:
        known = [rollout_id for rollout_id in dict.fromkeys(rollout_ids) if rollout_id in self.rollouts]
        for rollout_id in known:
            rollout = self.rollouts[rollout_id]
            group = self.groups.get(rollout.group or "")
            wanted = group is not None and group.num_rollouts is not None and group.status != "taken"
            if rollout.status not in ENDED or wanted:
                raise InvalidTransition("wanted")
        for rollout_id in known:
            self._delete(rollout_id)
        return len(known)

    def reopen(self) -> None:
        for rollout_id, rollout in self.rollouts.items():
            for attempt in rollout.attempts:
                if attempt.status in IN_FLIGHT:
                    attempt.status = "unresponsive"
                    self._follow(rollout_id, rollout, attempt)

    def attempts_in_flight(self) -> list[tuple[str, int]]:
        return [
            (rollout_id, number)
            for rollout_id, rollout in self.rollouts.items()
            for number, attempt in enumerate(rollout.attempts, start=1)
            if attempt.status in IN_FLIGHT
        ]

    def state(self) -> dict[str, Any]:
        """Everything that a store shows."""
        return {
            "rollouts": [(id, r.status, r.mode, r.group) for id, r in self.rollouts.items()],
            "attempts": {id: [(a.status, a.worker) for a in r.attempts] for id, r in self.rollouts.items()},
            "spans": {
                id: [(n, s) for n, a in enumerate(r.attempts, 1) for s in sorted(a.spans.values())]
                for id, r in self.rollouts.items()
            },
            "groups": [
                (id, g.status, g.num_rollouts, g.num_ended, g.num_succeeded) for id, g in self.groups.items()
            ],
            "num_spans": sum(len(a.spans) for r in self.rollouts.values() for a in r.attempts),
            "busy": sorted(
                {
                    a.worker
                    for r in self.rollouts.values()
                    for a in r.attempts
                    if a.worker and a.status in IN_FLIGHT
                }
            ),
        }

    # Rules

    def _rollout(self, rollout_id: str) -> ModelRollout:
        if rollout_id not in self.rollouts:
            raise UnknownRollout("unknown")
        return self.rollouts[rollout_id]

    def _find(self, rollout_id: str, number: int) -> tuple[ModelRollout, ModelAttempt]:
        rollout = self._rollout(rollout_id)
        if not 1 <= number <= len(rollout.attempts):
            raise UnknownAttempt("unknown")
        return rollout, rollout.attempts[number - 1]

    def _attempt(self, rollout_id: str, worker: str | None) -> int:
        rollout = self.rollouts[rollout_id]
        rollout.attempts.append(ModelAttempt(worker=worker))
        self._move(rollout_id, rollout, "preparing")
        return len(rollout.attempts)

    def _follow(self, rollout_id: str, rollout: ModelRollout, attempt: ModelAttempt) -> None:
        if attempt is not rollout.attempts[-1] or rollout.status in ENDED:
            return
        status = attempt.status
        if status in ("failed", "timeout", "unresponsive"):
            left = len(rollout.attempts) < rollout.config.max_attempts
            status = "requeuing" if left and status in rollout.config.retry_condition else "failed"
        self._move(rollout_id, rollout, status)

    def _move(self, rollout_id: str, rollout: ModelRollout, status: str) -> None:
        if status == rollout.status:
            return
        rollout.status = status
        if status not in ("queuing", "requeuing"):
            self.queue = [id for id in self.queue if id != rollout_id]
        elif rollout_id not in self.queue:
            self.queue.append(rollout_id)
        if status in ENDED and rollout.group is not None:
            self.groups[rollout.group].num_ended += 1
            self.groups[rollout.group].num_succeeded += status == "succeeded"
            self._settle(rollout.group)

    def _settle(self, group: str) -> None:
        entry = self.groups[group]
        if entry.status == "open" and entry.num_ended == entry.num_rollouts:
            entry.status = "complete"
            self.complete.append(group)

    def _delete(self, rollout_id: str) -> None:
        rollout = self.rollouts.pop(rollout_id)
        if rollout.group is None:
            return
        entry = self.groups[rollout.group]
        entry.members.remove(rollout_id)
        if not entry.members:
            del self.groups[rollout.group]
        elif entry.num_rollouts is None:
            entry.num_ended -= 1
            entry.num_succeeded -= rollout.status == "succeeded"

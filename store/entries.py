"""The rollouts and attempts of a core, by their ids."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .errors import InvalidValue, UnknownAttempt, UnknownRollout
from .groups import GroupBook
from .rules import IN_FLIGHT
from .types import Attempt, AttemptedRollout, Rollout


@dataclass(slots=True)
class Entry:
    """A rollout with its attempts, in the order in which they were started."""

    rollout: Rollout
    order: int
    """Place among all rollouts, by enqueuing."""
    attempts: dict[str, Attempt] = field(default_factory=dict)

    @property
    def latest(self) -> Attempt | None:
        return next(reversed(self.attempts.values()), None)


class EntryBook:
    """Finds rollouts and attempts; what may become of them is not decided here."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._owner: dict[str, str] = {}  # attempt id -> rollout id
        self.num_added = 0
        """How many there have been; also the place of the next one."""
        self._num_in_flight = 0

    def __iter__(self) -> Iterator[Entry]:
        """All entries, in order of enqueuing."""
        return iter(self._entries.values())

    def add(self, rollout: Rollout) -> Entry:
        entry = self._entries[rollout.rollout_id] = Entry(rollout, self.num_added)
        self.num_added += 1
        return entry

    def put_attempt(self, attempt: Attempt) -> Attempt | None:
        """Keeps the attempt; returns what was kept under its id before."""
        attempts = self._entries[attempt.rollout_id].attempts
        before = attempts.get(attempt.attempt_id)
        attempts[attempt.attempt_id] = attempt
        self._num_in_flight += _in_flight(attempt) - _in_flight(before)
        self._owner[attempt.attempt_id] = attempt.rollout_id
        return before

    def remove(self, entry: Entry) -> None:
        del self._entries[entry.rollout.rollout_id]
        for attempt_id, attempt in entry.attempts.items():
            self._num_in_flight -= _in_flight(attempt)
            del self._owner[attempt_id]

    def find(self, rollout_id: str) -> Entry | None:
        return self._entries.get(rollout_id)

    def get(self, rollout_id: str) -> Entry:
        """The rollout with its attempts; UnknownRollout if there is none with this id."""
        entry = self._entries.get(rollout_id)
        if entry is None:
            raise UnknownRollout(f"no rollout has the id {rollout_id!r}")
        return entry

    def get_attempt(self, rollout_id: str, attempt_id: str) -> tuple[Entry, Attempt]:
        """The rollout and one of its attempts; UnknownRollout or UnknownAttempt if there is none."""
        entry = self.get(rollout_id)
        attempt = entry.latest if attempt_id == "latest" else entry.attempts.get(attempt_id)
        if attempt is None:
            raise UnknownAttempt(f"rollout {rollout_id!r} has no attempt {attempt_id!r}")
        return entry, attempt

    def owner(self, attempt_id: str) -> Entry | None:
        """The rollout that an attempt belongs to."""
        rollout_id = self._owner.get(attempt_id)
        return None if rollout_id is None else self._entries[rollout_id]

    def attempted(self, attempt_id: str) -> AttemptedRollout | None:
        """The attempt with its rollout, if there is one with this id."""
        entry = self.owner(attempt_id)
        return None if entry is None else AttemptedRollout.of(entry.rollout, entry.attempts[attempt_id])

    def started(self, rollout_id: str, attempt_id: str) -> AttemptedRollout | None:
        """The rollout's attempt, if it has one of this id; InvalidValue for an id that it cannot have."""
        if attempt_id in ("", "latest"):
            raise InvalidValue(f"attempt_id is {attempt_id!r}, which names none; give another")
        known = self.attempted(attempt_id)
        if known is not None and known.rollout_id != rollout_id:
            raise InvalidValue(f"attempt_id {attempt_id!r} is another rollout's; give another")
        return known

    def claimed(self, claims: Iterable[str], limit: int) -> list[AttemptedRollout]:
        """What was dequeued by these claims, for who asks again; nothing for claims that are new."""
        known = [claim for claim in claims if self.owner(f"at-{claim}-0") is not None]
        most = min(limit, self.num_added)
        again = (self.attempted(f"at-{claim}-{index}") for claim in known for index in range(most))
        return [taken for taken in again if taken is not None]

    def shown(self, rollout_id: str) -> Rollout | None:
        """The rollout as readers get it: with its last attempt, once somebody has tried it."""
        entry = self._entries.get(rollout_id)
        if entry is None or entry.latest is None:
            return None if entry is None else entry.rollout
        return AttemptedRollout.of(entry.rollout, entry.latest)

    def candidates(
        self, groups: GroupBook, rollout_id_in: Iterable[str] | None, group_id_in: Iterable[str] | None
    ) -> Iterable[Rollout]:
        """Yields the rollouts that pass both filters, in order, looking at no more than these name."""
        if rollout_id_in is None and group_id_in is None:
            return (entry.rollout for entry in self)
        ids = None if rollout_id_in is None else {id for id in rollout_id_in if id in self._entries}
        if group_id_in is not None:
            found = groups.query(status_in=None, group_id_in=group_id_in)
            members = {id for group in found for id in groups.members(group.group_id)}
            ids = members if ids is None else ids & members
        entries = [self._entries[id] for id in ids or ()]
        return [entry.rollout for entry in sorted(entries, key=lambda entry: entry.order)]

    def counts(self) -> dict[str, Any]:
        """Rollouts by status, attempts, and those of them that somebody is at work on."""
        statuses = Counter(entry.rollout.status for entry in self)
        return {
            "rollouts": dict(statuses),
            "attempts": len(self._owner),
            "attempts_in_flight": self._num_in_flight,
        }


def _in_flight(attempt: Attempt | None) -> bool:
    return attempt is not None and attempt.status in IN_FLIGHT

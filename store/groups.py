"""The groups of a store: who belongs to them, which are complete, and who took which."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from .deadlines import Deadlines
from .errors import InvalidTransition, InvalidValue, UnknownGroup
from .feed import ChangeFeed
from .record import Recorder
from .types import Group, GroupStatus, Rollout


@dataclass(slots=True)
class _Entry:
    group: Group
    rollout_ids: dict[str, None] = field(default_factory=dict)
    """In order of enqueuing."""
    claims: set[str] = field(default_factory=set)
    """All by which it was ever taken."""


class GroupBook:
    """Groups by id; each is complete when as many of its rollouts have ended as were declared."""

    def __init__(
        self,
        recorder: Recorder,
        feed: ChangeFeed,
        clock: Callable[[], float],
        *,
        on_complete: Callable[[str], None],
    ) -> None:
        self._record = recorder
        self._clock = clock
        self._feed = feed
        self._on_complete = on_complete
        self.leases = Deadlines(self._lease_end)
        self._entries: dict[str, _Entry] = {}
        self._complete: OrderedDict[str, None] = OrderedDict()
        self._taken_by: dict[str, dict[str, None]] = {}  # claim -> group ids, in order

    def restore(self, groups: Iterable[Group], rollouts: Iterable[Rollout]) -> None:
        """Starts from what a journal holds."""
        now = self._clock()
        for group in groups:
            self._entries[group.group_id] = _Entry(_leased_from(group, now))
            self.leases.note(group.group_id)
        for entry in sorted(self._entries.values(), key=lambda entry: entry.group.complete_time or 0.0):
            self._index(entry.group)
        for rollout in rollouts:
            if rollout.group_id is not None:
                self._entries[rollout.group_id].rollout_ids[rollout.rollout_id] = None

    def declare(self, group_id: str, num_rollouts: int, *, task_id: str | None) -> Group:
        """Says how many rollouts the group has; saying it again is fine, contradicting it is not."""
        if num_rollouts < 1:
            raise InvalidValue(f"num_rollouts of group {group_id!r} is {num_rollouts}; give 1 or more")
        entry = self._entries.get(group_id)
        declared = entry.group.num_rollouts if entry else None
        if declared not in (None, num_rollouts):
            raise InvalidValue(
                f"num_rollouts of group {group_id!r} is {num_rollouts}, but was declared as {declared}"
            )
        if entry and len(entry.rollout_ids) > num_rollouts:
            raise InvalidValue(
                f"num_rollouts of group {group_id!r} is {num_rollouts}, but it has {len(entry.rollout_ids)}"
            )
        entry = entry or self._new(group_id)
        self._keep(entry, num_rollouts=num_rollouts, task_id=entry.group.task_id or task_id)
        return entry.group

    def check_room(self, added: Counter[str]) -> None:
        """Raises InvalidValue if a declared group has no room for as many more rollouts as ``added`` says."""
        for group_id, num_new in added.items():
            entry = self._entries.get(group_id)
            if entry is None or entry.group.num_rollouts is None:
                continue
            num_known = max(len(entry.rollout_ids), entry.group.num_ended)  # some may have been deleted
            if num_known + num_new > entry.group.num_rollouts:
                raise InvalidValue(
                    f"group {group_id!r} was declared with {entry.group.num_rollouts} rollouts and has "
                    f"{num_known}; {num_new} more do not fit"
                )

    def add_member(self, rollout: Rollout) -> None:
        """Puts a new rollout into its group, if it names one."""
        if rollout.group_id is None:
            return
        entry = self._entries.get(rollout.group_id) or self._new(rollout.group_id)
        entry.rollout_ids[rollout.rollout_id] = None
        if entry.group.task_id is None and rollout.task_id is not None:
            self._keep(entry, task_id=rollout.task_id)

    def count_end(self, rollout: Rollout) -> None:
        """Counts a rollout that just ended."""
        if rollout.group_id is None:
            return
        entry = self._entries[rollout.group_id]
        self._keep(
            entry,
            num_ended=entry.group.num_ended + 1,
            num_succeeded=entry.group.num_succeeded + (rollout.status == "succeeded"),
        )

    def query(
        self, *, status_in: Iterable[GroupStatus] | None, group_id_in: Iterable[str] | None
    ) -> list[Group]:
        statuses = None if status_in is None else set(status_in)
        ids: Iterable[str] = self._entries
        if group_id_in is not None:
            ids = (group_id for group_id in dict.fromkeys(group_id_in) if group_id in self._entries)
        groups = (self._entries[group_id].group for group_id in ids)
        return [group for group in groups if statuses is None or group.status in statuses]

    def count(self) -> dict[str, int]:
        """Returns the number of groups by status."""
        return dict(Counter(entry.group.status for entry in self._entries.values()))

    def complete(self, limit: int, *, group_id_in: Iterable[str] | None) -> list[Group]:
        """The up to ``limit`` complete groups that would be taken next."""
        ready: Iterable[str] = self._complete
        if group_id_in is not None:
            wanted = set(group_id_in)
            ready = (group_id for group_id in ready if group_id in wanted)
        return [self._entries[group_id].group for group_id in islice(ready, limit)]

    def offered(self, limit: int, *, group_id_in: Iterable[str] | None, claim: str) -> list[Group]:
        """The up to ``limit`` complete groups that the claim may take; those it took, if it did before."""
        if claim not in self._taken_by:
            return self.complete(limit, group_id_in=group_id_in)
        taken = (self._entries[id].group for id in self._taken_by[claim] if id in self._entries)
        return [group for group in taken if group.taken_by == claim]

    def take(self, groups: Iterable[Group], *, claim: str) -> None:
        """Marks what was offered to the claim as taken by it."""
        for group in groups:
            if group.taken_by != claim:
                self._keep(self._entries[group.group_id], status="taken", taken_by=claim)

    def give_back(self, groups: Iterable[Group]) -> None:
        """Makes those complete again that are taken: their taker asked once more, and cannot have them."""
        for group in groups:
            if group.status == "taken":
                self._keep(self._entries[group.group_id], status="complete", taken_by=None, lease_end=None)

    def lease(self, groups: Iterable[Group], end: float) -> None:
        """Makes the taken groups complete again at ``end``, unless they are acknowledged before."""
        for group in groups:
            self._keep(self._entries[group.group_id], lease_end=end)
            self.leases.note(group.group_id)

    def acknowledge(self, claims: Iterable[tuple[str, str]]) -> None:
        """Ends the leases of the (group id, claim) pairs. Raises what ``check_taken`` raises."""
        for entry in self._checked_taken(claims):
            self._keep(entry, lease_end=None)

    def check_taken(self, claims: Iterable[tuple[str, str]]) -> None:
        """Raises InvalidTransition for a group not taken by its claim (any more), UnknownGroup for none."""
        self._checked_taken(claims)

    def _checked_taken(self, claims: Iterable[tuple[str, str]]) -> list[_Entry]:
        pairs = [(self._entry(group_id), claim) for group_id, claim in claims]
        for entry, claim in pairs:
            if entry.group.taken_by != claim:
                now = "taken by another" if entry.group.status == "taken" else entry.group.status
                raise InvalidTransition(
                    f"group {entry.group.group_id!r} is {now}, no longer taken by claim {claim!r}: the lease "
                    "ran out before it was acknowledged; ask for longer leases"
                )
        return [entry for entry, _ in pairs]

    def end_leases(self, now: float) -> None:
        """Makes the groups complete again whose leases have ended."""
        for group_id in self.leases.overdue(now):
            self._keep(self._entries[group_id], status="complete", taken_by=None, lease_end=None)

    def forget(self, rollout: Rollout) -> None:
        """Takes a rollout out of its group, and the group out of the store with the last of its rollouts."""
        if rollout.group_id is None:
            return
        entry = self._entries[rollout.group_id]
        del entry.rollout_ids[rollout.rollout_id]
        if entry.rollout_ids and entry.group.num_rollouts is None:
            self._keep(
                entry,
                num_ended=entry.group.num_ended - 1,
                num_succeeded=entry.group.num_succeeded - (rollout.status == "succeeded"),
            )
        if not entry.rollout_ids:
            del self._entries[rollout.group_id]
            self._complete.pop(rollout.group_id, None)
            self._forget_claims(rollout.group_id, entry.claims)
            self._record.group_deleted(rollout.group_id)
            self._feed.add("deleted", group_id=rollout.group_id)
            self._on_complete(rollout.group_id)  # who waits for it learns that there is none any more

    def _forget_claims(self, group_id: str, claims: Iterable[str]) -> None:
        for claim in claims:
            taken = self._taken_by[claim]
            del taken[group_id]
            if not taken:
                del self._taken_by[claim]

    def _lease_end(self, group_id: str) -> float | None:
        entry = self._entries.get(group_id)
        return entry.group.lease_end if entry else None

    def get(self, group_id: str) -> Group:
        return self._entry(group_id).group

    def members(self, group_id: str) -> list[str]:
        """Returns the ids of the group's rollouts, in order of enqueuing."""
        return list(self._entry(group_id).rollout_ids)

    def _entry(self, group_id: str) -> _Entry:
        entry = self._entries.get(group_id)
        if entry is None:
            raise UnknownGroup(f"no group has the id {group_id!r}")
        return entry

    def _new(self, group_id: str) -> _Entry:
        entry = self._entries[group_id] = _Entry(Group(group_id=group_id, create_time=self._clock()))
        self._record.group(entry.group)
        self._feed.add("group", group_id=group_id, status=entry.group.status)
        return entry

    def _keep(self, entry: _Entry, **changes: Any) -> None:
        before = entry.group
        group = replace(before, **changes)
        if group.status == "open" and group.num_ended == group.num_rollouts:
            group = replace(group, status="complete")
        if group.status == "complete" != before.status:
            group = replace(group, complete_time=self._clock())
        entry.group = group
        self._record.group(group)
        self._index(group)
        if group.status != before.status:
            self._feed.add("group", group_id=group.group_id, status=group.status)
            if group.status == "complete":
                self._on_complete(group.group_id)

    def _index(self, group: Group) -> None:
        if group.status == "complete":
            self._complete.setdefault(group.group_id)
        elif group.status == "taken":
            self._complete.pop(group.group_id, None)
            assert group.taken_by is not None
            self._taken_by.setdefault(group.taken_by, {})[group.group_id] = None
            self._entries[group.group_id].claims.add(group.taken_by)


def _leased_from(group: Group, now: float) -> Group:
    """The group; of a lease given before the clock was set back, as long as it can have been, from now on."""
    completed, end = group.complete_time, group.lease_end
    if completed is None or end is None or completed <= now:
        return group
    return replace(group, lease_end=now + (end - completed))

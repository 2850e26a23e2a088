"""The groups of a store: who belongs to them, which are complete, and who took which."""

from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from .errors import InvalidValue, UnknownGroup
from .record import Recorder
from .types import Group, GroupStatus, Rollout


@dataclass(slots=True)
class _Entry:
    group: Group
    rollout_ids: list[str] = field(default_factory=list)


class GroupBook:
    """Groups by id; each is complete when as many of its rollouts have ended as were declared."""

    def __init__(self, recorder: Recorder) -> None:
        self._record = recorder
        self._entries: dict[str, _Entry] = {}
        self._complete: OrderedDict[str, None] = OrderedDict()
        self._taken_by: dict[str, list[str]] = {}

    def restore(self, groups: Iterable[Group], rollouts: Iterable[Rollout]) -> None:
        """Starts from what a journal holds."""
        for group in groups:
            self._entries[group.group_id] = _Entry(group)
            self._index(group)
        for rollout in rollouts:
            if rollout.group_id is not None:
                self._entries[rollout.group_id].rollout_ids.append(rollout.rollout_id)

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
            if len(entry.rollout_ids) + num_new > entry.group.num_rollouts:
                raise InvalidValue(
                    f"group {group_id!r} was declared with {entry.group.num_rollouts} rollouts and has "
                    f"{len(entry.rollout_ids)}; {num_new} more do not fit"
                )

    def add_member(self, rollout: Rollout) -> None:
        """Puts a new rollout into its group, if it names one."""
        if rollout.group_id is None:
            return
        entry = self._entries.get(rollout.group_id) or self._new(rollout.group_id)
        entry.rollout_ids.append(rollout.rollout_id)
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
        wanted = None if group_id_in is None else set(group_id_in)
        return [
            entry.group
            for group_id, entry in self._entries.items()
            if (wanted is None or group_id in wanted) and (statuses is None or entry.group.status in statuses)
        ]

    def count(self) -> dict[str, int]:
        """Returns the number of groups by status."""
        return dict(Counter(entry.group.status for entry in self._entries.values()))

    def take(self, limit: int, *, group_id_in: Iterable[str] | None, claim: str) -> list[Group]:
        """Marks up to ``limit`` complete groups as taken by the claim; the same claim gets the same ones."""
        if claim not in self._taken_by:
            ready: Iterable[str] = list(self._complete)
            if group_id_in is not None:
                wanted = set(group_id_in)
                ready = (group_id for group_id in ready if group_id in wanted)
            for group_id in islice(ready, limit):
                self._keep(self._entries[group_id], status="taken", taken_by=claim)
        return [self._entries[group_id].group for group_id in self._taken_by.get(claim, ())]

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
        entry = self._entries[group_id] = _Entry(Group(group_id=group_id))
        self._record.group(entry.group)
        return entry

    def _keep(self, entry: _Entry, **changes: Any) -> None:
        group = replace(entry.group, **changes)
        if group.status == "open" and group.num_ended == group.num_rollouts:
            group = replace(group, status="complete")
        entry.group = group
        self._record.group(group)
        self._index(group)

    def _index(self, group: Group) -> None:
        if group.status == "complete":
            self._complete.setdefault(group.group_id)
        elif group.status == "taken":
            self._complete.pop(group.group_id, None)
            assert group.taken_by is not None
            self._taken_by.setdefault(group.taken_by, []).append(group.group_id)

"""Between the core and a journal: every change on the way out, a snapshot on the way in."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .rows import SpanRow
from .types import Attempt, Change, Group, ResourcesUpdate, Rollout


class Recorder(Protocol):
    """Where the core reports every change, in order, for it to be journalled."""

    def rollout(self, rollout: Rollout, queue_position: int | None) -> None:
        """The rollout is new or one of its given fields changed."""

    def progress(self, rollout: Rollout, queue_position: int | None) -> None:
        """The rollout's status, end time or place in the queue changed, nothing else."""

    def attempt(self, attempt: Attempt) -> None: ...

    def spans(self, position: int, rows: Sequence[SpanRow]) -> None:
        """An attempt got these, by which the feed has grown: a change of its own is not recorded."""

    def number(self, attempt_id: str, last: int) -> None:
        """This is the last number that was given out for a span of the attempt."""

    def group(self, group: Group) -> None: ...

    def resources(self, update: ResourcesUpdate) -> None: ...

    def change(self, position: int, change: Change) -> None:
        """The feed has grown by this, which is not about spans."""

    def rollout_deleted(self, rollout_id: str) -> None:
        """The rollout is gone, with its attempts and their spans."""

    def group_deleted(self, group_id: str) -> None: ...


class NoRecorder:
    """Forgets every change: the recorder of a store that lives in memory only."""

    def rollout(self, rollout: Rollout, queue_position: int | None) -> None: ...

    def progress(self, rollout: Rollout, queue_position: int | None) -> None: ...

    def attempt(self, attempt: Attempt) -> None: ...

    def spans(self, position: int, rows: Sequence[SpanRow]) -> None: ...

    def number(self, attempt_id: str, last: int) -> None: ...

    def group(self, group: Group) -> None: ...

    def resources(self, update: ResourcesUpdate) -> None: ...

    def change(self, position: int, change: Change) -> None: ...

    def rollout_deleted(self, rollout_id: str) -> None: ...

    def group_deleted(self, group_id: str) -> None: ...


@dataclass(slots=True)
class Snapshot:
    """What a journal holds, for a core to start from; the lists are in order of creation."""

    rollouts: list[tuple[Rollout, int | None]] = field(default_factory=list)
    """Each with its place in the queue, if it is queued."""
    attempts: list[Attempt] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    resources: list[ResourcesUpdate] = field(default_factory=list)
    """The one added or updated last stands last."""
    numbers: dict[str, int] = field(default_factory=dict)
    """By attempt, the last number that was given out for a span of it."""
    num_spans: int = 0
    last_change: int = 0
    """Position of the feed's latest change."""

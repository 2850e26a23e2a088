"""The feed of changes: what subscribers read, from any position on, also after the store was opened again."""

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any, TypeAlias

from .errors import InvalidValue
from .types import Change, ChangeKind

RESIDENT_CHANGES = 20_000
"""Changes held in memory by a store that has a journal."""

MOST_CHANGES = 1_000_000
"""Changes held by one that has none."""

_NewSpans: TypeAlias = tuple[str, str, tuple[str, ...]]
"""The attempt that got spans, by its rollout's id and its own, and the spans' ids."""

Recall = Callable[[int, int], list[Change]]
"""``recall(after, limit)``: journalled changes behind a position."""


class ChangeFeed:
    """Changes by position, which counts from 1 without gaps and is the change's cursor."""

    def __init__(
        self, record: Callable[[int, Change], None], on_change: Callable[[], None], recall: Recall | None
    ) -> None:
        self._record = record
        self._on_change = on_change
        self._recall = recall
        self._resident: deque[Change | _NewSpans] = deque()
        self.last = 0
        """The position of the latest change; 0 when there is none yet."""

    def add(self, kind: ChangeKind, **fields: Any) -> None:
        """Appends a change."""
        change = Change(cursor=str(self.last + 1), kind=kind, **fields)
        self._append(change)
        self._record(self.last, change)

    def add_spans(self, rollout_id: str, attempt_id: str, span_ids: tuple[str, ...]) -> int:
        """Appends that an attempt got spans; returns the position, with which they are to be recorded."""
        self._append((rollout_id, attempt_id, span_ids))
        return self.last

    def _append(self, change: Change | _NewSpans) -> None:
        self.last += 1
        self._resident.append(change)
        if self._recall is None and len(self._resident) > MOST_CHANGES:
            self._resident.popleft()
        self._on_change()

    def after(self, cursor: str, limit: int) -> list[Change]:
        """Returns up to ``limit`` changes behind the cursor, in order.

        Raises InvalidValue for what is no cursor, for a position that the feed has not reached, and for one
        so old that the next change is no longer kept.
        """
        # No position has more digits than the last; Python itself refuses to read thousands of them.
        position = int(cursor) if cursor.isdecimal() and len(cursor) <= len(str(self.last)) else -1
        if not 0 <= position <= self.last:
            raise InvalidValue(
                f"cursor is {cursor!r}; this store's feed goes from '0' to '{self.last}': give the cursor of "
                "one of its changes"
            )
        first = self.last - len(self._resident)
        if position >= first:
            found = islice(self._resident, position - first, position - first + limit)
            return [_shown(change, position + number) for number, change in enumerate(found, 1)]
        if self._recall is None:
            raise InvalidValue(
                f"cursor is {cursor!r}, but the feed is kept from '{first}' on; read the state by queries "
                "and go on from there"
            )
        return self._recall(position, limit)

    def trim(self) -> None:
        """Forgets old changes; only to be called when every change is journalled."""
        if self._recall is None:
            return
        while len(self._resident) > RESIDENT_CHANGES:
            self._resident.popleft()


def _shown(change: Change | _NewSpans, position: int) -> Change:
    """The change; made of what is kept of new spans, which come too often for one to be made of each."""
    if isinstance(change, Change):
        return change
    rollout_id, attempt_id, span_ids = change
    return Change(
        cursor=str(position), kind="spans", rollout_id=rollout_id, attempt_id=attempt_id, span_ids=span_ids
    )

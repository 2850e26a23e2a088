"""The spans that are held in memory, of at most so many bytes; the journal remembers the others."""

from collections import OrderedDict
from collections.abc import Callable, Iterable

from .rows import SpanRow

ROW_OVERHEAD_BYTES = 1000
"""What a row costs beside its text and arrays: its tuple, its strings' headers and its key."""


class _RolloutSpans:
    """The rows of one rollout by attempt id and then by span id, in order of arrival."""

    __slots__ = ("nbytes", "rows")

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, SpanRow]] = {}
        self.nbytes = 0

    def add(self, row: SpanRow) -> int:
        """Returns the bytes by which the rollout grew; 0 when it had the span already."""
        rows = self.rows.get(row.attempt_id)
        if rows is None:
            rows = self.rows[row.attempt_id] = {}
        if row.span_id in rows:
            return 0
        rows[row.span_id] = row
        grown = ROW_OVERHEAD_BYTES + len(row.arrays) + len(row.attributes) + len(row.events)
        self.nbytes += grown
        return grown


class SpanCache:
    """Rows by rollout; the rollouts touched longest ago are forgotten when ``max_bytes`` is exceeded.

    ``recall(rollout_id)`` returns the journalled rows of a forgotten rollout; None means that there is no
    journal, and then nothing is ever forgotten.
    """

    def __init__(self, recall: Callable[[str], Iterable[SpanRow]] | None, *, max_bytes: int) -> None:
        self._recall = recall
        self._max_bytes = max_bytes
        self._resident: OrderedDict[str, _RolloutSpans] = OrderedDict()
        self.nbytes = 0

    def add(self, row: SpanRow) -> bool:
        """Keeps the row and returns True, or returns False when its attempt has a span with this id."""
        grown = self._spans_of(row.rollout_id).add(row)
        self.nbytes += grown
        return grown > 0

    def rows_of(self, rollout_id: str, attempt_id: str) -> list[SpanRow]:
        """Returns an attempt's rows in order of arrival."""
        rows = self._spans_of(rollout_id).rows.get(attempt_id)
        return [] if rows is None else list(rows.values())

    def forget(self, rollout_id: str) -> int | None:
        """Drops a deleted rollout; returns how many spans it had, or None if the journal alone knows."""
        spans = self._resident.pop(rollout_id, None)
        if spans is None:
            return None
        self.nbytes -= spans.nbytes
        return sum(map(len, spans.rows.values()))

    def expect(self, rollout_id: str) -> None:
        """Notes that the rollout is new, so that its first span asks nothing of the journal."""
        self._resident[rollout_id] = _RolloutSpans()

    def trim(self) -> None:
        """Forgets rollouts until ``max_bytes`` are kept; only to be called when every row is journalled."""
        if self._recall is None:
            return
        while self.nbytes > self._max_bytes and len(self._resident) > 1:
            _, forgotten = self._resident.popitem(last=False)
            self.nbytes -= forgotten.nbytes

    def _spans_of(self, rollout_id: str) -> _RolloutSpans:
        spans = self._resident.get(rollout_id)
        if spans is not None:
            self._resident.move_to_end(rollout_id)
            return spans
        spans = self._resident[rollout_id] = _RolloutSpans()
        if self._recall is not None:
            for row in self._recall(rollout_id):
                self.nbytes += spans.add(row)
        return spans

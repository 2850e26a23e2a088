"""The spans of a store: rows by attempt, and the numbers that order them."""

from collections.abc import Iterable, Sequence
from operator import attrgetter

from .core import LightningCore
from .entries import Entry
from .errors import InvalidValue, UnknownAttempt
from .plain import LARGEST
from .record import Recorder, Snapshot
from .rows import SpanRow
from .span_cache import SpanCache
from .types import Attempt, Rollout

SPANS_PER_CHANGE = 2**20
"""As many as one change of the feed can tell of, since ids of the journal have room for no more."""
_SEQUENCE_ID = attrgetter("sequence_id")


class SpanBook:
    """Adds and reads rows for the attempts of a core."""

    def __init__(self, core: LightningCore, recorder: Recorder, cache: SpanCache, snapshot: Snapshot) -> None:
        self._core = core
        self._record = recorder
        self._cache = cache
        self._last_sequence_id: dict[str, int] = {}
        """By attempt; of attempts that somebody has asked a number for."""
        self._given_before = snapshot.numbers
        """By attempt, the last number that was given out before the store was opened."""
        self.num_spans = snapshot.num_spans

    def add(self, rows: Sequence[SpanRow]) -> list[int]:
        """Adds the rows; returns the indices of those that their attempts had already."""
        pairs = dict.fromkeys([(row.rollout_id, row.attempt_id) for row in rows])
        touched = [self._owner(*pair) for pair in pairs]
        new: dict[str, list[SpanRow]] = {}
        repeated = []
        for index, row in enumerate(rows):
            if self._cache.add(row):
                if row.attempt_id in new:
                    new[row.attempt_id].append(row)
                else:
                    new[row.attempt_id] = [row]
                self._count(row)
            else:
                repeated.append(index)
        for added in new.values():
            for start in range(0, len(added), SPANS_PER_CHANGE):
                self._keep(added[start : start + SPANS_PER_CHANGE])
        for entry, attempt in touched:
            self._core.hear_from(entry, attempt)
        return repeated

    def _keep(self, rows: list[SpanRow]) -> None:
        span_ids = tuple([row.span_id for row in rows])
        position = self._core.feed.add_spans(rows[0].rollout_id, rows[0].attempt_id, span_ids)
        self._record.spans(position, rows)
        self.num_spans += len(rows)

    def check(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Raises UnknownRollout or UnknownAttempt unless every (rollout id, attempt id) is known."""
        for rollout_id, attempt_id in pairs:
            self._owner(rollout_id, attempt_id)

    def rows(self, rollout_id: str, attempt_id: str | None) -> list[SpanRow]:
        """Returns the rows of one attempt or, for None, of all, by attempt and sequence id."""
        if attempt_id is None:
            attempts = self._core.entries.get(rollout_id).attempts.values()
            return [row for attempt in attempts for row in self._rows_of(attempt)]
        return self._rows_of(self._core.entries.get_attempt(rollout_id, attempt_id)[1])

    def _rows_of(self, attempt: Attempt) -> list[SpanRow]:
        rows = self._cache.rows_of(attempt.rollout_id, attempt.attempt_id)
        rows.sort(key=_SEQUENCE_ID)
        return rows

    def members(self, group_id: str) -> list[tuple[Rollout, Attempt | None, list[SpanRow]]]:
        """Returns the group's rollouts, each with its last attempt and that attempt's rows."""
        members = []
        for rollout_id in self._core.groups.members(group_id):
            entry = self._core.entries.get(rollout_id)
            attempt = entry.latest
            rows = self.rows(rollout_id, attempt.attempt_id) if attempt else []
            members.append((entry.rollout, attempt, rows))
        return members

    def next_sequence_ids(self, pairs: Iterable[tuple[str, str]]) -> list[int]:
        """Returns for each (rollout id, attempt id) the attempt's next number, which nobody gets twice.

        It is larger than that of any of the attempt's spans; the first is 1.
        """
        found = [self._core.entries.get_attempt(rollout_id, attempt_id) for rollout_id, attempt_id in pairs]
        given = [self._next(entry.rollout.rollout_id, attempt.attempt_id) for entry, attempt in found]
        for attempt_id in dict.fromkeys(attempt.attempt_id for _, attempt in found):
            self._record.number(attempt_id, self._last_sequence_id[attempt_id])
        return given

    def forget(self, attempt_ids: Iterable[str], num_spans: int) -> None:
        """Drops what is known of deleted attempts, which had so many spans together."""
        for attempt_id in attempt_ids:
            self._last_sequence_id.pop(attempt_id, None)
            self._given_before.pop(attempt_id, None)
        self.num_spans -= num_spans

    def _owner(self, rollout_id: str, attempt_id: str) -> tuple[Entry, Attempt]:
        """Whose spans these are; a span says so itself, so that "latest" would be another one tomorrow."""
        entry, attempt = self._core.entries.get_attempt(rollout_id, attempt_id)
        if attempt.attempt_id != attempt_id:
            raise UnknownAttempt(
                f"a span of {rollout_id!r} has the attempt {attempt_id!r}; give the attempt's id"
            )
        return entry, attempt

    def _next(self, rollout_id: str, attempt_id: str) -> int:
        last = self._last_sequence_id.get(attempt_id)
        if last is None:
            used = [row.sequence_id for row in self.rows(rollout_id, attempt_id)]
            last = max([self._given_before.get(attempt_id, 0), *used])
        if last >= LARGEST:
            raise InvalidValue(
                f"a span of attempt {attempt_id!r} has the number {last}; there is none above it"
            )
        self._last_sequence_id[attempt_id] = last + 1
        return last + 1

    def _count(self, row: SpanRow) -> None:
        last = self._last_sequence_id.get(row.attempt_id)
        if last is not None and row.sequence_id > last:
            self._last_sequence_id[row.attempt_id] = row.sequence_id

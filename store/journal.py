"""The store's memory on disk: a SQLite file per folder, ``<folder>/journal.db``, and the tail beside it.

The file holds the state (a row per rollout, attempt, group, resources and span), so it needs no replay and no
compaction, and any SQLite tool can read it. Changes are collected by the ``Recorder`` methods and written by
``flush`` as one transaction: many at once into the database, a few into the tail, from where they are moved
into the database together, after ``MOST_WAITING`` changes or when ``settle`` is called.

What an acknowledgement is worth: a flushed change has left the process (the tail, or SQLite's write-ahead log
with ``synchronous=NORMAL``), so it survives the process being killed at any moment. It is not synced to the
device at once: a power failure may cost the last seconds, never the file. A log or a tail that is torn loses
its last transactions as a whole.
"""

import gc
import json
import sqlite3
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, fields
from heapq import merge
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path

from .checkpoints import Checkpointer
from .errors import InvalidValue, StoreError
from .journal_file import FILE_NAME, locked, mark_of, new_mark, open_database, take_in_tail
from .journal_rows import attempt_of, change_of, rollout_of
from .record import Snapshot
from .rows import SpanRow
from .schema import SPAN_COLUMNS, first_span_id, position_of
from .statements import RowChange, write
from .tail import Tail
from .types import Attempt, Change, Group, ResourcesUpdate, Rollout

KEPT_CHANGES = 1_000_000
"""How far back the feed of changes goes at least."""
CHECKPOINT_BYTES = 16 * 2**20
"""About how much may be written before the log is moved into the database file."""
MOST_WAITING, MOST_WAITING_BYTES = 256, 2**20
"""How much the tail holds at most: it takes milliseconds to move it into the database."""
_MANY = 16
"""Changes that cost no more in a transaction of their own than by way of the tail."""

_CHANGE_FIELDS = tuple(field.name for field in fields(Change) if field.name != "cursor")
_DROP_ROLLOUT = ("drop spans", "drop numbers", "drop attempts", "drop rollout")


class Journal:
    """A ``Recorder`` that writes to a folder's journal, which no other process may open meanwhile.

    Not thread-safe: its owner serialises the calls. After a failed write (a full disk, say) memory is ahead
    of the file, so every later ``flush`` raises: the folder has to be opened anew.
    """

    def __init__(self, folder: Path) -> None:
        """Opens or creates the journal; StoreError if it is in use, damaged or of another format."""
        self._path = folder / FILE_NAME
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(locked(folder))
            self._connection = stack.enter_context(closing(open_database(self._path)))
            self._tail = stack.enter_context(closing(Tail(folder)))
            take_in_tail(self._connection, self._tail)
            self._mark = mark_of(self._connection)
            self._last_change = self._read_last_change()
            self._files = stack.pop_all()
        self._pending: list[RowChange] = []
        self._waiting: list[RowChange] = []
        self._failure: str | None = None
        self._bytes_in_log = 0
        self._checkpointer = Checkpointer(self._path)

    # Recorder

    def rollout(self, rollout: Rollout, queue_position: int | None) -> None:
        row = (
            rollout.rollout_id,
            rollout.group_id,
            rollout.task_id,
            rollout.mode,
            rollout.resources_id,
            rollout.status,
            rollout.start_time,
            rollout.end_time,
            queue_position,
            json.dumps(rollout.input),
            json.dumps(asdict(rollout.config)),
            json.dumps(dict(rollout.metadata)),
        )
        self._pending.append(("rollout", row))

    def progress(self, rollout: Rollout, queue_position: int | None) -> None:
        row = (rollout.status, rollout.end_time, queue_position, rollout.rollout_id)
        self._pending.append(("progress", row))

    def attempt(self, attempt: Attempt) -> None:
        row = (
            attempt.attempt_id,
            attempt.rollout_id,
            attempt.sequence_id,
            attempt.status,
            attempt.start_time,
            attempt.end_time,
            attempt.worker_id,
            json.dumps(dict(attempt.metadata)),
        )
        self._pending.append(("attempt", row))

    def spans(self, position: int | None, rows: Sequence[SpanRow]) -> None:
        """Without a position, the feed will not tell of them: they come from another store."""
        first = None if position is None else first_span_id(position)
        for index, row in enumerate(rows):
            id = None if first is None else first + index
            self._pending.append(("span", (id, *row)))
            self._bytes_in_log += len(row.arrays) + len(row.attributes)

    def number(self, attempt_id: str, last: int) -> None:
        self._pending.append(("number", (attempt_id, last)))

    def group(self, group: Group) -> None:
        row = (
            group.group_id,
            group.task_id,
            group.num_rollouts,
            group.num_ended,
            group.num_succeeded,
            group.status,
            group.taken_by,
            group.lease_end,
            group.create_time,
            group.complete_time,
        )
        self._pending.append(("group", row))

    def resources(self, update: ResourcesUpdate) -> None:
        row = (
            update.resources_id,
            update.version,
            update.create_time,
            update.update_time,
            json.dumps(dict(update.resources)),
        )
        self._pending.append(("resources", row))

    def change(self, position: int, change: Change) -> None:
        known = ((name, getattr(change, name)) for name in _CHANGE_FIELDS)
        text = json.dumps({name: value for name, value in known if value})
        self._pending.append(("change", (position, text)))
        if position // KEPT_CHANGES > self._last_change // KEPT_CHANGES:
            self._pending.append(("drop changes", (_dropped(position),)))
        self._last_change = position

    def rollout_deleted(self, rollout_id: str) -> None:
        self._pending.extend((name, (rollout_id,)) for name in _DROP_ROLLOUT)

    def group_deleted(self, group_id: str) -> None:
        self._pending.append(("drop group", (group_id,)))

    # Writing and reading

    @property
    def waits(self) -> bool:
        """Whether flushed changes wait in the tail, where readers of the database do not see them."""
        return bool(self._waiting)

    @property
    def flushed(self) -> bool:
        """Whether a flush has nothing to write, and no failure to tell of."""
        return not self._pending and self._failure is None

    def flush(self) -> None:
        """Writes all pending changes as one transaction; StoreError if that or an earlier one failed."""
        if self._failure is not None:
            raise StoreError(self._failure)
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        try:
            self._keep(pending)
        except BaseException as error:  # whatever it is, memory is ahead of the file
            failure = self._failed(error)
            if isinstance(error, Exception):
                raise failure from error
            raise

    def _keep(self, pending: list[RowChange]) -> None:
        if len(pending) < _MANY and len(self._waiting) + len(pending) <= MOST_WAITING:
            entry = self._tail.entry(self._mark, pending)
            if self._tail.num_bytes + len(entry) <= MOST_WAITING_BYTES:
                self._tail.append(entry)
                self._waiting += pending
                return
        self._write([*self._waiting, *pending])

    def settle(self) -> None:
        """Moves the tail into the database, without what is not flushed; StoreError as ``flush`` raises."""
        if self._failure is not None:
            raise StoreError(self._failure)
        if not self._waiting:
            return
        try:
            self._write(self._waiting)
        except Exception as error:
            raise self._failed(error) from error

    def _write(self, changes: list[RowChange]) -> None:
        mark = new_mark()
        write(self._connection, [*changes, mark] if self._waiting else changes)
        if self._waiting:
            self._tail.clear()
            (self._mark,) = mark[1]
        self._waiting = []
        if self._bytes_in_log > CHECKPOINT_BYTES:
            self._bytes_in_log = 0
            self._checkpointer.wake()

    def _failed(self, error: BaseException) -> StoreError:
        self._failure = f"{self._path} cannot be written ({error}); make room, then open the store again"
        return StoreError(self._failure)

    def load(self) -> Snapshot:
        """Returns everything but the spans, which ``recall`` reads when somebody asks for them."""
        with _no_garbage():
            return self._load()

    def _load(self) -> Snapshot:
        query = self._connection.execute
        return Snapshot(
            rollouts=[rollout_of(row) for row in query("SELECT * FROM rollouts ORDER BY rowid")],
            attempts=[attempt_of(row) for row in query("SELECT * FROM attempts ORDER BY rowid")],
            groups=[
                Group(
                    group_id=row[0],
                    task_id=row[1],
                    num_rollouts=row[2],
                    num_ended=row[3],
                    num_succeeded=row[4],
                    status=row[5],
                    taken_by=row[6],
                    lease_end=row[7],
                    create_time=row[8],
                    complete_time=row[9],
                )
                for row in query("SELECT * FROM groups ORDER BY rowid")
            ],
            resources=[
                ResourcesUpdate(
                    resources_id=row[0],
                    version=row[1],
                    create_time=row[2],
                    update_time=row[3],
                    resources=json.loads(row[4]),
                )
                for row in query("SELECT * FROM resources ORDER BY rowid")
            ],
            numbers=dict(query("SELECT attempt_id, last FROM numbers")),
            num_spans=query("SELECT count(*) FROM spans").fetchone()[0],  # a scan of the narrow index
            last_change=self._last_change,
        )

    def recall(self, rollout_id: str) -> Iterable[SpanRow]:
        """Returns the flushed spans of a rollout in order of arrival."""
        self.settle()
        query = f"SELECT {SPAN_COLUMNS} FROM spans WHERE rollout_id = ? ORDER BY id"
        return map(SpanRow._make, self._connection.execute(query, (rollout_id,)))

    def count_spans(self, rollout_id: str) -> int:
        """Returns how many flushed spans the rollout has."""
        self.settle()
        query = "SELECT count(*) FROM spans WHERE rollout_id = ?"
        (count,) = self._connection.execute(query, (rollout_id,)).fetchone()
        return int(count)

    def recall_changes(self, after: int, limit: int) -> list[Change]:
        """Returns up to ``limit`` flushed changes behind a position; those of deleted spans are gone.

        Raises InvalidValue for a position so old that the next change is no longer kept.
        """
        dropped = _dropped(self._last_change)
        if after < dropped:
            raise InvalidValue(
                f"cursor is {after}, but the feed is kept from {dropped} on; read the state by queries and "
                "go on from there"
            )
        self.settle()
        with closing(self._recorded_changes(after)) as recorded, closing(self._span_changes(after)) as spans:
            changes = merge(recorded, spans, key=itemgetter(0))
            return [change for _, change in islice(changes, limit)]

    def _recorded_changes(self, after: int) -> Generator[tuple[int, Change], None, None]:
        query = "SELECT position, change FROM changes WHERE position > ? ORDER BY position"
        for position, text in self._connection.execute(query, (after,)):
            yield position, change_of(position, text)

    def _span_changes(self, after: int) -> Generator[tuple[int, Change], None, None]:
        query = "SELECT id, rollout_id, attempt_id, span_id FROM spans WHERE id >= ? ORDER BY id"
        found = self._connection.execute(query, (first_span_id(after + 1),))
        for position, rows in groupby(found, key=lambda row: position_of(row[0])):
            _, rollout_ids, attempt_ids, span_ids = zip(*rows, strict=True)
            yield (
                position,
                Change(
                    cursor=str(position),
                    kind="spans",
                    rollout_id=rollout_ids[0],
                    attempt_id=attempt_ids[0],
                    span_ids=span_ids,
                ),
            )

    def _read_last_change(self) -> int:
        query = "SELECT (SELECT max(position) FROM changes), (SELECT max(id) FROM spans)"
        position, span_id = self._connection.execute(query).fetchone()
        return max(position or 0, position_of(span_id or 0), 0)

    def compact(self) -> None:
        """Gives the room of what was deleted back to the system; StoreError where what is left has no room.

        Meanwhile it needs up to twice the room of what is left.
        """
        self.flush()
        self.settle()
        try:
            self._connection.execute("VACUUM")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # only then do the files shrink
        except sqlite3.Error as error:  # nothing has changed
            raise StoreError(
                f"{self._path} cannot be compacted ({error}); make room or delete more"
            ) from error

    def close(self) -> None:
        """Flushes, moves tail and log into the database file and lets go of the folder."""
        with self._files, closing(self._checkpointer):
            self.flush()
            self.settle()


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Keeps the collector from looking, again and again, through objects that are all going to stay."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _dropped(last: int) -> int:
    """How far the oldest changes have been dropped, given the position of the latest."""
    return max(0, (last // KEPT_CHANGES - 1) * KEPT_CHANGES)

"""What a folder's journal holds, read beside whoever has it open.

Unlike ``LocalStore`` this keeps nobody out, gives up nothing that is in flight and changes nothing: for
looking at a run that goes on, or at one whose end one does not want to touch. Only what a killed process left
in the tail is first moved into the database, as had been acknowledged.
"""

import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from .errors import StoreError
from .journal_file import FILE_NAME, settle
from .journal_rows import attempt_of, rollout_of
from .layout import journal_bytes, num_shards_of, shard_folders
from .rows import SpanRow, unpack_span
from .schema import FORMAT, SPAN_COLUMNS
from .types import Attempt, Rollout, RolloutData, Span


def read_rollouts(path: str | os.PathLike[str]) -> Iterator[RolloutData]:
    """Yields each rollout with its last attempt and that one's spans, in order of enqueuing.

    ``path`` is a store's folder or the journal in it; the shards of a folder come one after the other. What
    is written meanwhile is not seen. Raises StoreError if there is no journal, or none that can be read.
    """
    for file in journals_of(path):
        with reading(file) as connection:
            yield from _rollouts(connection)


def journals_of(path: str | os.PathLike[str]) -> list[Path]:
    """Returns the journals of a store's folder, one for each shard; StoreError if there is none."""
    given = Path(path)
    if given.is_file():
        return [given]
    files = [folder / FILE_NAME for folder in shard_folders(given, None)] if num_shards_of(given) else []
    missing = [file for file in files if not file.is_file()]
    if not files or missing:
        where = f"{missing[0]} is missing" if missing else f"there is no store at {path}"
        raise StoreError(f"{where}: expected a folder with {FILE_NAME}, or that file")
    return files


@contextmanager
def reading(file: Path) -> Iterator[sqlite3.Connection]:
    """A journal in one snapshot, read-only; StoreError for a file that is none."""
    try:
        settle(file)
        with closing(_open_read_only(file)) as connection:
            connection.execute("BEGIN")
            yield connection
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{file} is no journal ({error}); give the folder of a store") from None


def _open_read_only(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    # What is read here has not changed since the first format.
    if not 1 <= found <= FORMAT:
        connection.close()
        raise StoreError(f"{file} has format {found}, not {FORMAT}; open it with the raybolt that wrote it")
    return connection


def read_outlines(path: str | os.PathLike[str]) -> Iterator[tuple[Rollout, Attempt | None]]:
    """Yields each rollout with its last attempt, without any span; otherwise as ``read_rollouts``."""
    for file in journals_of(path):
        with reading(file) as connection:
            yield from _outlines(connection)


def read_attempts(path: str | os.PathLike[str], rollout_id: str) -> list[tuple[Attempt, list[Span]]]:
    """Returns a rollout's attempts, oldest first, each with its spans in order; none for an unknown id."""
    found: list[tuple[Attempt, list[Span]]] = []
    for file in journals_of(path):
        with reading(file) as connection:
            query = "SELECT * FROM attempts WHERE rollout_id = ? ORDER BY sequence_id"
            attempts = list(map(attempt_of, connection.execute(query, (rollout_id,)).fetchall()))
            found += [(attempt, list(_spans(connection, attempt))) for attempt in attempts]
    return found


def count(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns what ``LightningStore.statistics`` says, as far as it can be counted in the journals.

    In place of the longest wait stands since when the first rollout in the queue waits, in seconds since the
    epoch: ``oldest_queued_time``, None if nobody waits.
    """
    files = journals_of(path)
    by_status: dict[str, Counter[str]] = {"rollouts": Counter(), "groups": Counter()}
    totals: Counter[str] = Counter()
    waiting: list[float] = []
    for file in files:
        with reading(file) as connection:
            for table, statuses in by_status.items():
                query = f"SELECT status, count(*) FROM {table} GROUP BY status ORDER BY min(rowid)"
                statuses.update(dict(connection.execute(query)))
            for name, query in _TOTALS.items():
                totals[name] += connection.execute(query).fetchone()[0]
            waiting += [time for (time,) in connection.execute(_FIRST_IN_QUEUE)]
    return {
        **{table: dict(statuses) for table, statuses in by_status.items()},
        **totals,
        "oldest_queued_time": min(waiting, default=None),
        "num_shards": len(files),
        "journal_bytes": sum(journal_bytes(file.parent) for file in files),
    }


_TOTALS = {
    "attempts": "SELECT count(*) FROM attempts",
    "attempts_in_flight": "SELECT count(*) FROM attempts WHERE status IN ('preparing', 'running')",
    "queued": "SELECT count(queue_position) FROM rollouts",
    "spans": "SELECT count(*) FROM spans",
    "total_resources": "SELECT count(*) FROM resources",
}
# Positions are nanoseconds; those of older journals count from 0.
_FIRST_IN_QUEUE = """
SELECT max(queue_position / 1e9, start_time) FROM rollouts WHERE queue_position IS NOT NULL
ORDER BY queue_position LIMIT 1"""


def _outlines(connection: sqlite3.Connection) -> Iterator[tuple[Rollout, Attempt | None]]:
    last: dict[str, Attempt] = {}
    for row in connection.execute("SELECT * FROM attempts ORDER BY rowid"):
        attempt = attempt_of(row)
        if attempt.rollout_id not in last or attempt.sequence_id > last[attempt.rollout_id].sequence_id:
            last[attempt.rollout_id] = attempt
    for row in connection.execute("SELECT * FROM rollouts ORDER BY rowid").fetchall():
        rollout, _ = rollout_of(row)
        yield rollout, last.get(rollout.rollout_id)


def _rollouts(connection: sqlite3.Connection) -> Iterator[RolloutData]:
    for rollout, attempt in _outlines(connection):
        spans = tuple(_spans(connection, attempt)) if attempt is not None else ()
        yield RolloutData(rollout, attempt, spans)


def _spans(connection: sqlite3.Connection, attempt: Attempt) -> Iterator[Span]:
    rows = connection.execute(
        f"SELECT {SPAN_COLUMNS} FROM spans WHERE rollout_id = ? AND attempt_id = ? ORDER BY sequence_id",
        (attempt.rollout_id, attempt.attempt_id),
    )
    return (unpack_span(SpanRow._make(row)) for row in rows)

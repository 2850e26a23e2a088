"""What a folder's journal holds, read beside whoever has it open.

Unlike ``LocalStore`` this locks nothing, gives up nothing that is in flight and writes nothing: for looking
at a run that goes on, or at one whose end one does not want to touch.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from .errors import StoreError
from .journal import FILE_NAME, FORMAT, _attempt, _rollout
from .layout import num_shards_of, shard_folders
from .rows import SpanRow, unpack_span
from .types import Attempt, RolloutData


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


def _rollouts(connection: sqlite3.Connection) -> Iterator[RolloutData]:
    last: dict[str, Attempt] = {}
    for row in connection.execute("SELECT * FROM attempts ORDER BY rowid"):
        attempt = _attempt(row)
        if attempt.rollout_id not in last or attempt.sequence_id > last[attempt.rollout_id].sequence_id:
            last[attempt.rollout_id] = attempt
    for row in connection.execute("SELECT * FROM rollouts ORDER BY rowid").fetchall():
        rollout, _ = _rollout(row)
        latest = last.get(rollout.rollout_id)
        rows = connection.execute(
            "SELECT * FROM spans WHERE rollout_id = ? AND attempt_id = ? ORDER BY sequence_id",
            (rollout.rollout_id, latest.attempt_id if latest is not None else ""),
        )
        yield RolloutData(rollout, latest, tuple(unpack_span(SpanRow._make(row)) for row in rows))

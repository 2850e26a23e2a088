"""What a folder's journal holds, read beside whoever has it open.

Unlike ``LocalStore`` this locks nothing, gives up nothing that is in flight and writes nothing: for looking
at a run that goes on, or at one whose end one does not want to touch.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from .errors import StoreError
from .journal import FILE_NAME, FORMAT, _attempt, _rollout
from .rows import SpanRow, unpack_span
from .types import Attempt, RolloutData


def read_rollouts(path: str | os.PathLike[str]) -> Iterator[RolloutData]:
    """Yields each rollout with its last attempt and that one's spans, in order of enqueuing.

    ``path`` is a store's folder or the journal in it. What is written meanwhile is not seen. Raises
    StoreError if there is no journal, or none that can be read.
    """
    file = Path(path)
    file = file / FILE_NAME if file.is_dir() else file
    if not file.is_file():
        raise StoreError(f"there is no store at {path}: expected a folder with {FILE_NAME}, or that file")
    try:
        with closing(_open_read_only(file)) as connection:
            yield from _rollouts(connection)
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
    connection.execute("BEGIN")  # one snapshot for all that follows
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

"""A journal's files: who has them, and the database as it is opened, with all that its tail holds."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from .errors import StoreError
from .schema import FORMAT, MIGRATIONS, SCHEMA
from .statements import RowChange, write
from .tail import FILE_NAME as TAIL_NAME
from .tail import Tail, read_tail

FILE_NAME: Final = "journal.db"
LOCK_WAIT_SECONDS = 2.0
"""How long another process may take to let go of the folder, e.g. one that was just killed."""
_SETTLING_SECONDS = 10.0
"""How long whoever has the folder may take to move its tail into the database, which it does all the time."""
_POLL_SECONDS = 0.01


@contextmanager
def locked(folder: Path, *, wait_seconds: float | None = None) -> Iterator[None]:
    """Has the folder; the system lets go of it when the process dies.

    SQLite's own lock would not do: the system drops that as soon as the process has read and closed the file
    for whatever reason, such as a copy of the folder.

    Raises StoreError if another process has the folder, or it cannot be written.
    """
    lock = FileLock(folder / "journal.lock", thread_local=False)
    try:
        lock.acquire(timeout=LOCK_WAIT_SECONDS if wait_seconds is None else wait_seconds)
    except Timeout:
        raise StoreError(
            f"{folder} is in use by another store; reach that one by its address (http://… or ray://NAME), "
            "close it, or give another folder"
        ) from None
    except OSError as error:
        raise _unwritable(folder, error) from None
    try:
        yield
    finally:
        lock.release()


def open_database(path: Path) -> sqlite3.Connection:
    """Returns the journal's database, brought to today's format; StoreError if it is damaged or newer."""
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    except sqlite3.OperationalError as error:
        raise _unwritable(path, error) from None
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
            connection.executescript(f"BEGIN; {SCHEMA} COMMIT;")
        (found,) = connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.OperationalError as error:
        connection.close()
        raise _unwritable(path, error) from None
    except sqlite3.DatabaseError as error:
        connection.close()
        raise StoreError(f"{path} is no journal ({error}); restore it or give another folder") from None
    try:
        while found in MIGRATIONS:
            connection.executescript(f"BEGIN; {MIGRATIONS[found]} COMMIT;")
            found += 1
    except sqlite3.DatabaseError as error:  # nothing has changed
        connection.close()
        raise StoreError(
            f"{path} has format {found} and cannot be brought to {FORMAT} ({error}); "
            "make room for as much again"
        ) from None
    if found != FORMAT:
        connection.close()
        raise StoreError(f"{path} has format {found}, not {FORMAT}; open it with the raybolt that wrote it")
    return connection


def mark_of(connection: sqlite3.Connection) -> int:
    """Returns what tells the entries of the tail that the database lacks from those that it has."""
    (mark,) = connection.execute("SELECT mark FROM tail").fetchone()
    return int(mark)


def new_mark() -> RowChange:
    """Returns the change that goes with those of a tail."""
    return "mark", (int.from_bytes(os.urandom(7)),)


def take_in_tail(connection: sqlite3.Connection, tail: Tail) -> None:
    """Moves into the database what a killed process left in the tail; StoreError if there is no room."""
    changes = read_tail(tail.folder, mark_of(connection))
    try:
        if changes:
            write(connection, [*changes, new_mark()])
        tail.clear()
    except (sqlite3.Error, OSError) as error:
        raise StoreError(
            f"{tail.folder / FILE_NAME} cannot be written ({error}); make room, then open the store again"
        ) from None


def settle(path: Path) -> None:
    """Returns once the database has all that was acknowledged before.

    Whoever has the folder sees to that. If nobody has, since a process was killed, it is done here, which
    changes nothing else. Raises StoreError if it cannot be done.
    """
    folder = path.parent
    first: int | None = None
    deadline = time.monotonic() + _SETTLING_SECONDS
    while (folder / TAIL_NAME).exists():
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            mark = mark_of(connection)
        if first not in (None, mark) or not read_tail(folder, mark):
            return
        first = mark
        if _take_over(path):
            return
        if time.monotonic() > deadline:
            raise StoreError(
                f"{folder / TAIL_NAME} has changes that {path.name} lacks, and whoever has the folder does "
                "not move them; end that process, or give a copy of the folder that can be written"
            )
        time.sleep(_POLL_SECONDS)


def _take_over(path: Path) -> bool:
    """Moves the tail into the database if nobody has the folder; tells whether it did."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(path.parent, wait_seconds=0))
        except StoreError:
            return False
        connection = stack.enter_context(closing(open_database(path)))
        take_in_tail(connection, stack.enter_context(closing(Tail(path.parent))))
    return True


def _unwritable(path: Path, error: Exception) -> StoreError:
    return StoreError(
        f"{path} cannot be read and written ({error}); make that possible, or give another folder"
    )

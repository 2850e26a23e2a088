"""Runs an agent's SQL on a SQLite file so that no query can change the file, read another or run for ever."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from raybolt.store.errors import InvalidValue, RayboltError

MAX_SECONDS: Final = 2.0
MAX_ROWS: Final = 10_000
_MAX_VALUE_BYTES: Final = 1_000_000
_MAX_PATTERN_BYTES: Final = 200
_STEPS_PER_CHECK: Final = 10_000  # of SQLite's virtual machine: well under a millisecond
_ALLOWED_ACTIONS: Final = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
}
_ALLOWED_PRAGMAS: Final = {"table_info", "table_list", "foreign_key_list"}


class QueryError(RayboltError):
    """The query did not run; the message tells its author why."""


@dataclass(frozen=True)
class Rows:
    """What a query returned."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    """Cells are int, float, str, bytes or None."""


def run_query(
    database: str | Path, sql: str, *, max_seconds: float = MAX_SECONDS, max_rows: int = MAX_ROWS
) -> Rows:
    """The rows of one SELECT on the SQLite file `database`, which is opened read-only.

    Bytes of a text that are no UTF-8 are left out, as in Spider's evaluation.

    Raises:
        QueryError: the query is wrong, does something else than read, returns more than `max_rows` rows, or
            takes longer than `max_seconds`.
        InvalidValue: there is no such file.
    """
    if not Path(database).is_file():
        raise InvalidValue(f"database is {str(database)!r}: no such file; give the path of a SQLite file")
    deadline = time.monotonic() + max_seconds
    with closing(_open(Path(database), deadline)) as connection:
        try:
            cursor = connection.execute(sql)
            rows = cursor.fetchmany(max_rows + 1)
        # ValueError: text that SQLite cannot take, such as a zero byte or half a surrogate pair.
        except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
            raise QueryError(_explain(error, max_seconds, deadline)) from None
    if cursor.description is None:
        raise QueryError("only one SELECT is allowed")
    if len(rows) > max_rows:
        raise QueryError(f"more than {max_rows} rows")
    return Rows(tuple(column[0] for column in cursor.description), tuple(rows))


def _open(database: Path, deadline: float) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True, timeout=1.0)
    connection.text_factory = lambda text: text.decode(errors="ignore")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE_BYTES)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, _MAX_PATTERN_BYTES)
    connection.set_authorizer(_authorize)
    connection.set_progress_handler(_expired(deadline), _STEPS_PER_CHECK)
    return connection


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    if action in _ALLOWED_ACTIONS and second != "load_extension":
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_PRAGMA and first in _ALLOWED_PRAGMAS:
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def _expired(deadline: float) -> Callable[[], bool]:
    return lambda: time.monotonic() > deadline


def _explain(error: Exception, max_seconds: float, deadline: float) -> str:
    text = str(error)
    if text == "interrupted" and time.monotonic() > deadline:
        return f"took longer than {max_seconds:g} seconds"
    if "authoriz" in text or "one statement at a time" in text:
        return "only one SELECT is allowed"
    return text

"""A journal's log, moved into its database file while the store is at work."""

import sqlite3
import threading
from contextlib import closing, suppress
from pathlib import Path

_MOST_SECONDS = 0.1
"""How long writers may be held back by those who read the file meanwhile from another process."""


class Checkpointer:
    """Moves the log into the database file from a thread of its own, since that waits for the device."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="raybolt-journal", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        self._wake.set()

    def close(self) -> None:
        self._closing = True
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        with closing(sqlite3.connect(self._path, isolation_level=None, timeout=_MOST_SECONDS)) as connection:
            while self._wake.wait() and not self._closing:
                self._wake.clear()
                # A checkpoint that fails (a full disk) is tried again after more writes; until then
                # the log keeps everything.
                with suppress(sqlite3.Error):
                    # The first does the work while writers go on; the second, nearly idle, holds them
                    # back for a moment, without which the log would never start afresh.
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
                    connection.execute("PRAGMA wal_checkpoint(RESTART)")

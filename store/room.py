"""How full the disk under a store may get before spans are refused."""

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

from .errors import InvalidValue, StoreFull

RESERVE_BYTES = 256 * 2**20
"""Left free for what must never be refused: ends of attempts, and moving the log into the database file."""

PLENTY_BYTES = 2**30
"""With so much above the reserve, no disk is full before it is looked at again."""
LOOK_SECONDS = 0.05
"""How long a look at such a disk holds,"""
PROMISED_PART = 8
"""and for what part of what is above the reserve: a journal writes the bytes of a span more than once."""


def free_bytes(folder: Path) -> int:
    """Returns how many bytes a process may still write to the disk that holds the folder."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


class Room:
    """The room on a folder's disk, of which spans may have all but a reserve.

    The disk is looked at for every check, unless it had plenty a moment ago: asking for its free bytes takes
    two microseconds, a fifth of what a span costs otherwise.
    """

    def __init__(
        self,
        folder: Path,
        reserve_bytes: int,
        *,
        free_bytes: Callable[[Path], int] = free_bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises InvalidValue for a negative reserve; with 0, only what cannot fit is refused."""
        if reserve_bytes < 0:
            raise InvalidValue(f"reserve_bytes is {reserve_bytes}; give 0 or more")
        self._folder = folder
        self._reserve_bytes = reserve_bytes
        self._free_bytes = free_bytes
        self._clock = clock
        self._promise_bytes = 0
        """What may still be written without another look, until ``_promise_end``."""
        self._promise_end = 0.0

    def check(self, num_bytes: int) -> None:
        """Raises StoreFull unless the reserve is free and remains so when the bytes are written."""
        now = self._clock()
        if num_bytes <= self._promise_bytes and now < self._promise_end:
            self._promise_bytes -= num_bytes
            return
        free = self._free_bytes(self._folder)
        spare = free - num_bytes - self._reserve_bytes
        self._promise_bytes = spare // PROMISED_PART if spare >= PLENTY_BYTES else -1
        self._promise_end = now + LOOK_SECONDS
        if spare < 0:
            raise StoreFull(
                f"the disk of {self._folder} on {platform.node()} has {free} bytes free, too few for "
                f"{num_bytes} more and the reserve of {self._reserve_bytes}; make room (prune and compact, "
                "or another disk), then send them again"
            )

"""How full the disk under a store may get before spans are refused."""

import os
import platform
from collections.abc import Callable
from pathlib import Path

from .errors import InvalidValue, StoreFull

RESERVE_BYTES = 256 * 2**20
"""Left free for what must never be refused: ends of attempts, and moving the log into the database file."""


def free_bytes(folder: Path) -> int:
    """Returns how many bytes a process may still write to the disk that holds the folder."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


class Room:
    """The room on a folder's disk, of which spans may have all but a reserve."""

    def __init__(
        self, folder: Path, reserve_bytes: int, *, free_bytes: Callable[[Path], int] = free_bytes
    ) -> None:
        """Raises InvalidValue for a negative reserve; with 0, only what cannot fit is refused."""
        if reserve_bytes < 0:
            raise InvalidValue(f"reserve_bytes is {reserve_bytes}; give 0 or more")
        self._folder = folder
        self._reserve_bytes = reserve_bytes
        self._free_bytes = free_bytes

    def check(self, num_bytes: int) -> None:
        """Raises StoreFull unless the reserve is free and remains so when the bytes are written."""
        free = self._free_bytes(self._folder)
        if free - num_bytes < self._reserve_bytes:
            raise StoreFull(
                f"the disk of {self._folder} on {platform.node()} has {free} bytes free, too few for "
                f"{num_bytes} more and the reserve of {self._reserve_bytes}; make room (prune and compact, "
                "or another disk), then send them again"
            )

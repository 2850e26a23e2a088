"""The tail of a journal: a file in which changes are safe until there are enough of them for the database.

A transaction of SQLite rewrites every page that it touches, four for one span; an entry here is one write.
"""

import errno
import os
import struct
from pathlib import Path
from typing import Final
from zlib import crc32

import msgpack

from .errors import StoreError
from .schema import FORMAT
from .statements import RowChange

FILE_NAME: Final = "journal.tail"

_HEAD = struct.Struct("<II")  # bytes and CRC-32 of the entry behind it


class Tail:
    """Appends entries, each a transaction. Its owner has locked the folder and serialises the calls.

    An entry carries the mark that the database has when it is written. Whoever moves entries into the
    database changes the mark there in the same transaction, which is what removes them: the file keeps its
    size, and later entries are written over them, in a third of the time that it takes to grow a file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / FILE_NAME
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o666)
        self._packer = msgpack.Packer()
        self.num_bytes = os.fstat(self._file).st_size

    def entry(self, mark: int, changes: list[RowChange]) -> bytes:
        """Returns the changes as bytes to append."""
        entry: bytes = self._packer.pack((FORMAT, mark, changes))
        return entry

    def append(self, entry: bytes) -> None:
        """Writes the entry, which has then left the process; OSError if there is no room for it."""
        framed = _HEAD.pack(len(entry), crc32(entry)) + entry
        if os.write(self._file, framed) != len(framed):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.num_bytes += len(framed)

    def clear(self) -> None:
        """Starts afresh: the database has all entries, and another mark."""
        os.lseek(self._file, 0, os.SEEK_SET)
        self.num_bytes = 0

    def close(self) -> None:
        """Lets go of the file, which is deleted when the database has all of it."""
        os.close(self._file)
        if not self.num_bytes:
            self._path.unlink(missing_ok=True)


def read_tail(folder: Path, mark: int) -> list[RowChange]:
    """Returns the changes of the folder's tail that a database with this mark lacks.

    An entry that was not written to its end was never acknowledged; behind it is what is left of older ones.
    Raises StoreError for entries of another format.
    """
    try:
        content = (folder / FILE_NAME).read_bytes()
    except FileNotFoundError:
        return []
    changes: list[RowChange] = []
    start = 0
    while start + _HEAD.size <= len(content):
        num_bytes, checksum = _HEAD.unpack_from(content, start)
        start += _HEAD.size
        entry = content[start : start + num_bytes]
        if len(entry) < num_bytes or crc32(entry) != checksum:
            break
        start += num_bytes
        written_by, marked, found = msgpack.unpackb(entry, use_list=False)
        if written_by != FORMAT:
            raise StoreError(
                f"{folder / FILE_NAME} has format {written_by}, not {FORMAT}; open the folder once with the "
                "raybolt that wrote it"
            )
        if marked == mark:
            changes += found
    return changes

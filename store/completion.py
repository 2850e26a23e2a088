"""Files and folders that appear under their names once they are complete."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from .errors import InvalidValue, StoreError


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A path to write a file or folder at, which gets the name ``target`` when the block has ended well.

    It replaces a file or an empty folder of that name. Until then it lies in a hidden folder beside it,
    ``.NAME.….partial``, which goes with the block, but stays if the process is killed. A link stays one: what
    it leads to is written. Raises InvalidValue for a device or a pipe and for the current folder, which would
    be replaced, and for what is no path; StoreError where nothing can be written, or there is no room.
    """
    name, target = target.name, _resolved(target)
    try:
        _check_replaceable(target)
        with (
            _folder(target.parent),
            TemporaryDirectory(prefix=f".{target.name}.", suffix=".partial", dir=target.parent) as folder,
        ):
            part = Path(folder, name or target.name)
            yield part
            os.replace(part, target)
    except OSError as error:
        remedy = "make room, or give another place" if error.errno in _NO_ROOM else "give another place"
        raise StoreError(f"{target} cannot be written ({error.strerror or error}); {remedy}") from error


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def _resolved(target: Path) -> Path:
    try:
        return Path(os.path.realpath(target))
    except ValueError as error:
        raise InvalidValue(f"{str(target)!r} is no path ({error}); give another place") from None


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """The folder is there in the block; one that was made for it goes again if the block fails."""
    was_there = path.is_dir()
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if not was_there:
            with suppress(OSError):  # others have begun to use it
                path.rmdir()
        raise


def _check_replaceable(target: Path) -> None:
    if os.path.lexists(target) and not (target.is_file() or target.is_dir()):
        raise InvalidValue(f"{target} is a device or a pipe; give the name of a file or a new folder")
    if target.is_dir() and os.path.samefile(target, os.curdir):
        raise InvalidValue(f"{target} is the current folder; give a new folder in it, or go elsewhere")

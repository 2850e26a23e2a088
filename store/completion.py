"""Files and folders that appear under their names once they are complete."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from .errors import InvalidValue, StoreError


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A path to write a file or folder at, which gets the name ``target`` when the block has ended well.

    It replaces a file or an empty folder of that name. Until then it lies in a hidden folder beside it,
    ``.NAME.….partial``, which goes with the block, but stays if the process is killed. A link stays one: what
    it leads to is written. Raises InvalidValue for a device or a pipe, which would be replaced; StoreError
    where nothing can be written, or there is no room.
    """
    name, target = target.name, Path(os.path.realpath(target))
    if os.path.lexists(target) and not (target.is_file() or target.is_dir()):
        raise InvalidValue(f"{target} is a device or a pipe; give the name of a file or a new folder")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{target.name}.", suffix=".partial", dir=target.parent) as folder:
            part = Path(folder, name or target.name)
            yield part
            os.replace(part, target)
    except OSError as error:
        reason = error.strerror or error
        raise StoreError(
            f"{target} cannot be written ({reason}); make room, or give another place"
        ) from error

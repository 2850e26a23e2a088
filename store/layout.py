"""Where a store's folder keeps what: one journal, or one per shard."""

import json
import os
from pathlib import Path

from .errors import InvalidValue, StoreError
from .journal_file import FILE_NAME
from .tail import FILE_NAME as TAIL_NAME

LAYOUT_FILE = "shards.json"
"""Present in the folder of a store with several shards; holds how many."""


def checked_folder(path: str | os.PathLike[str]) -> Path:
    """Returns the folder, which is made if need be; InvalidValue for what names none, or cannot be made."""
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise InvalidValue(f"path is {path!r}; give a folder, or None to keep the store in memory")
    try:
        folder = Path(path).expanduser().resolve()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError, RuntimeError) as error:  # no path at all, or nobody's home
        reason = getattr(error, "strerror", None) or error
        raise InvalidValue(
            f"path is {str(path)!r}, where no folder can be made ({reason}); give another one"
        ) from None
    return folder


def num_shards_of(folder: Path) -> int | None:
    """Returns how many shards a folder holds; None for one that holds no store."""
    if (folder / LAYOUT_FILE).exists():
        try:
            return int(json.loads((folder / LAYOUT_FILE).read_text())["num_shards"])
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{folder / LAYOUT_FILE} cannot be read ({error!r}); restore it, or write "
                '{"num_shards": N} for the N folders shard-0, shard-1, … beside it'
            ) from None
    return 1 if (folder / FILE_NAME).exists() else None


def journal_bytes(folder: Path) -> int:
    """Returns the bytes on disk of the journal in a folder, log and tail included; 0 if there is none."""
    files = (folder / name for name in (FILE_NAME, f"{FILE_NAME}-wal", TAIL_NAME))
    return sum(file.stat().st_size for file in files if file.exists())


def shard_folders(folder: Path, num_shards: int | None) -> list[Path]:
    """Returns each shard's folder; a new store gets ``num_shards`` (None: one), which is noted there.

    Raises InvalidValue for less than one, or for another number than the folder holds already.
    """
    if num_shards is not None and num_shards < 1:
        raise InvalidValue(f"num_shards is {num_shards}; give 1 or more")
    present = num_shards_of(folder)
    if None not in (present, num_shards) and present != num_shards:
        raise InvalidValue(
            f"num_shards is {num_shards}, but {folder} holds {present}; leave it out, or move the store into "
            "a new folder by `raybolt store export` and `raybolt store import`"
        )
    wanted = present or num_shards or 1
    if wanted == 1:
        return [folder]
    if present is None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LAYOUT_FILE).write_text(json.dumps({"num_shards": wanted}))
    return [folder / f"shard-{index}" for index in range(wanted)]


def check_one_shard(folder: Path) -> None:
    """Raises StoreError for a folder whose store has several shards."""
    present = num_shards_of(folder)
    if present is not None and present > 1:
        raise StoreError(
            f"{folder} holds a store of {present} shards, which one process alone cannot serve; open it by "
            "RayStore.create, or put it together by `raybolt store export` and `raybolt store import`"
        )

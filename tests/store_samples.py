"""Small things to put into stores: those of the shipped checks. And what a killed store leaves."""

from pathlib import Path

from raybolt.store.check.samples import fill_group, make_call_span, make_span, run_one

__all__ = ["copy_of_killed", "fill_group", "make_call_span", "make_span", "run_one"]


def copy_of_killed(source: Path, target: Path) -> Path:
    """Copies an open store's folder as it is, to where it was not; nothing is written meanwhile.

    The tail comes first: should it be moved into the database at this moment, the copy has its entries twice,
    as it may be when a process is killed.
    """
    target.mkdir()
    for name in ("journal.tail", "journal.db", "journal.db-wal"):
        if (source / name).exists():
            (target / name).write_bytes((source / name).read_bytes())
    return target

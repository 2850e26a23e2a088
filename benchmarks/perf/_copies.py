"""Counts the bytes that processes copy, by a library that is loaded into them before C's own (Linux)."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("_copies.c")
COUNTER = "RAYBOLT_COPIES"
"""Environment variable with the path of the compiled library, in the processes that it counts for."""
OPTIONS = ("-O3", "-fno-builtin", "-fno-tree-loop-distribute-patterns", "-shared", "-fPIC")
"""Of the compiler, which would otherwise make calls of memcpy of the loops that are to replace it."""


def copied_so_far(_: Any = None) -> Counter[str]:
    """Bytes that this process has copied so far; nothing where that is not counted."""
    if COUNTER not in os.environ:
        return Counter()
    library = ctypes.CDLL(os.environ[COUNTER])
    library.bytes_in_memory.restype = library.bytes_through_sockets.restype = ctypes.c_uint64
    return Counter({"in memory": library.bytes_in_memory(), "sockets": library.bytes_through_sockets()})


@contextmanager
def counting() -> Iterator[dict[str, str]]:
    """The environment variables of processes whose copies are counted; none where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        yield {}
        return
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "copies.so"
        subprocess.run([compiler, *OPTIONS, "-o", str(library), str(SOURCE), "-ldl"], check=True)
        yield {"LD_PRELOAD": str(library), COUNTER: str(library)}

"""Disks that are soon full, for tests of what happens then."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SMALL_DISK_BYTES = 64 * 2**20


@contextmanager
def mounted(folder: Path, num_bytes: int = SMALL_DISK_BYTES) -> Iterator[Path]:
    """Mounts a file system of this size as a new folder; skips the test where the system forbids it."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def enlarge(small_disk: Path) -> None:
    """Makes room on it."""
    subprocess.run(["mount", "-o", f"remount,size={4 * SMALL_DISK_BYTES}", str(small_disk)], check=True)

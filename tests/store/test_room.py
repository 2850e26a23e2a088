"""How often a store looks whether its disk is full: never too late."""

from pathlib import Path

import pytest

from raybolt.store import StoreFull
from raybolt.store.room import Room

GIB = 2**30
RESERVE = 256 * 2**20


class Disk:
    """Free bytes and time that a test sets; it counts how often somebody looks."""

    def __init__(self, free: int) -> None:
        self.free = free
        self.time = 100.0
        self.num_looks = 0

    def room(self, reserve_bytes: int = RESERVE) -> Room:
        return Room(Path("disk"), reserve_bytes, free_bytes=self.look, clock=lambda: self.time)

    def look(self, folder: Path) -> int:
        assert folder == Path("disk")
        self.num_looks += 1
        return self.free


def test_a_disk_with_plenty_is_looked_at_once_in_a_twentieth_of_a_second() -> None:
    disk = Disk(100 * GIB)
    room = disk.room()
    for _ in range(1000):
        room.check(5_000)
    assert disk.num_looks == 1
    disk.time += 0.04
    room.check(5_000)
    assert disk.num_looks == 1
    disk.time += 0.02
    room.check(5_000)
    assert disk.num_looks == 2


def test_a_disk_with_little_is_looked_at_for_every_check() -> None:
    disk = Disk(RESERVE + GIB + 4_999)
    room = disk.room()
    for _ in range(10):
        room.check(5_000)
    assert disk.num_looks == 10
    disk.free = RESERVE + 4_999
    with pytest.raises(StoreFull, match="has 268440455 bytes free, too few for 5000 more"):
        room.check(5_000)


def test_what_was_found_free_is_promised_once_and_only_an_eighth_of_it() -> None:
    disk = Disk(RESERVE + 8 * GIB)
    room = disk.room()
    room.check(0)  # promises 1 GiB
    for _ in range(4):
        room.check(GIB // 4)
    assert disk.num_looks == 1
    disk.free = RESERVE
    with pytest.raises(StoreFull):
        room.check(1)
    assert disk.num_looks == 2


def test_more_than_was_promised_is_looked_up_even_if_there_was_plenty() -> None:
    disk = Disk(RESERVE + 8 * GIB)
    room = disk.room()
    room.check(0)
    with pytest.raises(StoreFull):
        room.check(8 * GIB + 1)
    room.check(8 * GIB)


def test_what_is_checked_first_counts_against_what_is_promised() -> None:
    disk = Disk(RESERVE + 9 * GIB)
    room = disk.room()
    room.check(8 * GIB)  # leaves 1 GiB, which promises 128 MiB
    disk.free = RESERVE
    room.check(GIB // 8)
    with pytest.raises(StoreFull):
        room.check(1)


def test_a_disk_that_was_full_takes_spans_as_soon_as_it_has_room() -> None:
    disk = Disk(RESERVE - 1)
    room = disk.room()
    for _ in range(2):
        with pytest.raises(StoreFull):
            room.check(0)
    disk.free = RESERVE + 100 * GIB
    room.check(GIB)
    disk.free = 0  # as somebody else may bring about: seen when the time is over
    room.check(GIB)
    disk.time += 0.05
    with pytest.raises(StoreFull):
        room.check(0)


def test_a_full_disk_refuses_also_what_has_no_bytes() -> None:
    disk = Disk(RESERVE + GIB // 2)
    room = disk.room()
    room.check(0)
    disk.free = RESERVE - 1
    with pytest.raises(StoreFull):
        room.check(0)

"""What appears under its name once it is complete."""

import errno
import os
from pathlib import Path

import pytest

from raybolt.store import InvalidValue, StoreError
from raybolt.store.completion import appearing
from raybolt.store.layout import checked_folder


def test_a_link_stays_one_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    real, link = tmp_path / "elsewhere" / "real.txt", tmp_path / "link.txt"
    real.write_text("old")
    link.symlink_to(real)
    with appearing(link) as part:
        part.write_text("new")
        assert real.read_text() == "old"
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["elsewhere", "link.txt", "real.txt"]


def test_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(InvalidValue, match="is a device or a pipe; give the name"), appearing(pipe):
        pytest.fail("there is nothing to write to")
    assert pipe.is_fifo()


def test_the_present_folder_can_be_filled_if_it_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    with appearing(Path("out/../out/.")) as part:
        part.mkdir()
        (part / "rows").write_text("1")
    assert (tmp_path / "out" / "rows").read_text() == "1"


def test_below_a_file_nothing_can_appear(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"), appearing(tmp_path / "file" / "x"):
        pytest.fail("there is nothing to write to")


def test_a_folder_made_for_a_file_that_does_not_appear_goes_again(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), appearing(tmp_path / "new" / "file") as part:
        part.write_text(f"{1 / 0}")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_path_is_refused() -> None:
    with (
        pytest.raises(InvalidValue, match=r"'a\\x00b' is no path .*; give another place"),
        appearing(Path("a\0b")),
    ):
        pytest.fail("there is nothing to write to")
    with pytest.raises(InvalidValue, match="where no folder can be made"):
        checked_folder("a\0b")
    with pytest.raises(StoreError, match="cannot be written"), appearing(Path("x" * 300)):
        pytest.fail("there is nothing to write to")


def test_only_a_full_disk_asks_for_room(tmp_path: Path) -> None:
    for number, remedy in ((errno.ENOSPC, "make room, or give"), (errno.EIO, r"\); give another place")):
        with pytest.raises(StoreError, match=remedy), appearing(tmp_path / "x"):
            raise OSError(number, "broken")

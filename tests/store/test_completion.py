"""What appears under its name once it is complete."""

import os
from pathlib import Path

import pytest

from raybolt.store import InvalidValue, StoreError
from raybolt.store.completion import appearing


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

"""The store's page is true: its Python is run from top to bottom, and prints what it says."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "store.md"


def test_the_python_on_the_page_runs_and_prints_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
    exec(compile(code, PAGE.name, "exec"), {})
    assert capsys.readouterr().out.splitlines() == [
        "['succeeded']",
        "True None",
        "[5 6 7]",
        "20 of 20 rules kept",
    ]
    assert (tmp_path / "runs" / "example" / "journal.db").exists()

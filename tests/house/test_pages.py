"""The Python in README and docs runs. A page's blocks share one namespace, in order.

A block is left out only if `<!-- not run: why -->` stands on the line before it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^(?P<before>[^\n]*)\n```python\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
NOT_RUN = re.compile(r"<!-- not run: \S.* -->")


def runnable(text: str) -> list[str]:
    """The code of the page's Python blocks, without those marked as not run."""
    return [found["code"] for found in BLOCK.finditer("\n" + text) if not NOT_RUN.fullmatch(found["before"])]


PAGES = [
    page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if runnable(page.read_text())
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_a_page_runs(page, tmp_path):
    script = tmp_path / "page.py"
    script.write_text("\n\n".join(runnable(page.read_text())))
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", script.name],
        cwd=tmp_path, capture_output=True, text=True, timeout=540, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_block_marked_as_not_run_is_left_out():
    page = "text\n```python\na = 1\n```\n<!-- not run: needs a key -->\n```python\nb = 2\n```\n"
    assert runnable(page) == ["a = 1\n"]

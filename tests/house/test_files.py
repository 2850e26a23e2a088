"""The shape of the repository: sizes, paths, links, markers, shipped settings."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from raybolt.settings import load_settings

ROOT = Path(__file__).parents[2]
MAX_LINES = 450
# The home folders and work places of machines; paths such as these work on one machine only.
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|home|root|Users|tmp)/[\w.-]+")
MARKER = "FILL" + "_IN"


def tracked(*suffixes: str) -> list[Path]:
    """The files of the repository that end so; hidden and ignored folders are left out."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    paths = [ROOT / line for line in listed.stdout.splitlines()]
    return [path for path in paths if path.suffix in suffixes and path.is_file()]


def test_no_file_is_longer_than_450_lines():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in tracked(".py")}
    assert {path: length for path, length in lengths.items() if length > MAX_LINES} == {}


def test_no_file_names_a_place_of_one_machine():
    found = {
        str(path.relative_to(ROOT)): match.group()
        for path in tracked(".py", ".md", ".toml", ".yaml", ".yml", ".json", ".txt")
        if path != Path(__file__) and (match := MACHINE_PATH.search(path.read_text()))
    }
    assert found == {}


def test_no_number_is_left_to_be_filled_in():
    assert [str(path.relative_to(ROOT)) for path in tracked(".md", ".py") if MARKER in path.read_text()] == []


def test_every_package_folder_is_listed_for_the_wheel():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    rooms = [path.parent for path in tracked(".py") if path.name == "__init__.py"]
    assert sorted(listed) == sorted(".".join(("raybolt", *room.relative_to(ROOT).parts)) for room in rooms)


def test_every_settings_file_loads():
    files = [path for path in tracked(".yaml", ".yml") if not path.relative_to(ROOT).parts[0].startswith(".")]
    assert files
    for path in files:
        assert load_settings(path, {}, {}).agent


def links(text: str) -> list[str]:
    """The relative targets of Markdown links and images, without their anchors."""
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [target.split("#")[0] for target in targets if not re.match(r"[a-z]+:|#", target)]


@pytest.mark.parametrize("page", tracked(".md"), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page):
    assert [target for target in links(page.read_text()) if not (page.parent / target).exists()] == []

"""The shipped conformance checks, on the real package of every framework and every way to bring an agent."""

from pathlib import Path

import pytest
from kits.every import KITS, kit_of

from raybolt.adapters.check import CHECKS, NotOffered

PAGE = Path(__file__).parents[2] / "docs" / "adapters.md"
NO_FACTORIES = {"python"}
CASES = [
    pytest.param(framework, check, way, id=f"{framework}-{check.name}-{way}")
    for framework in KITS
    for check in CHECKS
    for way in check.ways
    if not (way == "factory" and framework in NO_FACTORIES)
]


def documented() -> dict[str, dict[str, str]]:
    """What the page says of each rule (column "") and framework."""
    _, _, rest = PAGE.read_text().partition("## What works with what")
    lines = [line for line in rest.partition("\n## ")[0].splitlines() if line.startswith("|")]
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}


def test_the_table_in_the_docs_has_a_row_for_every_rule_and_a_column_for_every_framework():
    assert list(documented()) == [check.rule for check in CHECKS]
    assert {tuple(row) for row in documented().values()} == {tuple(KITS)}


@pytest.mark.parametrize(("framework", "check", "way"), CASES)
async def test_the_adapter_keeps_the_rule_or_the_docs_say_why_not(framework, check, way):
    kit = kit_of(framework)
    cell = documented()[check.rule][framework]
    lacking = ""
    try:
        await check.run(kit, way)
    except NotOffered as reason:
        lacking = f"not offered: {reason}"
    assert lacking in cell if lacking else cell == "yes" or cell.startswith(f"{way} only")


@pytest.mark.parametrize("framework", KITS)
def test_a_kit_brings_factories_unless_there_are_none(framework):
    assert ("factory" in kit_of(framework).ways) == (framework not in NO_FACTORIES)

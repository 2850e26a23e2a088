"""The shipped conformance checks, on the real package of every framework and every way to bring an agent."""

import pytest
from kits.every import KITS, kit_of

from raybolt.adapters.check import CHECKS, NotOffered

CASES = [
    pytest.param(framework, check, way, id=f"{framework}-{check.name}-{way}")
    for framework in KITS
    for check in CHECKS
    for way in check.ways
]


@pytest.mark.parametrize(("framework", "check", "way"), CASES)
async def test_the_adapter_keeps_the_rule(framework, check, way):
    kit = kit_of(framework)
    if way not in kit.ways:
        pytest.skip(f"agents of {framework} are not brought as {way}")
    try:
        await check.run(kit, way)
    except NotOffered as reason:
        pytest.skip(f"not offered: {reason}")

"""The store's contract, over every implementation: what `raybolt.store.check` ships."""

import pytest

from raybolt.store import LightningStore
from raybolt.store.check import CHECKS, Check


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
async def test_every_store_keeps_the_rule(store: LightningStore, check: Check) -> None:
    await check.run(store)

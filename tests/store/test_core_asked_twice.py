"""Every question may be asked twice, because its first answer was lost: the second time changes nothing."""

from typing import Any

import pytest
from store_sharded import ShardedStore

from raybolt.store import LocalStore
from raybolt.store.check import CHECKS, Check
from raybolt.store.check.deadlines import DEADLINES

_COUNTS_ON = {"sequence_ids", "concurrent_numbers", "otel_spans", "heartbeats"}
"""What hands out numbers, of which some are then nobody's, and what notes when it was asked."""


class AskedTwice(LocalStore):
    async def _ask(self, operation: str, **arguments: Any) -> Any:
        answer = await super()._ask(operation, **arguments)
        await super()._ask(operation, **arguments)
        return answer


class ShardsAskedTwice(ShardedStore):
    def __init__(self) -> None:
        super().__init__(2)
        self._router._shards = [self._twice(shard) for shard in self._router._shards]

    @staticmethod
    def _twice(shard: Any) -> Any:
        async def ask(operation: str, arguments: dict[str, Any]) -> Any:
            answer = await shard(operation, dict(arguments))
            await shard(operation, dict(arguments))
            return answer

        return ask


@pytest.mark.parametrize("make_store", [AskedTwice, ShardsAskedTwice])
@pytest.mark.parametrize(
    "check",
    [check for check in CHECKS if check.name not in _COUNTS_ON and check not in DEADLINES],
    ids=lambda check: check.name,
)
async def test_a_question_that_is_repeated_changes_nothing(make_store: Any, check: Check) -> None:
    async with make_store() as store:
        await check.run(store)

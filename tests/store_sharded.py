"""A store of several shards without Ray."""

from pathlib import Path
from typing import Any

from raybolt.store.client import StoreClient
from raybolt.store.keeper import Keeper
from raybolt.store.router import ShardRouter
from raybolt.store.types import Capabilities
from raybolt.store.unshared import unshared


class ShardedStore(StoreClient):
    """Several keepers of this process behind one router: what RayStore does, without Ray."""

    def __init__(self, num_shards: int, folder: Path | None = None) -> None:
        """In memory, or in a folder's parts; there it keeps what was in flight."""
        self._keepers = [
            Keeper(
                None if folder is None else folder / f"shard-{index}",
                publish=lambda table: table,
                keep_in_flight=True,
            )
            for index in range(num_shards)
        ]
        self._router = ShardRouter([keeper.ask for keeper in self._keepers])

    def another_client(self) -> "ShardedStore":
        """The same store, as somebody sees it who has asked nothing of it yet."""
        client = ShardedStore(0)
        client._keepers = self._keepers
        client._router = ShardRouter([keeper.ask for keeper in self._keepers])
        return client

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            thread_safe=True, async_safe=True, zero_copy=True, otlp_traces=False, durable=False
        )

    async def _reach(self, operation: str, arguments: dict[str, Any]) -> Any:
        return unshared(await self._router.ask(operation, arguments))

    async def close(self) -> None:
        for keeper in self._keepers:
            keeper.close()

"""The stores under one name: each test that takes ``store`` runs over all of them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from raybolt.store import HttpStore, LightningStore, LocalStore, serve
from raybolt.store.base import Capabilities
from raybolt.store.client import StoreClient
from raybolt.store.keeper import Keeper
from raybolt.store.router import ShardRouter


class ShardedStore(StoreClient):
    """Several keepers of this process behind one router: what RayStore does, without Ray."""

    def __init__(self, num_shards: int) -> None:
        self._keepers = [Keeper(None, publish=lambda table: table) for _ in range(num_shards)]
        self._router = ShardRouter([keeper.ask for keeper in self._keepers])

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            thread_safe=True, async_safe=True, zero_copy=True, otlp_traces=False, durable=False
        )

    async def _ask(self, operation: str, **arguments: Any) -> Any:
        return await self._router.ask(operation, arguments)

    async def close(self) -> None:
        for keeper in self._keepers:
            keeper.close()


@pytest.fixture(params=["memory", "folder", "shards", "http", "ray", "ray-2"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LightningStore]:
    if request.param.startswith("ray"):
        request.getfixturevalue("ray_session")
        from raybolt.store import RayStore

        num_shards = 2 if request.param == "ray-2" else 1
        ray_store = RayStore.create(tmp_path, name=f"contract-{uuid4().hex}", num_shards=num_shards)
        yield ray_store
        await ray_store.destroy()
    elif request.param == "http":
        async with LocalStore() as served:
            with serve(served, port=0) as server:
                async with HttpStore(server.url) as http_store:
                    yield http_store
    elif request.param == "shards":
        async with ShardedStore(3) as sharded_store:
            yield sharded_store
    else:
        async with LocalStore(tmp_path if request.param == "folder" else None) as local_store:
            yield local_store

"""The stores under one name: each test that takes ``store`` runs over all of them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from store_sharded import ShardedStore

from raybolt.store import HttpStore, LightningStore, LocalStore, serve

if TYPE_CHECKING:
    from store_ray_reused import ReusedRayStores


@pytest.fixture(scope="session")
def ray_stores(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator["ReusedRayStores"]:
    from store_ray_reused import ReusedRayStores  # which loads Ray

    stores = ReusedRayStores(tmp_path_factory.mktemp("ray-stores"))
    yield stores
    asyncio.run(stores.destroy())


RAY = [pytest.param(name, marks=pytest.mark.ray) for name in ("ray", "ray-2")]


@pytest.fixture(params=["memory", "folder", "shards", "http", *RAY])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LightningStore]:
    if request.param.startswith("ray"):
        stores = request.getfixturevalue("ray_stores")
        yield stores.emptied(2 if request.param == "ray-2" else 1, tmp_path)
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

"""The stores under one name: each test that takes ``store`` runs over all of them."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from store_sharded import ShardedStore

from raybolt.store import HttpStore, LightningStore, LocalStore, serve


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

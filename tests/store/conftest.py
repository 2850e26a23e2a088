"""The three stores under one name: each test that takes ``store`` runs over all of them."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from raybolt.store import LightningStore, LocalStore


@pytest.fixture(params=["memory", "folder", "ray"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LightningStore]:
    if request.param == "ray":
        request.getfixturevalue("ray_session")
        from raybolt.store import RayStore

        ray_store = RayStore.create(tmp_path, name=f"contract-{uuid4().hex}")
        yield ray_store
        await ray_store.destroy()
    else:
        async with LocalStore(tmp_path if request.param == "folder" else None) as local_store:
            yield local_store

"""Ray stores that serve many tests: starting a shard's process takes a second, emptying it does not."""

from pathlib import Path
from typing import Any

import ray

from raybolt.store import RayStore
from raybolt.store.keeper import Keeper
from raybolt.store.shard import _put_table


class ReusedRayStores:
    """One running store per number of shards; each test gets it empty and by a client of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stores: dict[int, RayStore] = {}

    def emptied(self, num_shards: int, folder: Path) -> RayStore:
        """The store of so many shards, which from now on keep parts of this empty folder."""
        name = f"contract-{num_shards}"
        if num_shards not in self._stores:
            own_folder = self._folder / name
            self._stores[num_shards] = RayStore.create(own_folder, name=name, num_shards=num_shards)
        links = self._stores[num_shards]._links
        ray.get(
            [
                link.actor.__ray_call__.remote(_begin_again, folder / f"part-{index}")
                for index, link in enumerate(links)
            ]
        )
        return RayStore.connect(name)

    async def destroy(self) -> None:
        for store in self._stores.values():
            await store.destroy()


def _begin_again(shard: Any, folder: Path) -> None:
    """Runs in the shard's process: what opening another folder does, in the same actor."""
    shard._keeper.close()
    shard._keeper = Keeper(folder, publish=_put_table)

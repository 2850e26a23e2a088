"""The store as Ray actors: shards, named, detached, restarted from their journals when they die.

A shard runs a ``Keeper`` and seals groups into Ray's object store *itself*: an object dies with the process
that put it, so a runner's death takes nothing along, and the driver moves references only.
"""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from .arguments import age
from .client import StoreClient
from .errors import InvalidValue, StoreError
from .layout import checked_folder, shard_folders
from .plain import checked_text
from .room import RESERVE_BYTES
from .router import ShardRouter
from .shard import Shard, ShardLink, ShardState
from .types import Capabilities
from .values import checked_count

NAMESPACE = "raybolt"
"""Ray namespace of all shards, so that drivers with other namespaces find them."""
_SHARD = "-shard-"
"""Stands between a store's name and a shard's number, and so in no store's name."""


class RayStore(StoreClient):
    """A store that any process of a Ray cluster can use. Pickled, it reaches the same store elsewhere.

    Handles of groups refer to objects that a shard owns: should it die, those are lost with it (``ray.get``
    raises ``OwnerDiedError`` once Ray has noticed) and ``get_group`` seals them again from the journal.
    Calls made while a shard is down wait for its restart and are then repeated, which their ids make
    harmless.
    """

    def __init__(self, name: str, shards: Sequence[ActorHandle], folder: Path | None) -> None:
        """Wraps shards; use ``create`` or ``connect``."""
        self.name = name
        self.folder = folder
        self._links = [ShardLink(shard, name) for shard in shards]
        self._router = ShardRouter([link.ask for link in self._links])

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str] | None,
        *,
        name: str = "store",
        num_shards: int | None = None,
        reserve_bytes: int = RESERVE_BYTES,
        retention_seconds: float | None = None,
    ) -> "RayStore":
        """Returns the store of this name with the given folder (None: memory), started if need be.

        Its shards run on this node, where the folder is, and outlive this driver (``destroy`` ends them).
        More than one spread what many runners report at once over as many processes; a folder keeps the
        number it was made with, which is 1 unless given. Spans raise StoreFull while the folder's disk has
        less than the reserve free. With a retention, rollouts that ended longer ago are deleted (see
        ``prune``), once a minute. A store that runs already keeps the reserve and retention of its start.

        Raises StoreError if a store of this name keeps another folder, or if the folder cannot be opened;
        InvalidValue if it holds another number of shards, or for a name that another's shard may have.
        """
        if _SHARD in checked_text(name, "name"):
            raise InvalidValue(f"name is {name!r}; give one without {_SHARD!r}")
        if num_shards is not None:
            num_shards = checked_count(num_shards, "num_shards", least=1)
        folder = checked_folder(path) if path is not None else None
        reserve_bytes = checked_count(reserve_bytes, "reserve_bytes")
        if retention_seconds is not None:
            retention_seconds = age(retention_seconds, "retention_seconds")
        own_folders: Sequence[Path | None] = (
            [None] * (num_shards or 1) if folder is None else shard_folders(folder, num_shards)
        )
        shards: list[ActorHandle] = []
        for index, own_folder in enumerate(own_folders):
            arguments = (folder, own_folder, len(own_folders), reserve_bytes, retention_seconds)
            shards.append(_started(name, index, arguments))
            state: ShardState = ray.get(shards[-1].state.remote())
            if state.failure is not None:
                if folder is not None:  # what those in memory hold would be lost
                    for shard in shards:
                        ray.kill(shard)
                raise state.failure
            if (state.folder, state.num_shards) != (folder, len(own_folders)):
                raise StoreError(
                    f"the store named {name!r} runs already, with path {state.folder} and {state.num_shards} "
                    f"shards, not {folder} and {len(own_folders)}; give another name"
                )
        return cls(name, shards, folder)

    @classmethod
    def connect(cls, name: str = "store") -> "RayStore":
        """Returns the running store of this name; StoreError when there is none.

        One in memory of which a shard has died is returned, to be destroyed; it answers with StoreError.
        """
        first = _find(name, 0)
        if first is None:
            known = ", ".join(map(repr, _running())) or "none"
            raise StoreError(
                f"no store named {name!r} runs in this cluster (it has: {known}); start it by RayStore.create"
            )
        state: ShardState = ray.get(first.state.remote())
        if state.failure is not None and state.folder is not None:
            raise state.failure
        shards = [_find(name, index) for index in range(state.num_shards)]
        missing = [index for index, shard in enumerate(shards) if shard is None]
        if missing:
            raise StoreError(
                f"the store named {name!r} lacks its shards {missing}; call RayStore.create again"
            )
        return cls(name, [shard for shard in shards if shard is not None], state.folder)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            thread_safe=True,
            async_safe=True,
            zero_copy=True,
            otlp_traces=False,
            durable=self.folder is not None,
        )

    @property
    def num_shards(self) -> int:
        return len(self._links)

    async def _reach(self, operation: str, arguments: dict[str, Any]) -> Any:
        return await self._router.ask(operation, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return RayStore, (self.name, [link.actor for link in self._links], self.folder)

    async def close(self) -> None:
        """Does nothing to the shards, which others may be using; ``destroy`` ends them."""

    async def destroy(self) -> None:
        """Ends the shards after their journals are closed; the folder can then be opened by another store.

        Raises StoreError, once all have ended, if a shard was gone or its journal could not be written.
        """
        failures = await asyncio.gather(*(link.close() for link in self._links))
        for index, link in enumerate(self._links):
            ray.kill(link.actor)
            # Ray frees names a little later; somebody else may have taken it since.
            while await asyncio.to_thread(_find, self.name, index) == link.actor:
                await asyncio.sleep(0.01)
        for failure in failures:
            if failure is not None:
                raise failure


def _started(name: str, index: int, arguments: tuple[Any, ...]) -> ActorHandle:
    """The shard of this name and index, which is started with the arguments unless it runs."""
    handle: ActorHandle = Shard.options(  # type: ignore[attr-defined]  # Ray adds it to the class
        name=_actor_name(name, index),
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=-1,
        scheduling_strategy=NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        ),
    ).remote(*arguments)
    return handle


def _find(name: str, index: int) -> ActorHandle | None:
    try:
        return ray.get_actor(_actor_name(name, index), namespace=NAMESPACE)
    except ValueError:
        return None


def _running() -> list[str]:
    """The names of the stores in this cluster."""
    actors = ray.util.list_named_actors(all_namespaces=True)
    names = [actor["name"].removeprefix("raybolt-") for actor in actors if actor["namespace"] == NAMESPACE]
    return sorted(name for name in names if _SHARD not in name)


def _actor_name(name: str, index: int) -> str:
    return f"raybolt-{name}" if index == 0 else f"raybolt-{name}{_SHARD}{index}"

"""The store in this process, in memory or in a folder."""

import os
from typing import Any, NoReturn

from .arguments import age
from .client import StoreClient
from .errors import StoreError
from .keeper import CACHE_BYTES, Keeper
from .layout import check_one_shard, checked_folder
from .room import RESERVE_BYTES, Room
from .types import Capabilities
from .unshared import unshared
from .values import checked_count


class LocalStore(StoreClient):
    """A store in this process; ``path`` names the folder that keeps it, None keeps it in memory only.

    Its methods may be awaited on any number of event loops and threads. A group's handle refers to the
    table itself. Opening a folder gives up what was in flight there: those attempts become
    ``unresponsive``, their rollouts are queued again or failed as their config says, and
    ``statistics()["lost"]`` names them. One store at a time can have a folder open; others get StoreError.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        cache_bytes: int = CACHE_BYTES,
        retention_seconds: float | None = None,
        keep_in_flight: bool = False,
        reserve_bytes: int = RESERVE_BYTES,
    ) -> None:
        """Opens or creates the store; at most ``cache_bytes`` of a folder's spans are held in memory.

        With a retention, rollouts that ended longer ago are deleted (see ``prune``), once a minute.
        Keep what is in flight if those who run it live on when this process ends: clients of a server.
        Spans raise StoreFull while the folder's disk has less than the reserve free.
        """
        if retention_seconds is not None:
            retention_seconds = age(retention_seconds, "retention_seconds")
        cache = checked_count(cache_bytes, "cache_bytes")
        reserve = checked_count(reserve_bytes, "reserve_bytes")
        self.folder = checked_folder(path) if path is not None else None
        if self.folder is not None:
            check_one_shard(self.folder)
        self._keeper = Keeper(
            self.folder,
            publish=_itself,
            keep_in_flight=keep_in_flight,
            cache_bytes=cache,
            room=Room(self.folder, reserve) if self.folder is not None else None,
            retention_seconds=retention_seconds,
        )

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            thread_safe=True,
            async_safe=True,
            zero_copy=True,
            otlp_traces=False,
            durable=self.folder is not None,
        )

    async def _reach(self, operation: str, arguments: dict[str, Any]) -> Any:
        return unshared(await self._keeper.ask(operation, arguments))

    async def close(self) -> None:
        self._keeper.close()

    def __reduce__(self) -> NoReturn:
        raise StoreError(
            "a LocalStore lives in one process; to reach it from others, serve it (raybolt.store.serve) and "
            "give them an HttpStore, or use a RayStore"
        )

    def __repr__(self) -> str:
        return f"LocalStore({str(self.folder) if self.folder is not None else None!r})"


def _itself(table: Any) -> Any:
    return table

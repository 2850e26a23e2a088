"""Sealed groups that somebody may still fetch."""

import asyncio
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any

from raybolt.store.types import GroupHandle

MAX_BYTES = 256 * 2**20
"""How much a server holds of what was sealed; what was used longest ago goes first."""

_Key = tuple[str, str]
"""A group's id and the seal: the claim of its taking or, of ``get_group``, one made up."""


@dataclass(slots=True, eq=False)
class _Block:
    handle: GroupHandle | None
    """What was sealed, until its stream is made; None if it has to be sealed again."""
    nbytes: int
    stream: "asyncio.Task[bytes] | None" = None


class Seals:
    """Keeps each group as it was sealed, until its taking is acknowledged or its room is needed.

    A group whose seal is not kept (any more) is sealed again when it is fetched, as it is then. All methods
    belong to one event loop.
    """

    def __init__(self, get_group: Callable[[str], Awaitable[GroupHandle]], *, max_bytes: int) -> None:
        self._get_group = get_group
        self._max_bytes = max_bytes
        self._kept: OrderedDict[_Key, _Block] = OrderedDict()
        self._nbytes = 0

    def keep(self, handle: GroupHandle) -> dict[str, Any]:
        """Keeps what the handle refers to; returns the handle as it travels: its fields and its seal."""
        seal = handle.claim or uuid.uuid4().hex
        self._keep((handle.group_id, seal), _Block(handle, handle.nbytes))
        known = {each.name: getattr(handle, each.name) for each in fields(handle) if each.name != "ref"}
        return {**known, "seal": seal}

    def drop(self, keys: Iterable[_Key]) -> None:
        """Forgets what nobody needs any more: takings that were acknowledged."""
        for key in keys:
            self._forget(key)

    async def stream(self, group_id: str, seal: str | None) -> bytes:
        """Returns the group as an Arrow stream; raises what ``get_group`` raises if it has to be sealed."""
        if seal is None:
            return await self._make(group_id, None)
        key = (group_id, seal)
        block = self._kept.get(key)
        if block is None:
            block = _Block(None, 0)
            self._keep(key, block)
        self._kept.move_to_end(key)
        if block.stream is None:  # those that come meanwhile wait for the same one
            block.stream = asyncio.create_task(self._make(group_id, block.handle))
            block.handle = None
        try:
            content = await asyncio.shield(block.stream)
        except Exception:
            self._forget(key)
            raise
        if self._kept.get(key) is block:
            self._nbytes += len(content) - block.nbytes
            block.nbytes = len(content)
            self._trim()
        return content

    def close(self) -> None:
        """Stops what is under way."""
        for block in self._kept.values():
            if block.stream is not None:
                block.stream.cancel()

    async def _make(self, group_id: str, handle: GroupHandle | None) -> bytes:
        content = None
        while content is None:
            handle = handle or await self._get_group(group_id)
            content = await asyncio.to_thread(_arrow_stream, handle.ref)
            handle = None
        return content

    def _keep(self, key: _Key, block: _Block) -> None:
        self._forget(key)
        self._kept[key] = block
        self._nbytes += block.nbytes
        self._trim()

    def _forget(self, key: _Key) -> None:
        block = self._kept.pop(key, None)
        if block is not None:
            self._nbytes -= block.nbytes

    def _trim(self) -> None:
        while self._nbytes > self._max_bytes:
            self._forget(next(iter(self._kept)))


def _arrow_stream(ref: Any) -> bytes | None:
    """The table that a handle refers to; None if it was lost with the shard that had sealed it."""
    import pyarrow as pa

    if not isinstance(ref, pa.Table):
        import ray

        from raybolt.store.blocks import fetch_tables

        try:
            (ref,) = fetch_tables([ref])
        except ray.exceptions.ObjectLostError:
            return None
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, ref.schema) as stream:
        stream.write_table(ref)
    content: bytes = sink.getvalue().to_pybytes()
    return content

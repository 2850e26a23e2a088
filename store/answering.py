"""A port that is closed without losing the connection that is just coming in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from aiohttp import web

_BACKLOG: Final = 128  # connections that wait to be accepted


@asynccontextmanager
async def answering(runner: web.BaseRunner, **where: Any) -> AsyncIterator[tuple[str, int]]:
    """The runner answers at `where`, arguments of `loop.create_server`, in the block; gives host and port.

    Leaving the block ends the runner: it answers what is under way for as long as its `shutdown_timeout`.

    Raises OSError for an address that cannot be had.
    """
    await runner.setup()
    assert runner.server is not None
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(runner.server, backlog=_BACKLOG, **where)
        try:
            yield server.sockets[0].getsockname()[:2]
        finally:
            # A connection whose server closes between its accept and its first step is dropped unclosed
            # (Python 3.11: Server._attach asserts). When none can follow, one turn of the loop lets it in.
            for each in server.sockets:
                loop.remove_reader(each)
            await asyncio.sleep(0)
            server.close()
    finally:
        await runner.cleanup()

"""What a folder keeps, sent as a ZIP archive of Parquet files while it is read: the server keeps no copy."""

import asyncio
import io
import logging
import threading
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any

from aiohttp import web

from raybolt.store.errors import InvalidValue, StoreError

_CHUNK_BYTES = 256 * 1024
_LOOK_SECONDS = 0.5
"""How often a writer that waits for the reader looks whether there is one."""
PATIENCE_SECONDS = 60.0
"""How long a client may take nothing; the journal's log grows while it is read."""
_log = logging.getLogger(__name__)


async def send_export(request: web.Request, folder: Path | None) -> web.StreamResponse:
    """Answers with the archive; InvalidValue for a store in memory, StoreError where there is no folder."""
    if folder is None:
        raise InvalidValue("this store is in memory only; one that a folder keeps can be exported")
    pipe = _Pipe()
    threading.Thread(target=_write, args=(folder, pipe), name="raybolt-store-export", daemon=True).start()
    try:
        chunk = await asyncio.to_thread(pipe.take)
        response = web.StreamResponse(headers={"Content-Disposition": 'attachment; filename="store.zip"'})
        response.content_type = "application/zip"
        await response.prepare(request)
        await _send(request, response, pipe, chunk)
    finally:
        pipe.abandon()
    return response


async def _send(request: web.Request, response: web.StreamResponse, pipe: "_Pipe", chunk: bytes) -> None:
    try:
        while chunk:
            await asyncio.wait_for(response.write(chunk), PATIENCE_SECONDS)
            chunk = await asyncio.to_thread(pipe.take)
        await response.write_eof()
    except Exception as error:
        # Too late for another answer: a connection that ends in the middle is how the client learns of it.
        _log.warning("An export was not sent to its end: %s", error or type(error).__name__)
        if request.transport is not None:
            request.transport.abort()


def _write(folder: Path, pipe: "_Pipe") -> None:
    from raybolt.store.parquet import export_zip

    end: bytes | Exception = b""
    try:
        with io.BufferedWriter(pipe, _CHUNK_BYTES) as sink:
            export_zip(folder, sink)
    except Exception as error:  # whatever it is, the client hears of it
        end = error
    pipe.put(end)


class _Pipe(io.RawIOBase):
    """What one thread writes and another takes, a few chunks at a time."""

    def __init__(self) -> None:
        self._chunks: Queue[bytes | Exception] = Queue(4)
        self._abandoned = False

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        """Waits for room; StoreError once nobody takes any more."""
        if not self.put(bytes(data)):
            raise StoreError("the client is gone")
        return len(data)

    def put(self, chunk: bytes | Exception) -> bool:
        """Waits for room; returns whether somebody may still take it."""
        while not self._abandoned:
            try:
                self._chunks.put(chunk, timeout=_LOOK_SECONDS)
            except Full:
                continue
            return True
        return False

    def take(self) -> bytes:
        """Waits for the next chunk, empty at the end; raises what the writer raised."""
        while not self._abandoned:
            try:
                chunk = self._chunks.get(timeout=_LOOK_SECONDS)
            except Empty:
                continue
            if isinstance(chunk, Exception):
                raise chunk
            return chunk
        return b""

    def abandon(self) -> None:
        """Says that nobody will take any more."""
        self._abandoned = True

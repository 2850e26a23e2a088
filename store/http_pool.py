"""The connections of one event loop to a store's server."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final

import aiohappyeyeballs
from yarl import URL

from .http_connection import HttpConnection, LineBroken, Response

_CONNECT_SECONDS: Final = 10.0
_NEXT_ADDRESS_SECONDS: Final = 0.25
"""When a host's next address is tried beside the first (RFC 8305)."""


class Untrusted(LineBroken):
    """The server is not the one that is meant, or cannot show it."""


class HttpPool:
    """Has as many connections as there are requests at a time. Belongs to one event loop."""

    def __init__(self, url: str, tls: ssl.SSLContext | None) -> None:
        parts = URL(url)
        assert parts.raw_host is not None
        self.authority, self.prefix = parts.raw_authority, parts.raw_path.rstrip("/")
        self._host, self._port = parts.raw_host, parts.port
        self._tls = tls
        self._open: set[HttpConnection] = set()
        self._free: dict[HttpConnection, None] = {}
        """The one that was used last comes last."""

    async def ask(self, head: bytes, body: bytes, sink: Callable[[bytes], object] | None = None) -> Response:
        """Sends a request and returns its answer; the body of one with status 200 goes to the sink, if any.

        Raises Untrusted, LineBroken, or what the sink raises.
        """
        connection = self._free.popitem()[0] if self._free else await self._connected()
        try:
            return await connection.ask(head, body, sink)
        finally:
            if connection.is_free:
                self._free[connection] = None
            else:
                connection.abort()

    async def close(self) -> None:
        """Closes all connections, whatever is under way on them."""
        self.abort()
        while self._open:
            await asyncio.sleep(0)  # they are told at the event loop's next turn

    def abort(self) -> None:
        """Closes all connections, too; they are told later."""
        for connection in self._open:
            connection.abort()

    async def _connected(self) -> HttpConnection:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                connection = await self._connect()
        except ssl.SSLError as error:
            raise Untrusted(str(error)) from None
        except (OSError, UnicodeError) as error:
            raise LineBroken(str(error) or f"no connection in {_CONNECT_SECONDS:.0f} seconds") from None
        if connection.is_free:  # the server may have hung up already
            self._open.add(connection)
        return connection

    async def _connect(self) -> HttpConnection:
        # asyncio's own way to try several addresses leaves sockets open when it is cancelled (Python 3.11).
        sock = await aiohappyeyeballs.start_connection(
            await _addresses(self._host, self._port), happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS
        )
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: HttpConnection(self._lost),
            sock=sock,
            ssl=self._tls,
            server_hostname=self._host if self._tls is not None else None,
        )
        return connection

    def _lost(self, connection: HttpConnection) -> None:
        self._open.discard(connection)
        self._free.pop(connection, None)


async def _addresses(host: str, port: int | None) -> list[Any]:
    try:
        numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=numeric)
    except socket.gaierror:  # it is a name, which a thread has to ask for
        return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)

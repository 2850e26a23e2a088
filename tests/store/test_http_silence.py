"""A server that says nothing: the connection to it may be dead, and the server well."""

import asyncio

from raybolt.store import HttpStore, http_connection

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{"well": 1}'


async def test_a_request_on_a_dead_connection_is_repeated_on_another(monkeypatch):
    monkeypatch.setattr(http_connection, "_SILENCE_SECONDS", 0.6)
    monkeypatch.setattr(http_connection, "_IDLE_SECONDS", 0.2)
    num_connections = 0

    async def hear(reader, writer):
        nonlocal num_connections
        num_connections += 1
        first = num_connections == 1
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                if not first:
                    writer.write(ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(hear, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    # It is given up after 0.6 seconds, which is longer than it may be asked again without a connection.
    async with server, HttpStore(f"http://127.0.0.1:{port}", retry_seconds=0.5) as store:
        assert (await store.statistics())["well"] == 1
        assert num_connections == 2

"""Ports that servers answer at, and how they are closed."""

import asyncio
import gc
import socket

import pytest
from aiohttp import web

from raybolt.store.answering import answering


def a_server() -> web.ServerRunner:
    async def hello(request: web.BaseRequest) -> web.Response:
        return web.Response(text="hello")

    return web.ServerRunner(web.Server(hello), shutdown_timeout=1.0)


async def test_what_comes_in_while_the_port_closes_is_closed_not_dropped():
    loop = asyncio.get_running_loop()
    over = asyncio.Event()

    async def serve() -> None:
        async with answering(a_server(), host="127.0.0.1", port=0) as (host, port):
            caller.connect((host, port))
            # In one turn of the loop the server is told to end, then the connection is accepted.
            loop.call_soon(over.set)
            await over.wait()

    with socket.socket() as caller:
        await serve()
        # Left to the garbage collector, its transport and socket would warn here, which fails tests.
        gc.collect()
        caller.settimeout(60)
        assert caller.recv(1) == b""


async def test_a_port_that_is_taken_is_an_error_and_leaves_nothing_open():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        runner = a_server()
        with pytest.raises(OSError, match="in use"):
            async with answering(runner, host="127.0.0.1", port=taken.getsockname()[1]):
                pass
        assert runner.server is None


async def test_the_port_is_free_after_the_block():
    async with answering(a_server(), host="127.0.0.1", port=0) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).endswith(b"hello")
        writer.close()
        await writer.wait_closed()
    socket.create_server((host, port)).close()

"""``serve``: a store on an address, in a thread of this process."""

import asyncio
import errno
import ipaddress
import os
import socket
import ssl
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Self

from aiohttp import web

from raybolt.store.answering import answering
from raybolt.store.client import StoreClient
from raybolt.store.errors import InvalidValue, StoreError
from raybolt.store.values import checked_count

from .app import make_app

DEFAULT_PORT = 4747
MAX_BODY_BYTES = 64 * 2**20
"""Largest body of a request unless told otherwise."""
_MOST_BODY_BYTES = 2**28
"""What no limit may exceed: bodies are held in memory, and so is what is made of them."""
_IDLE_SECONDS = 75.0
"""How long a connection is kept that asks for nothing."""
_SHUTDOWN_SECONDS = 0.5
"""How long requests may go on when the server is closed; and then, how long those that were cut may still."""


def serve(
    store: StoreClient,
    *,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    tokens: Sequence[str] = (),
    cert: str | os.PathLike[str] | None = None,
    key: str | os.PathLike[str] | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
) -> "StoreServer":
    """Serves the store until the returned server is closed; port 0 is any free one.

    Without tokens only this machine can be served. ``cert`` and ``key`` are PEM files, for TLS. The store
    stays open when the server is closed.

    Raises InvalidValue for a combination that would be open to the world, or a certificate that cannot be
    read; StoreError if the address is taken.
    """
    if not isinstance(store, StoreClient):
        raise InvalidValue(f"store is {store!r}; give a store, such as LocalStore(path)")
    if not isinstance(port, int) or not 0 <= port < 2**16:
        raise InvalidValue(f"port is {port!r}; give a number below 65536, or 0 for any free one")
    if isinstance(tokens, str):
        raise InvalidValue("tokens is a string; give a list of them")
    if not tokens and not _is_loopback(host):
        raise InvalidValue(f"host is {host!r} and there are no tokens; give a token, or serve 127.0.0.1")
    if any(not token or not token.isascii() or token.split() != [token] for token in tokens):
        raise InvalidValue("a token is empty, or has spaces or signs beyond ASCII; give another")
    max_body_bytes = checked_count(max_body_bytes, "max_body_bytes", least=1)
    if max_body_bytes > _MOST_BODY_BYTES:
        raise InvalidValue(f"max_body_bytes is {max_body_bytes}; give {_MOST_BODY_BYTES} or less")
    return StoreServer(store, host, port, tokens, _tls(cert, key), max_body_bytes)


class StoreServer:
    """A running server: its ``url``, and ``close``. Use it as a context manager, or call ``serve``."""

    url: str

    def __init__(
        self,
        store: StoreClient,
        host: str,
        port: int,
        tokens: Sequence[str],
        tls: ssl.SSLContext | None,
        max_body_bytes: int,
    ) -> None:
        self._app = make_app(store, tokens=tokens, max_body_bytes=max_body_bytes)
        self._loop = asyncio.new_event_loop()
        self._closing: asyncio.Event = asyncio.Event()
        self._over = threading.Event()
        """What is waited for: a `join` that Ctrl-C interrupts takes its thread for ended (Python 3.11)."""
        started: Future[int] = Future()
        self._thread = threading.Thread(
            target=self._serve, args=(host, port, tls, started), name="raybolt-store-server", daemon=True
        )
        self._thread.start()
        try:
            real_port = started.result()
        except OSError as error:
            self._thread.join()
            raise _unserved(host, port, error) from error
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{'https' if tls else 'http'}://{shown}:{real_port}"

    def wait(self) -> None:
        """Returns when the server was closed."""
        while not self._over.wait(1.0):  # with a timeout, so that Ctrl-C is heard
            pass

    def close(self) -> None:
        """Answers what is under way, for a second at most, and stops; closing twice does nothing."""
        with suppress(RuntimeError):  # its event loop was closed
            self._loop.call_soon_threadsafe(self._closing.set)
        self._over.wait()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self, host: str, port: int, tls: ssl.SSLContext | None, started: "Future[int]") -> None:
        try:
            self._loop.run_until_complete(self._run(host, port, tls, started))
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)
        finally:
            self._loop.close()
            self._over.set()

    async def _run(self, host: str, port: int, tls: ssl.SSLContext | None, started: "Future[int]") -> None:
        runner = web.AppRunner(
            self._app,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=_IDLE_SECONDS,
            shutdown_timeout=_SHUTDOWN_SECONDS,
        )
        async with answering(runner, host=host, port=port, ssl=tls) as (_, real_port):
            started.set_result(real_port)
            await self._closing.wait()
        if rest := asyncio.all_tasks() - {asyncio.current_task()}:  # cut, but they have yet to hear of it
            await asyncio.wait(rest, timeout=_SHUTDOWN_SECONDS)


def _unserved(host: str, port: int, error: OSError) -> StoreError:
    if isinstance(error, socket.gaierror):
        return StoreError(f"cannot serve {host!r}: {error.strerror}; give a name or address of this machine")
    remedy = (
        "another port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "an address of this machine"
    )
    return StoreError(f"cannot serve {host}:{port}: {error.strerror}; give {remedy}")


def _no_passphrase() -> str:
    raise InvalidValue("the key has a passphrase; give one without, such as `openssl pkey` writes")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _tls(cert: str | os.PathLike[str] | None, key: str | os.PathLike[str] | None) -> ssl.SSLContext | None:
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise InvalidValue("one of cert and key is missing; TLS needs both")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key, _no_passphrase)
    except (OSError, ssl.SSLError) as error:
        raise InvalidValue(f"cert {cert} and key {key} cannot be used: {error}") from None
    return context

"""The endpoint itself: one server a process, started by the first run that needs it, gone after the last.

It lives in a thread and event loop of its own, so a blocking agent or a busy engine does not hold up its
answers, and it can be reached while the run's own loop waits.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import quote

from aiohttp import ClientSession, ClientTimeout, web

from raybolt.adapters.command.agents import Address
from raybolt.adapters.endpoint import llm, reports
from raybolt.adapters.endpoint.errors import Refused, openai_errors
from raybolt.adapters.endpoint.offers import Offers
from raybolt.adapters.endpoint.relay import Relay, UpstreamFailed
from raybolt.adapters.endpoint.served import ServedRun
from raybolt.adapters.endpoint.upstream import Upstream
from raybolt.store.answering import answering
from raybolt.store.errors import InvalidValue

T = TypeVar("T")

_MAX_BODY = 64 * 2**20  # bytes
_MAX_POLL_SECONDS = 60.0
_SHUTDOWN_SECONDS = 0.2  # for requests that are under way when the last run ends
_RUN = "/rollout/{rollout}/attempt/{attempt}"
_AGENT = _RUN + "/agent/{role}/v1"

_OfRun = Callable[[web.Request, ServedRun], Awaitable[web.StreamResponse]]


class EndpointServer:
    """Serves runs until `stop`; each is found under its path and opened by its own key."""

    def __init__(self, address: Address) -> None:
        """A server that listens already.

        Raises:
            InvalidValue: none of the ports is free, or the host is not this machine's.
        """
        self._address = address
        self._runs: dict[tuple[str, str], ServedRun] = {}
        self._socket = _listening(address)
        self.port: int = self._socket.getsockname()[1]
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._work, name="raybolt-endpoint", daemon=True)
        self._thread.start()
        self._ready.result()

    @property
    def url(self) -> str:
        """The address under which agents reach it."""
        return f"http://{self._address.public_host or self._address.host}:{self.port}"

    def add(self, run: ServedRun) -> None:
        """Serves the run from now on.

        Raises:
            InvalidValue: another run of the same ids is served already.
        """
        if run.ids in self._runs:
            raise InvalidValue(
                f"rollout {run.ids[0]!r}, attempt {run.ids[1]!r} is being served already; runs at once "
                "need ids of their own"
            )
        self._runs[run.ids] = run

    def remove(self, run: ServedRun) -> None:
        """Knows the run no more."""
        del self._runs[run.ids]

    @contextmanager
    def offering(self, run: ServedRun, token: str) -> Iterator[None]:
        """Inside the block, the run is on offer to processes of the user who show the token."""
        self._await(self._offers.add(run, token))
        try:
            yield
        finally:
            self._await(self._offers.withdraw(run, token))

    def stop(self) -> None:
        """Closes the port and everything that is under way."""
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def _await(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    # In the server's thread

    def _work(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self._offers = Offers()
        app = web.Application(middlewares=[openai_errors], client_max_size=_MAX_BODY)
        app.add_routes(self._routes())
        # With handler_cancellation, an agent that hangs up withdraws its call.
        runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS
        )
        async with (
            ClientSession(timeout=ClientTimeout(total=None), trust_env=True) as self._session,
            answering(runner, sock=self._socket),
        ):
            self._ready.set_result(None)
            await self._over.wait()

    def _routes(self) -> list[web.RouteDef]:
        return [
            web.post(f"{_AGENT}/chat/completions", self._of_run(self._chat)),
            web.post(f"{_AGENT}/responses", self._of_run(self._responses)),
            web.get(f"{_AGENT}/models", self._of_run(self._models)),
            web.get(f"{_AGENT}/models/{{model}}", self._of_run(self._models)),
            web.route("*", f"{_AGENT}/{{operation:.+}}", self._of_run(self._anything_else)),
            web.post(f"{_RUN}/spans", self._of_run(reports.add_span)),
            web.post(f"{_RUN}/spans/{{span}}/end", self._of_run(reports.end_span)),
            web.post(f"{_RUN}/tools", self._of_run(reports.recorded_tool)),
            web.post(f"{_RUN}/result", self._of_run(reports.take_result)),
            web.get("/task", self._task),
        ]

    def _of_run(self, handler: _OfRun) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """The handler, for requests that show the key of the run they name."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            ids = request.match_info["rollout"], request.match_info["attempt"]
            run = self._runs.get(ids)
            if run is None:
                raise Refused(
                    404, f"no run {'/'.join(ids)} is on; it has ended, or never was", "raybolt_no_run"
                )
            if not hmac.compare_digest(_bearer(request).encode(), run.key.encode()):
                raise Refused(
                    401, "the key is not this run's; use the one in OPENAI_API_KEY", "invalid_api_key"
                )
            return await handler(request, run)

        return guarded

    async def _chat(self, request: web.Request, run: ServedRun) -> web.StreamResponse:
        return await llm.answer(request, run, "chat/completions", self._session)

    async def _responses(self, request: web.Request, run: ServedRun) -> web.StreamResponse:
        return await llm.answer(request, run, "responses", self._session)

    async def _models(self, request: web.Request, run: ServedRun) -> web.StreamResponse:
        return llm.models(request)

    async def _anything_else(self, request: web.Request, run: ServedRun) -> web.StreamResponse:
        """Embeddings and such, which are the user's own server's, if there is one."""
        operation = request.match_info["operation"]
        upstream = run.upstream or run.natural or Upstream.of_user()
        if upstream is None:
            raise Refused(
                404,
                f"{operation} is nothing that a policy answers; it does /chat/completions, /responses and "
                "/models. For the rest, set OPENAI_API_KEY (and OPENAI_BASE_URL) where the run is served",
            )
        relay = Relay(request, self._session, upstream, operation)
        try:
            await relay.send(await request.read())
        except UpstreamFailed as error:
            if relay.started is None:
                raise Refused(502, f"{upstream.base_url}: {error}", may_pass=True) from error
        await relay.finish()
        return relay.response

    async def _task(self, request: web.Request) -> web.StreamResponse:
        """The next run for a process of the user; 204 if none comes within `?wait=SECONDS`."""
        token = _bearer(request)
        if not self._offers.knows(token):
            raise Refused(401, "the token is not that of any agent on offer here", "invalid_api_key")
        try:
            seconds = min(float(request.query.get("wait", 0)), _MAX_POLL_SECONDS)
        except ValueError:
            raise Refused(400, f"wait is {request.query['wait']!r}; expected seconds") from None
        run = await self._offers.take(token, seconds)
        if run is None:
            return web.Response(status=204)
        return web.json_response(self.description(run))

    def description(self, run: ServedRun) -> dict[str, Any]:
        """What an agent needs to work on the run."""
        run_url = self.url + run.path
        base_url = f"{run_url}/agent/{quote(run.role, safe='')}/v1"
        told = {"task": run.wire_task(), "base_url": base_url, "api_key": run.key, "run_url": run_url}
        return told if run.tools is None else {**told, "replayed": True}


def _bearer(request: web.Request) -> str:
    """The key that the request shows; empty if none."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _listening(address: Address) -> socket.socket:
    errors = []
    for port in address.ports:
        try:
            return socket.create_server((address.host, port), backlog=512)
        except OSError as error:
            errors.append(f"{port}: {os.strerror(error.errno or 0)}")
    raise InvalidValue(
        f"raybolt's endpoint cannot listen on {address.host} ({'; '.join(errors)}); give free ports, one for "
        "each runner of a machine"
    )


_servers: dict[Address, tuple[EndpointServer, int]] = {}
_lock = threading.Lock()


@contextmanager
def serving(run: ServedRun, address: Address) -> Iterator[EndpointServer]:
    """The run is served inside the block, by the process's server for that address.

    Raises:
        InvalidValue: the address cannot be listened on, or another run of the same ids is being served.
    """
    with _lock:
        server, num_runs = _servers.get(address) or (EndpointServer(address), 0)
        _servers[address] = server, num_runs + 1
    try:
        server.add(run)
        try:
            yield server
        finally:
            server.remove(run)
    finally:
        _let_go(address)


def _let_go(address: Address) -> None:
    with _lock:
        server, num_runs = _servers[address]
        _servers[address] = server, num_runs - 1
        if num_runs == 1:
            del _servers[address]
            server.stop()

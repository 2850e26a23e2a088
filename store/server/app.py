"""The server's routes over one store."""

import hmac
from collections.abc import Sequence
from functools import partial
from typing import Any

from aiohttp import web

from raybolt.store.client import StoreClient
from raybolt.store.errors import InvalidValue
from raybolt.store.paths import id_of_segment
from raybolt.store.routes import (
    ARROW_TYPE,
    BLOCK_PATH,
    CAPABILITIES_PATH,
    EXPORT_PATH,
    MAX_WAIT_SECONDS,
    ROUTES,
    SEARCH,
    TRACES_PATH,
    Route,
)
from raybolt.store.types import GroupHandle
from raybolt.store.wire import checked_text, dump

from . import seals
from .asking import ArgumentReader, RowReader, answered
from .bodies import reply
from .export import send_export
from .openapi import docs_page, document
from .otlp import TraceReceiver
from .pages import page_of
from .problems import Handler, HttpProblem, answer_to
from .repeats import MAX_BYTES, Repeats
from .seals import Seals

_OPEN_PATHS = frozenset({"/", "/docs", "/openapi.json", "/healthz"})
"""What needs no token: it says nothing of what the store holds."""

_WRONG_TOKEN = (
    "the token is missing or wrong; give it by --token, RAYBOLT_STORE_TOKEN or HttpStore(token=…), or send "
    "Authorization: Bearer TOKEN"
)


def make_app(store: StoreClient, *, tokens: Sequence[str], max_body_bytes: int) -> web.Application:
    """Returns the application; every path but the description's own needs one of the tokens, if any."""
    app = web.Application(middlewares=[_around_handlers(tokens, max_body_bytes)])
    server = _Handlers(store, max_body_bytes)
    app.on_cleanup.append(server.close)
    for route in ROUTES:
        app.router.add_route(route.method, _pattern(route.path), server.handler(route))
        if route.search:
            app.router.add_post(_pattern(route.path) + SEARCH, server.handler(route))
    app.router.add_get(_pattern(BLOCK_PATH), server.block)
    app.router.add_get(CAPABILITIES_PATH, server.capabilities)
    app.router.add_get(EXPORT_PATH, server.export)
    app.router.add_post(TRACES_PATH, TraceReceiver(store, max_body_bytes).receive)
    app.router.add_get("/openapi.json", server.openapi)
    app.router.add_get("/docs", server.docs)
    app.router.add_get("/", server.docs)
    app.router.add_get("/healthz", server.health)
    return app


class _Handlers:
    def __init__(self, store: StoreClient, max_body_bytes: int) -> None:
        self._store = store
        self._seals = Seals(store.get_group, max_bytes=seals.MAX_BYTES)
        self._max_body_bytes = max_body_bytes

    def handler(self, route: Route) -> Handler:
        limit = self._max_body_bytes
        reader = RowReader(limit) if route.operation == "add_rows" else ArgumentReader(route, limit)

        async def handle(request: web.Request) -> web.StreamResponse:
            arguments = await reader.read(request)
            if route.waits:
                timeout = arguments["timeout"]
                arguments["timeout"] = min(MAX_WAIT_SECONDS if timeout is None else timeout, MAX_WAIT_SECONDS)
            if route.page is not None:
                return await page_of(partial(self._asked, route.operation), route, request, arguments)
            answer = await self._store._ask(route.operation, **arguments)
            if route.gives is GroupHandle:
                answer = self._seals.keep(answer)
            elif route.gives == list[GroupHandle]:
                answer = [self._seals.keep(handle) for handle in answer]
            elif route.operation == "acknowledge_groups":
                self._seals.drop(arguments["claims"])
            return answered(route, request, answer)

        return handle

    async def _asked(self, operation: str, arguments: dict[str, Any]) -> list[Any]:
        found: list[Any] = await self._store._ask(operation, **arguments)
        return found

    async def block(self, request: web.Request) -> web.StreamResponse:
        """A group's table as an Arrow stream: as it was sealed or, without a seal, as it is now."""
        group_id = checked_text(id_of_segment(request.match_info["group_id"], "group_id"), "group_id")
        content = await self._seals.stream(group_id, request.query.get("seal"))
        return reply(request, content, ARROW_TYPE)

    async def close(self, app: web.Application) -> None:
        """Stops what nobody waits for any more."""
        self._seals.close()

    async def capabilities(self, request: web.Request) -> web.StreamResponse:
        """What a client of this server can do."""
        durable = self._store.capabilities["durable"]
        return reply(request, dump({"durable": durable, "zero_copy": False, "otlp_traces": True}))

    async def export(self, request: web.Request) -> web.StreamResponse:
        """All that the store's folder keeps."""
        return await send_export(request, self._store.folder)

    async def openapi(self, request: web.Request) -> web.StreamResponse:
        return reply(request, dump(document()))

    async def docs(self, request: web.Request) -> web.StreamResponse:
        return reply(request, docs_page().encode(), "text/html")

    async def health(self, request: web.Request) -> web.StreamResponse:
        return reply(request, b'{"status":"ok"}')


def _around_handlers(tokens: Sequence[str], max_body_bytes: int) -> Any:
    """What every request goes through, in one piece: each piece has its price."""
    expected = [token.encode() for token in tokens]
    repeats = Repeats(MAX_BYTES, max_body_bytes)

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if expected and request.path not in _OPEN_PATHS:
                _check_token(request, expected)
            return await repeats.answer(request, handler)
        except Exception as error:
            return answer_to(error, request)

    return answer


def _check_token(request: web.Request, expected: Sequence[bytes]) -> None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    given = token.strip().encode(errors="replace")
    matches = [hmac.compare_digest(given, each) for each in expected]
    if scheme.lower() != "bearer" or not any(matches):
        raise HttpProblem(401, InvalidValue(_WRONG_TOKEN))


def _pattern(path: str) -> str:
    """The path as aiohttp's router takes it, with ids in which anything may stand."""
    return path.replace("}", ":[^/]*}")

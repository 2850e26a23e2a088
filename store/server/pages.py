"""Answers that come in pages: as many items as the route allows, but no more bytes than a page may have."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from aiohttp import web

from raybolt.store.routes import Route
from raybolt.store.row_frames import ROWS_TYPE, pack_rows, span_fields
from raybolt.store.rows import SpanRow

from .bodies import accepts, reply
from .json_answers import encoder_for

PAGE_BYTES = 16 * 2**20
"""How long a page may be. One item may be longer, and then has a page of its own."""
_STEP = 1000
"""Items asked for at a time, as the store gives them before their bytes can be counted."""
_ROW_BYTES = 300
"""Of a row, beside its attributes, events and arrays."""

T = TypeVar("T")
Ask = Callable[[dict[str, Any]], Awaitable[list[Any]]]
Measured = Callable[[Any], tuple[T, int]]
"""Makes of an item what is sent of it, and tells how many bytes that has."""


async def page_of(ask: Ask, route: Route, request: web.Request, arguments: dict[str, Any]) -> web.Response:
    """Returns the page that begins at the arguments' offset: JSON, or packed spans for who takes them so."""
    if route.operation == "rows" and accepts(request, ROWS_TYPE):
        rows, following = await _items(ask, route, arguments, _measured_row)
        return reply(request, pack_rows(rows, following), ROWS_TYPE)
    dump = encoder_for(request)

    def measured(item: Any) -> tuple[bytes, int]:
        text = dump(span_fields(item) if route.operation == "rows" else item)
        return text, len(text)

    texts, following = await _items(ask, route, arguments, measured)
    return reply(request, b'{"items":[%b],"next_offset":%b}' % (b",".join(texts), dump(following)))


async def _items(
    ask: Ask, route: Route, arguments: dict[str, Any], measured: Measured[T]
) -> tuple[list[T], int | None]:
    """The page's items, and the offset of the next page; None if there is none, or nobody wants it."""
    assert route.page is not None
    wanted, offset = arguments["limit"], arguments["offset"]
    if wanted < -1:
        return await ask(arguments), None  # which refuses it
    most = route.page if wanted < 0 else min(wanted, route.page)
    found: list[T] = []
    num_bytes = 0
    while True:
        step = min(most - len(found), _STEP)
        part = await ask({**arguments, "limit": step, "offset": offset + len(found)})
        for item in part:
            sent, size = measured(item)
            num_bytes += size
            if found and num_bytes > PAGE_BYTES:
                return found, offset + len(found)
            found.append(sent)
        if len(part) < step or len(found) == wanted:
            return found, None
        if len(found) == most:
            return found, offset + most


def _measured_row(row: SpanRow) -> tuple[SpanRow, int]:
    return row, len(row.attributes) + len(row.events) + len(row.arrays) + _ROW_BYTES

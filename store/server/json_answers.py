"""Answers as JSON, and as what comes close to it for those who say that they read that."""

from collections.abc import Callable
from typing import Any

from aiohttp import web

from raybolt.store.routes import JSON_WITH_NAN
from raybolt.store.wire import dump, dump_strict


def encoder_for(request: web.Request) -> Callable[[Any], bytes]:
    """Returns ``dump`` for who reads NaN as Python writes it, else ``dump_strict``."""
    return dump if JSON_WITH_NAN in request.headers.get("Accept", "") else dump_strict

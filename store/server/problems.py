"""What goes wrong with a request, as status and JSON."""

import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from raybolt.store.errors import (
    InvalidTransition,
    InvalidValue,
    RayboltError,
    StoreError,
    StoreFull,
    UnknownAttempt,
    UnknownGroup,
    UnknownResources,
    UnknownRollout,
)
from raybolt.store.wire import dump, error_fields

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_STATUS = {
    InvalidValue: 400,
    UnknownRollout: 404,
    UnknownAttempt: 404,
    UnknownGroup: 404,
    UnknownResources: 404,
    InvalidTransition: 409,
}
RETRY_SECONDS = 2
"""When to send again what a full store refused. Exporters heed it, and by default give up after 10 s."""
_log = logging.getLogger(__name__)


class HttpProblem(Exception):
    """A request that no store would see: too large, not allowed, in a form that nobody reads."""

    def __init__(self, status: int, error: RayboltError) -> None:
        super().__init__(str(error))
        self.status = status
        self.error = error


def status_and_error(error: Exception) -> tuple[int, RayboltError] | None:
    """Returns how a client is told of the error; None for one that nobody foresaw."""
    if isinstance(error, HttpProblem):
        return error.status, error.error
    if isinstance(error, RayboltError):
        return _STATUS.get(type(error), 503), error
    if isinstance(error, RecursionError):
        return 400, InvalidValue("the request is nested too deeply")
    if isinstance(error, web.HTTPException) and error.status >= 400:
        return error.status, InvalidValue(f"{error.reason}; /docs lists what there is")
    return None


def headers_of(status: int, error: RayboltError) -> dict[str, str]:
    """Returns the headers that say what to do about the error."""
    if status == 401:
        return {"WWW-Authenticate": "Bearer"}
    return {"Retry-After": str(RETRY_SECONDS)} if isinstance(error, StoreFull) else {}


def answer_to(error: Exception, request: web.Request) -> web.Response:
    """Returns the error as JSON, with the type it has in process."""
    known = status_and_error(error)
    if known is None:
        _log.error("%s %s failed", request.method, request.path, exc_info=error)
        known = 500, StoreError(f"the server failed with {type(error).__name__}; its log says where")
    status, reason = known
    return web.Response(
        status=status,
        body=dump(error_fields(reason)),
        content_type="application/json",
        headers=headers_of(status, reason),
    )

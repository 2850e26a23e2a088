"""Refusals in the form that OpenAI's clients understand."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web

from raybolt.adapters.openai_python.wire import error_body
from raybolt.env.policy import PolicyAbort
from raybolt.store.errors import InvalidValue

_log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# A client would try again for minutes what nothing can mend: OpenAI's clients obey this header.
_FINAL = {"x-should-retry": "false"}
_ABORT_STATUS = {"engine": 503, "policy": 502}
_KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}


class Refused(Exception):
    """The request gets no answer but this one."""

    def __init__(self, status: int, message: str, code: str | None = None, *, may_pass: bool = False) -> None:
        super().__init__(message)
        self.response = refusal(status, message, code, may_pass=may_pass)


def refusal(status: int, message: str, code: str | None = None, *, may_pass: bool = False) -> web.Response:
    """An error response; clients do not send the request again, unless the trouble `may_pass`."""
    kind = _KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    body: Any = error_body(message, kind=kind, code=code)
    return web.json_response(body, status=status, headers=None if may_pass else _FINAL)


@web.middleware
async def openai_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns whatever a handler raises into an OpenAI-shaped response."""
    try:
        return await handler(request)
    except Refused as refused:
        return refused.response
    except InvalidValue as error:
        return refusal(400, str(error))
    except PolicyAbort as abort:
        return refusal(_ABORT_STATUS.get(abort.origin, 403), abort.reason, f"raybolt_{abort.origin}")
    except web.HTTPException as error:
        return refusal(error.status, _http_reason(error, request))
    except Exception as error:  # a bug of ours: the agent gets an answer, the log the traceback
        _log.exception("raybolt's endpoint broke on %s %s", request.method, request.path)
        return refusal(500, f"raybolt's endpoint broke: {type(error).__name__}: {error}")


def _http_reason(error: web.HTTPException, request: web.Request) -> str:
    if error.status == 404:
        return (
            f"there is nothing at {request.path}; a run is served at "
            "/rollout/{id}/attempt/{id}/agent/{name}/v1, with /chat/completions, /responses and /models"
        )
    if error.status == 405:
        return f"{request.method} is not possible at {request.path}"
    if error.status == 413:
        return f"the request is too large: {error.text or HTTPStatus(413).phrase}"
    return error.text or error.reason

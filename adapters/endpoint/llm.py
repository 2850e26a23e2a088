"""The operations of OpenAI's API: chat completions, responses, models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import ClientSession, web

from raybolt.adapters.capture import own_call
from raybolt.adapters.endpoint.errors import Refused
from raybolt.adapters.endpoint.relay import Relay, UpstreamFailed
from raybolt.adapters.endpoint.served import ServedRun
from raybolt.adapters.endpoint.upstream import Upstream
from raybolt.adapters.openai_python.exchange import Exchange, exchange_of
from raybolt.adapters.openai_python.replies import body_from_events

ROLE_HEADER = "X-Raybolt-Role"
"""Names the role of one call, for several agents in one process."""
SPAN_HEADER = "X-Raybolt-Span"
"""The span, begun from outside, that the call belongs to."""
UPSTREAM_HEADER = "X-Raybolt-Upstream"
"""Where the call was meant to go before `hook/sitecustomize.py` turned it this way."""
UPSTREAM_KEY_HEADER = "X-Raybolt-Upstream-Authorization"
MODEL = "raybolt"
"""The one model there is; requests may name any other."""


async def json_object(request: web.Request) -> dict[str, Any]:
    """The request's body. Raises `Refused` unless it is a JSON object."""
    try:
        body = json.loads(await request.read())
    except ValueError as error:
        raise Refused(400, f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise Refused(400, f"the body is a JSON {type(body).__name__}; expected an object")
    return body


async def answer(
    request: web.Request, run: ServedRun, operation: str, session: ClientSession
) -> web.StreamResponse:
    """The policy's answer to a chat request, or that of the agent's own model."""
    body = await json_object(request)
    role = request.headers.get(ROLE_HEADER) or request.match_info["role"]
    try:
        exchange = exchange_of(body, role=role, memory=run.responses)
    except (AttributeError, KeyError, TypeError) as error:  # fields of other types than the API has
        raise Refused(400, f"the body is no request for {operation}: {error!r}") from error
    if exchange is None:
        needed = "messages" if operation == "chat/completions" else "input"
        raise Refused(400, f"the body has no 'model' or no {needed!r}, so it is no request for {operation}")
    with run.entered(role, request.headers.get(SPAN_HEADER)):
        upstream = _upstream(request.headers, run)
        if upstream is not None and not run.policy.takes(exchange.request):
            return await _answered_by_own_model(Relay(request, session, upstream, operation), run, exchange)
        if exchange.refusal is not None:
            raise Refused(400, exchange.refusal)
        completion = await run.policy.complete(exchange.request)
    if not exchange.streams:
        return web.json_response(exchange.answer(completion))
    events = b"".join(exchange.events(completion))
    return web.Response(body=events, headers={"content-type": "text/event-stream"})


def models(request: web.Request) -> web.Response:
    """The list of models, or the one that the path names."""
    name = request.match_info.get("model", MODEL)
    model = {"id": name, "object": "model", "created": 0, "owned_by": "raybolt"}
    if "model" in request.match_info:
        return web.json_response(model)
    return web.json_response({"object": "list", "data": [model]})


def _upstream(headers: Mapping[str, str], run: ServedRun) -> Upstream | None:
    """What the user gave for such calls, else where the agent itself wanted this one to go."""
    if run.upstream is not None:
        return run.upstream
    if UPSTREAM_HEADER not in headers:
        return run.natural
    key = headers.get(UPSTREAM_KEY_HEADER, "").removeprefix("Bearer ")
    return Upstream(headers[UPSTREAM_HEADER], key or None)


async def _answered_by_own_model(relay: Relay, run: ServedRun, exchange: Exchange) -> web.StreamResponse:
    """The other server's response, handed on as it comes; the call's span keeps what it said."""
    try:
        with own_call(run.policy, exchange.request) as seen:
            content = await relay.send(relay.upstream.payload(exchange.body))
            reply = exchange.own_reply(body_from_events(content) if relay.is_stream else json.loads(content))
            if reply is not None:
                reply.tell(seen)
    except (UpstreamFailed, ValueError) as error:
        if relay.started is None:
            raise Refused(502, f"{relay.upstream.base_url}: {error}", may_pass=True) from error
    await relay.finish()
    return relay.response

"""What an agent elsewhere reports of itself: spans, rewards, its result."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from raybolt.adapters.endpoint.errors import Refused
from raybolt.adapters.endpoint.llm import ROLE_HEADER, json_object
from raybolt.adapters.endpoint.served import ServedRun
from raybolt.env.outside import plain
from raybolt.env.outside_tools import wire_answer
from raybolt.env.recorder import OpenSpan
from raybolt.env.rewards import as_reward
from raybolt.env.trajectory import EMITTED_REWARD
from raybolt.store import names
from raybolt.store.errors import InvalidValue, RayboltError
from raybolt.store.types import SpanEvent

_SPAN_FIELDS = {
    "name": str,
    "span_id": str,
    "parent_id": str,
    "attributes": dict,
    "reward": object,
    "rejected": str,
    "open": bool,
    "status": str,
    "message": str,
    "events": list,
}


class AgentFailed(RayboltError):
    """The agent's process reported that it failed; the message is what it said."""


async def add_span(request: web.Request, run: ServedRun) -> web.Response:
    """Records a span, begins one (`"open": true`), or takes a reward. Answers with the span's id."""
    body = await _fields(request)
    if "rejected" in body:
        run.context.run.reject_reward(body["rejected"])
        return web.json_response({"span_id": None})
    span = _begun(body, run, role=request.headers.get(ROLE_HEADER) or run.role)
    if not body.get("open"):
        _end(span, body, run)
    return web.json_response({"span_id": body.get("span_id", span.span_id)})


async def end_span(request: web.Request, run: ServedRun) -> web.Response:
    """Ends a span that was begun from outside."""
    span_id = request.match_info["span"]
    if span_id not in run.spans:
        raise Refused(404, f"no span {span_id!r} was begun in this run")
    _end(run.spans[span_id], await _fields(request), run)
    return web.json_response({"span_id": span_id})


async def recorded_tool(request: web.Request, run: ServedRun) -> web.Response:
    """In a replay what a tool gave then; `{"answer": null}` says to run it."""
    body = await json_object(request)
    name, call_id = body.get("name"), body.get("call_id")
    if not isinstance(name, str) or not (call_id is None or isinstance(call_id, str)):
        raise Refused(400, 'expected {"name": "…", "arguments": …}, and "call_id": "…" if there is one')
    answer = None if run.tools is None else run.tools.take(name, body.get("arguments"), call_id)
    told = {"answer": None if answer is None else wire_answer(answer)}
    return web.Response(text=json.dumps(told, default=plain), content_type="application/json")


async def take_result(request: web.Request, run: ServedRun) -> web.Response:
    """Ends the run of an agent that the user started: `{"result": …}` or `{"error": "…"}`."""
    body = await json_object(request)
    if ("result" in body) == ("error" in body):
        raise Refused(400, 'expected {"result": …} or {"error": "…"}')
    if run.outcome.done():
        raise Refused(409, "the run has its result already")
    if "error" in body:
        run.outcome.set_exception(AgentFailed(str(body["error"])))
    else:
        run.outcome.set_result(body["result"])
    return web.json_response({})


async def _fields(request: web.Request) -> dict[str, Any]:
    body = await json_object(request)
    for name, value in body.items():
        if name not in _SPAN_FIELDS:
            raise Refused(400, f"unknown field {name!r}; a span has {', '.join(_SPAN_FIELDS)}")
        if not isinstance(value, _SPAN_FIELDS[name]):
            raise Refused(400, f"{name} is {value!r:.100}; expected {_SPAN_FIELDS[name].__name__}")
    if not all(isinstance(event, dict) for event in body.get("events", ())):
        raise Refused(400, f"events is {body['events']!r:.100}; expected objects")
    return body


def _begun(body: dict[str, Any], run: ServedRun, *, role: str) -> OpenSpan:
    attributes = {names.KIND: "emit", names.AGENT_NAME: role, **body.get("attributes", {})}
    if "reward" in body:
        attributes |= {names.KIND: EMITTED_REWARD, names.REWARD: _reward(body["reward"], run)}
    name = body.get("name") or ("reward" if "reward" in body else None)
    if name is None:
        raise Refused(400, "the span has no name")
    parent = run.spans.get(body.get("parent_id", ""))
    parent_id = parent.span_id if parent is not None else run.context.span_id
    span = run.context.run.recorder.begin(name, parent_id=parent_id, attributes=attributes)
    run.spans[body.get("span_id", span.span_id)] = span
    return span


def _reward(value: Any, run: ServedRun) -> float:
    try:
        return as_reward(value)
    except InvalidValue as error:
        run.context.run.reject_reward(f"emit_reward: {error}")
        raise


def _end(span: OpenSpan, body: dict[str, Any], run: ServedRun) -> None:
    recorder = run.context.run.recorder
    for event in body.get("events", ()):
        name, attributes = str(event.get("name", "event")), dict(event.get("attributes") or {})
        span.events.append(SpanEvent(name, recorder.now(), attributes))
    span.name = body.get("name", span.name)  # some are known by their end only, as the target of a hand-off
    failed = body.get("status") == "error"
    span.end("error" if failed else "ok", body.get("message"), body.get("attributes"))

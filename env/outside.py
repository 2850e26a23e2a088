"""Code in another process than its run: what it emits is reported to the run's endpoint.

An agent that a command started finds RAYBOLT_RUN_URL and RAYBOLT_RUN_KEY in its environment; emitters then
work in it as they do inside a run.
"""

from __future__ import annotations

import json
import logging
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from raybolt.env.context import DEFAULT_ROLE, RunContext
from raybolt.env.recorder import OpenSpan, SpanRecorder
from raybolt.store.types import Span, SpanStatus

RUN_URL = "RAYBOLT_RUN_URL"
RUN_KEY = "RAYBOLT_RUN_KEY"
ROLE = "RAYBOLT_ROLE"

_TIMEOUT_SECONDS = 10.0
_log = logging.getLogger(__name__)


@cache
def outside_context() -> RunContext | None:
    """The place of this process's code in the run it works for; None if it works for none."""
    run = outside_run()
    return None if run is None else RunContext(run, "", os.environ.get(ROLE) or DEFAULT_ROLE)


@cache
def outside_run() -> OutsideRun | None:
    """The run that this process works for; None if it works for none."""
    url, key = os.environ.get(RUN_URL), os.environ.get(RUN_KEY)
    return OutsideRun(url, key) if url and key else None


class OutsideRun:
    """A run whose spans are kept elsewhere. A report that fails is logged and disturbs nobody."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._key = key
        self.recorder: SpanRecorder = _ReportingRecorder(self)

    def reject_reward(self, reason: str) -> None:
        """Notes that an emitted reward was none."""
        self.report("spans", {"rejected": reason})

    def report(self, path: str, body: Mapping[str, Any]) -> Any:
        """Sends one message to the run's endpoint; what that says, or None if it took no message."""
        request = urllib.request.Request(
            f"{self._url}/{path}",
            data=json.dumps(body, default=plain).encode(),
            headers={"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"},
        )
        try:
            with _opener().open(request, timeout=_TIMEOUT_SECONDS) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            _log.warning("the run did not take a span: %s", error.read().decode(errors="replace"))
        except OSError as error:
            _log.warning("the run cannot be reached, and a span is lost: %s", error)
        return None


class _ReportingRecorder(SpanRecorder):
    """Reports each span as it begins and as it ends, so that it takes its place among the run's own."""

    def __init__(self, run: OutsideRun) -> None:
        super().__init__("", "")
        self._run = run

    def begin(
        self, name: str, *, parent_id: str | None = None, attributes: Mapping[str, Any] | None = None
    ) -> OpenSpan:
        span = super().begin(name, parent_id=parent_id, attributes=attributes)
        self._run.report("spans", {**_described(span), "open": True})
        return span

    def record(
        self, name: str, *, parent_id: str | None = None, attributes: Mapping[str, Any] | None = None
    ) -> Span | None:
        span = super().begin(name, parent_id=parent_id, attributes=attributes)
        self._run.report("spans", _described(span))
        return super()._end(span, "ok", None, None)

    def _end(
        self, span: OpenSpan, status: SpanStatus, message: str | None, attributes: Mapping[str, Any] | None
    ) -> Span | None:
        ended = super()._end(span, status, message, attributes)
        if ended is not None:
            events = [{"name": event.name, "attributes": dict(event.attributes)} for event in ended.events]
            told = {
                "name": ended.name,
                "status": status,
                "message": message,
                "attributes": ended.attributes,
                "events": events,
            }
            present = {name: value for name, value in told.items() if value is not None}
            self._run.report(f"spans/{span.span_id}/end", present)
        return ended


def _described(span: OpenSpan) -> dict[str, Any]:
    return {
        "name": span.name,
        "span_id": span.span_id,
        "parent_id": span.parent_id or "",
        "attributes": span.attributes,
    }


def plain(value: Any) -> Any:
    """JSON for the arrays that attributes may hold."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no JSON")


@cache
def _opener() -> urllib.request.OpenerDirector:
    """Without proxies: the endpoint is where the run is, and a proxy for the internet would not find it."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))

"""Recorded answers for tools in another process than the replay: asked for at the run's endpoint.

A command that a replay started finds RAYBOLT_REPLAYED in its environment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any

from raybolt.env.outside import OutsideRun, outside_run
from raybolt.env.recorded_tools import ToolAnswer
from raybolt.env.recorder import as_attribute
from raybolt.store.types import Span, SpanEvent

REPLAYED = "RAYBOLT_REPLAYED"


@cache
def outside_tools() -> OutsideTools | None:
    """The recorded answers for this process's tools; None if it works for no replay."""
    run = outside_run()
    return OutsideTools(run) if run is not None and os.environ.get(REPLAYED) else None


class OutsideTools:
    """Tools whose answers the replaying process holds."""

    def __init__(self, run: OutsideRun) -> None:
        self._run = run

    def take(self, name: str, arguments: Any, call_id: str | None = None) -> ToolAnswer | None:
        """The next answer of this tool to these arguments; None to run it."""
        asked = {"name": name, "arguments": as_attribute([arguments])[0], "call_id": call_id}
        told = self._run.report("tools", asked)
        answer = told.get("answer") if isinstance(told, Mapping) else None
        return None if answer is None else _answer(answer)


def wire_answer(answer: ToolAnswer) -> dict[str, Any]:
    """The answer as the endpoint tells it."""
    return {
        "value": answer.value,
        "failure": answer.failure,
        "raised": answer.raised,
        "call_id": answer.call_id,
        "span_id": answer.span_id,
        "inside": list(map(_wire_span, answer.inside)),
    }


def _wire_span(span: Span) -> dict[str, Any]:
    return {
        "name": span.name,
        "span_id": span.span_id,
        "parent_id": span.parent_id,
        "status": span.status,
        "message": span.status_message,
        "attributes": dict(span.attributes),
        "events": [{"name": event.name, "attributes": dict(event.attributes)} for event in span.events],
    }


def _answer(told: Mapping[str, Any]) -> ToolAnswer:
    return ToolAnswer(
        value=told["value"],
        inside=tuple(map(_span, told["inside"])),
        span_id=told["span_id"],
        failure=told["failure"],
        raised=told["raised"],
        call_id=told["call_id"],
    )


def _span(told: Mapping[str, Any]) -> Span:
    """A span as far as it is repeated: its run, place and times are those of the one that repeats it."""
    return Span(
        rollout_id="",
        attempt_id="",
        sequence_id=0,
        trace_id="0" * 32,
        span_id=told["span_id"],
        parent_id=told["parent_id"],
        name=told["name"],
        start_time=0.0,
        end_time=0.0,
        status=told["status"],
        status_message=told["message"],
        attributes=told["attributes"],
        events=tuple(SpanEvent(event["name"], 0.0, event["attributes"]) for event in told["events"]),
    )

"""Answers of tools, taken from a recorded run instead of running the tools once more.

Whatever calls tools asks `recorded_answer` first: functions decorated with `raybolt.operation`, and the
adapters where their framework has one place through which tools run. Outside a replay it costs a look at a
context variable.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from raybolt.env.recorder import OpenSpan, as_attribute
from raybolt.store import names
from raybolt.store.types import Span

OPERATION = "operation"
"""Kind of the span of a decorated function."""
ARGUMENTS = "arguments"
"""Attribute of such a span: what the function was called with."""
RETURNED = "result"
"""Attribute of such a span."""


@dataclass(frozen=True, slots=True, eq=False)
class ToolAnswer:
    """What a tool gave."""

    value: Any
    inside: tuple[Span, ...] = ()
    """What was recorded while it ran, rewards included, in order."""
    span_id: str = ""

    def repeat_inside(self, span: OpenSpan) -> Any:
        """Records below `span`, the tool's in this run, what the tool left there; returns its value."""
        new_ids = {self.span_id: span.span_id}
        for old in self.inside:
            new = span.recorder.begin(
                old.name, parent_id=new_ids[str(old.parent_id)], attributes=old.attributes
            )
            new.events.extend(old.events)
            new_ids[old.span_id] = new.span_id
            new.end(old.status, old.status_message)
        return self.value


class RecordedTools:
    """The tools of a recorded run: each answer is given once, for the same tool and arguments."""

    def __init__(self, spans: Iterable[Span], *, live: Sequence[str] = ()) -> None:
        """All tools but those to run for real, which `live` names, as patterns.

        So do tools run that failed, that gave something else than JSON, and those in which LLM calls were
        made, since these have to be made again.
        """
        self._lock = threading.Lock()
        self._answers: dict[tuple[str, str], deque[ToolAnswer]] = {}
        for span, inside in _outermost(spans):
            name, arguments, value = _call_of(span)
            if not any(fnmatchcase(name, pattern) for pattern in live):
                answer = ToolAnswer(value, inside, span.span_id)
                self._answers.setdefault(_key(name, arguments), deque()).append(answer)

    def take(self, name: str, arguments: Any) -> ToolAnswer | None:
        """The next answer of this tool to these arguments; None to run it."""
        with self._lock:
            found = self._answers.get(_key(name, arguments))
            return found.popleft() if found else None

    def stop(self) -> None:
        """From now on every tool runs."""
        with self._lock:
            self._answers.clear()


recorded_tools: ContextVar[RecordedTools | None] = ContextVar("raybolt_recorded_tools", default=None)
"""None but in a replay."""


def recorded_answer(name: str, arguments: Any) -> ToolAnswer | None:
    """What the tool answered to these arguments in the run that is replayed; None to run it."""
    tools = recorded_tools.get()
    return None if tools is None else tools.take(name, arguments)


def _outermost(spans: Iterable[Span]) -> Iterable[tuple[Span, tuple[Span, ...]]]:
    """The answerable tools that are in no other, each with all that is below it."""
    ordered = sorted(spans, key=lambda span: span.sequence_id)
    children: dict[str | None, list[Span]] = {}
    for span in ordered:
        children.setdefault(span.parent_id, []).append(span)

    def below(span: Span) -> list[Span]:
        found = list(children.get(span.span_id, ()))
        for each in found:  # grows while it is walked
            found += children.get(each.span_id, ())
        return found

    taken: set[str] = set()
    for span in ordered:
        inside = below(span)
        if span.span_id in taken or not _is_answerable(span):
            continue
        if any(names.CALL_ID in each.attributes for each in inside):
            continue
        taken.update(each.span_id for each in inside)
        yield span, tuple(inside)


def _is_answerable(span: Span) -> bool:
    attributes = span.attributes
    if span.status != "ok" or names.RESULT_MISSING in attributes:
        return False
    if attributes.get(names.OPERATION) == names.EXECUTE_TOOL:
        return attributes.get(names.KIND) != names.ADOPTED and names.TOOL_RESULT in attributes
    return attributes.get(names.KIND) == OPERATION and RETURNED in attributes and ARGUMENTS in attributes


def _call_of(span: Span) -> tuple[str, Any, Any]:
    attributes = span.attributes
    if attributes.get(names.OPERATION) == names.EXECUTE_TOOL:
        name = str(attributes[names.TOOL_NAME])
        return name, attributes.get(names.TOOL_ARGUMENTS), attributes[names.TOOL_RESULT]
    return span.name, attributes[ARGUMENTS], attributes[RETURNED]


def _key(name: str, arguments: Any) -> tuple[str, str]:
    return name, json.dumps(as_attribute([arguments]), sort_keys=True)

"""Answers of tools, taken from a recorded run instead of running the tools once more.

Whatever calls tools asks `env.replayed.recorded_answer` first: functions decorated with `raybolt.operation`,
and the adapters where their framework has one place through which tools run. Outside a replay it costs a look
at a context variable.
"""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from raybolt.env.raised import raised_again
from raybolt.env.recorder import CUT_OFF, OpenSpan, as_attribute
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
    """What it returned; None if it raised."""
    inside: tuple[Span, ...] = ()
    """What was recorded while it ran, rewards included, in order."""
    span_id: str = ""
    failure: str | None = None
    """What was wrong, of a tool whose `value` told of an error instead of raising it."""
    raised: Mapping[str, Any] | None = None
    """Of a tool that raised: what to raise again."""
    call_id: str | None = None
    """The tool call that it answered, if a model made one."""

    def repeat_inside(self, span: OpenSpan) -> None:
        """Records below `span`, the tool's in this run, what the tool left there."""
        new_ids = {self.span_id: span.span_id}
        for old in self.inside:
            new = span.recorder.begin(
                old.name, parent_id=new_ids[str(old.parent_id)], attributes=old.attributes
            )
            new.events.extend(old.events)
            new_ids[old.span_id] = new.span_id
            new.end(old.status, old.status_message)

    def given(self) -> Any:
        """What the tool returned, its caller's to change. Raises what it raised."""
        error = None if self.raised is None else raised_again(self.raised)
        if error is not None:
            raise error
        return copy.deepcopy(self.value)


class RecordedTools:
    """The tools of a recorded run: each answer is given once, for the same tool and arguments."""

    def __init__(self, spans: Iterable[Span], *, live: Sequence[str] = ()) -> None:
        """All tools but those to run for real, which `live` names, as patterns.

        So do tools run that gave, or raised, something that JSON does not give back, and those in which LLM
        calls were made, since these have to be made again.
        """
        self._lock = threading.Lock()
        self._answers: dict[tuple[str, str], list[ToolAnswer]] = {}
        for span, inside in _outermost(spans):
            name, arguments = _call_of(span)
            if not any(fnmatchcase(name, pattern) for pattern in live):
                self._answers.setdefault(_key(name, arguments), []).append(_answer_of(span, inside))

    def take(self, name: str, arguments: Any, call_id: str | None = None) -> ToolAnswer | None:
        """The next answer of this tool to these arguments; None to run it.

        Of several to the same arguments that to this tool call, since tools that run at the same time begin
        in another order each time.
        """
        with self._lock:
            found = self._answers.get(_key(name, arguments))
            if not found:
                return None
            same_call = (i for i, answer in enumerate(found) if call_id and answer.call_id == call_id)
            return found.pop(next(same_call, 0))

    def stop(self) -> None:
        """From now on every tool runs."""
        with self._lock:
            self._answers.clear()


recorded_tools: ContextVar[RecordedTools | None] = ContextVar("raybolt_recorded_tools", default=None)
"""None but in a replay."""


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
    attributes, is_function = span.attributes, _is_function(span)
    if not is_function and not _is_frameworks(span):
        return False
    if names.RAISED in attributes:
        return raised_again(attributes[names.RAISED]) is not None
    if names.RESULT_MISSING in attributes or span.status_message == CUT_OFF:
        return False
    return (RETURNED if is_function else names.TOOL_RESULT) in attributes


def _is_function(span: Span) -> bool:
    """Whether it is of a decorated function, not of a block, which nobody can answer for."""
    return span.attributes.get(names.KIND) == OPERATION and ARGUMENTS in span.attributes


def _is_frameworks(span: Span) -> bool:
    """Whether an adapter has recorded it, as a framework's tool."""
    known = span.attributes
    is_tool = known.get(names.OPERATION) == names.EXECUTE_TOOL
    return is_tool and known.get(names.KIND) not in (OPERATION, names.ADOPTED)


def _call_of(span: Span) -> tuple[str, Any]:
    attributes = span.attributes
    if _is_function(span):
        return span.name, attributes[ARGUMENTS]
    return str(attributes[names.TOOL_NAME]), attributes.get(names.TOOL_ARGUMENTS)


def _answer_of(span: Span, inside: tuple[Span, ...]) -> ToolAnswer:
    attributes = span.attributes
    raised = attributes.get(names.RAISED)
    kept = (RETURNED,) if _is_function(span) else (names.TOOL_RETURNED, names.TOOL_RESULT)
    return ToolAnswer(
        value=None if raised else next(attributes[name] for name in kept if name in attributes),
        inside=inside,
        span_id=span.span_id,
        failure=span.status_message if span.status == "error" and not raised else None,
        raised=raised,
        call_id=attributes.get(names.TOOL_CALL_ID),
    )


def _key(name: str, arguments: Any) -> tuple[str, str]:
    return name, json.dumps(as_attribute([arguments]), sort_keys=True)

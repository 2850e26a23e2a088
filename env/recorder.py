"""Records the spans of one attempt."""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any

import numpy as np

from raybolt.store.types import ARRAY_DTYPES, Span, SpanEvent, SpanStatus

_CLOCK_STEP = 1e-6  # seconds; about four times the resolution of a float that counts them since the epoch
CUT_OFF = "the run ended before this did"
"""What the status of a span says that was still open when its run ended."""
_MAX_TRACEBACK = 8_000  # characters; the innermost frames are kept


@dataclass(slots=True, eq=False, weakref_slot=True)
class OpenSpan:
    """A span that has begun; `end` completes it. Ending it twice, or after the run, does nothing."""

    recorder: SpanRecorder
    span_id: str
    parent_id: str | None
    sequence_id: int
    name: str
    start_time: float
    attributes: dict[str, Any]
    events: list[SpanEvent] = field(default_factory=list)

    def end(
        self,
        status: SpanStatus = "ok",
        message: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> Span | None:
        """The finished span; None if it had been ended before."""
        return self.recorder._end(self, status, message, attributes)

    def fail(self, error: BaseException, attributes: Mapping[str, Any] | None = None) -> Span | None:
        """Ends the span as failed, with the exception as an event."""
        self.events.append(exception_event(error, self.recorder.now()))
        return self.end("error", describe(error), attributes)


class SpanRecorder:
    """The spans of one attempt, in order; safe to use from any thread.

    Sequence ids count up in the order in which spans begin, and no two times are equal, so what came before
    what can always be told.
    """

    def __init__(self, rollout_id: str, attempt_id: str, trace_id: str | None = None) -> None:
        self.rollout_id = rollout_id
        self.attempt_id = attempt_id
        self.trace_id = trace_id or os.urandom(16).hex()
        self._lock = threading.Lock()
        self._open: dict[str, OpenSpan] = {}
        self._ended: list[Span] = []
        self._num_drained = 0
        self._num_begun = 0
        self._last_time = 0.0
        self._closed = False
        self._told: dict[str, bytes] = {}
        # Wall-clock time may jump; the offset is taken once.
        self._epoch = time.time() - time.perf_counter()

    def now(self) -> float:
        """Seconds since the epoch; every reading is later than the one before."""
        with self._lock:
            return self._tick()

    def begin(
        self,
        name: str,
        *,
        parent_id: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> OpenSpan:
        """A new open span."""
        with self._lock:
            span = OpenSpan(
                recorder=self,
                span_id=os.urandom(8).hex(),
                parent_id=parent_id,
                sequence_id=self._num_begun,
                name=name,
                start_time=self._tick(),
                attributes=dict(attributes or {}),
            )
            self._num_begun += 1
            if not self._closed:
                self._open[span.span_id] = span
        return span

    def record(
        self,
        name: str,
        *,
        parent_id: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> Span | None:
        """A span for something that happens in a moment; None once the recorder is closed."""
        return self.begin(name, parent_id=parent_id, attributes=attributes).end()

    @property
    def spans(self) -> list[Span]:
        """All finished spans so far, in order of their sequence ids."""
        with self._lock:
            return sorted(self._ended, key=lambda span: span.sequence_id)

    def spans_from(self, index: int) -> list[Span]:
        """The finished spans but for the `index` ones finished first, in the order of their ends."""
        with self._lock:
            return self._ended[index:]

    def drain(self) -> list[Span]:
        """The spans finished since the last call, for the store."""
        with self._lock:
            new = self._ended[self._num_drained :]
            self._num_drained = len(self._ended)
        return new

    def is_news(self, subject: str, said: bytes) -> bool:
        """Whether this is other than what was said of the subject before, which was nothing at first."""
        with self._lock:
            before = self._told.get(subject, b"")
            self._told[subject] = said
        return said != before

    def cut_off(self) -> None:
        """Ends all open spans below the root as errors: the run ended before they did."""
        with self._lock:
            unfinished = [span for span in self._open.values() if span.parent_id is not None]
        for span in unfinished:
            span.end("error", CUT_OFF)

    def close(self) -> None:
        """Records nothing more, whatever code left behind may still do."""
        with self._lock:
            self._closed = True
            self._open.clear()

    def _tick(self) -> float:
        self._last_time = max(self._epoch + time.perf_counter(), self._last_time + _CLOCK_STEP)
        return self._last_time

    def _end(
        self, span: OpenSpan, status: SpanStatus, message: str | None, attributes: Mapping[str, Any] | None
    ) -> Span | None:
        with self._lock:
            if self._open.pop(span.span_id, None) is None:
                return None
            ended = Span(
                rollout_id=self.rollout_id,
                attempt_id=self.attempt_id,
                sequence_id=span.sequence_id,
                trace_id=self.trace_id,
                span_id=span.span_id,
                parent_id=span.parent_id,
                name=span.name,
                start_time=span.start_time,
                end_time=self._tick(),
                status=status,
                status_message=message,
                attributes={**span.attributes, **(attributes or {})},
                events=tuple(span.events),
            )
            self._ended.append(ended)
        return ended


def describe(error: BaseException) -> str:
    """Type and message of an exception, in one text."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def exception_event(error: BaseException, at: float) -> SpanEvent:
    """OpenTelemetry's exception event."""
    trace = "".join(traceback.format_exception(error))[-_MAX_TRACEBACK:]
    attributes = {
        "exception.type": type(error).__name__,
        "exception.message": str(error),
        "exception.stacktrace": trace,
    }
    return SpanEvent("exception", at, attributes)


def as_attribute(value: Any) -> Any:
    """A value the store takes: JSON as it is, arrays if 1-D, the text of anything unknown."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        storable = value.ndim == 1 and value.dtype.name in ARRAY_DTYPES
        return value if storable else as_attribute(value.tolist())
    return _as_json(value)


def _as_json(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return _as_json(value.tolist())
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_as_json(item) for item in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return repr(value)

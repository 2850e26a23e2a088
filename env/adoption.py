"""Spans of a foreign OpenTelemetry tracer, adopted by the run in which they begin.

Agents' libraries often bring their own instrumentation (of a database, of retrieval, of the framework). A
span that begins inside a run is recorded there, too, below the place in the run where its code stands or
below its own parent. The user's provider and exporters go on as they are.
"""

from __future__ import annotations

import sys
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from raybolt.env.context import current_run
from raybolt.env.recorder import OpenSpan, as_attribute
from raybolt.store import names
from raybolt.store.types import SpanEvent, SpanStatus

_watched: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


def adopt_foreign_spans() -> None:
    """From now on, runs adopt the spans of OpenTelemetry's global tracer provider, if there is one.

    Costs nothing where OpenTelemetry's SDK is not loaded. The processor stays with the provider, as
    OpenTelemetry offers no way to take one out; outside runs it does nothing.
    """
    sdk = sys.modules.get("opentelemetry.sdk.trace")
    if sdk is None:
        return
    from opentelemetry import trace

    provider = trace.get_tracer_provider()
    if isinstance(provider, sdk.TracerProvider) and provider not in _watched:
        _watched[provider] = True
        provider.add_span_processor(_Adopter())


class _Adopter:
    """A span processor, as OpenTelemetry's SDK calls it. It takes no base class, to load none."""

    def __init__(self) -> None:
        # The recorder holds a span while it is open, and lets go of those that never end when the run does.
        self._open: WeakValueDictionary[int, OpenSpan] = WeakValueDictionary()

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        context = current_run.get()
        if context is None:
            return
        recorder = context.run.recorder
        parent = self._open.get(span.parent.span_id) if span.parent is not None else None
        within = parent is not None and parent.recorder is recorder
        self._open[span.context.span_id] = recorder.begin(
            span.name,
            parent_id=parent.span_id if parent is not None and within else context.span_id,
            attributes={names.AGENT_NAME: context.role},
        )

    def _on_ending(self, span: Any) -> None:
        """Nothing: an ending span may still change."""

    def on_end(self, span: Any) -> None:
        opened = self._open.pop(span.context.span_id, None)
        if opened is None:
            return
        from raybolt.store.otel import facts_of  # the SDK is there, or nobody would have called

        attributes = {name: as_attribute(value) for name, value in (span.attributes or {}).items()}
        opened.events.extend(_event(event) for event in span.events)
        facts = facts_of(span).as_attributes()
        opened.end(_status(span), span.status.description, {**attributes, **facts, names.KIND: names.ADOPTED})

    def shutdown(self) -> None:
        """Nothing: the runs' recorders hold all there is."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """True: there is nothing to wait for."""
        return True


def _status(span: Any) -> SpanStatus:
    status: SpanStatus = "ok" if span.status.is_ok else "error"
    return status


def _event(event: Any) -> SpanEvent:
    attributes = {name: as_attribute(value) for name, value in (event.attributes or {}).items()}
    return SpanEvent(event.name, event.timestamp / 1e9, attributes)

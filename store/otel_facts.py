"""What OpenTelemetry says of a span for which ours has no field: kept as attributes, and made of them again.

The names are those of OpenTelemetry's mapping to other formats where it has one. What is as in most spans
(kind internal, nothing dropped, no links, scope and service "raybolt") is no attribute at all.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from . import names
from .types import Json

OWN_SCOPE: Final = "raybolt"
"""Instrumentation scope of the spans that raybolt records itself."""
OWN_RESOURCE: Final = {"service.name": "raybolt"}
"""Resource of those spans, unless whoever exports them names another."""
UNNAMED: Final = "unnamed"
"""Name of spans and events that came without one, which OpenTelemetry takes and ours do not."""
KINDS: Final = ("internal", "server", "client", "producer", "consumer")
IS_REMOTE: Final = 0x200
"""In OTLP's flags: the parent (or what a link leads to) is of another process."""
_USUAL_FLAGS = 0x103
"""Sampled, of a random trace id, and that it is known whether the parent is remote."""
_UINT32 = 2**32
_TRACE_ID_DIGITS, _SPAN_ID_DIGITS = 32, 16


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanFacts:
    """One span's. The defaults are what most spans have."""

    scope_name: str = OWN_SCOPE
    scope_version: str = ""
    scope_schema_url: str = ""
    scope_attributes: Mapping[str, Json] = field(default_factory=dict)
    resource_attributes: Mapping[str, Json] = field(default_factory=dict)
    """Empty: ``OWN_RESOURCE``."""
    resource_schema_url: str = ""
    kind: str = KINDS[0]
    trace_state: str = ""
    """As in W3C's ``tracestate`` header."""
    flags: int = 0
    """As in OTLP: W3C's trace flags, and whether the parent is remote."""
    links: Sequence[Mapping[str, Json]] = ()
    """Each as ``link`` makes it."""
    dropped_attributes: int = 0
    dropped_events: int = 0
    dropped_links: int = 0

    def as_attributes(self) -> dict[str, Json]:
        """Returns what is unusual, as attributes of a span of ours."""
        resource = {} if self.resource_attributes == OWN_RESOURCE else dict(self.resource_attributes)
        found = {
            names.SCOPE_NAME: "" if self.scope_name == OWN_SCOPE else self.scope_name,
            names.SCOPE_VERSION: self.scope_version,
            names.SCOPE_SCHEMA_URL: self.scope_schema_url,
            names.SCOPE_ATTRIBUTES: dict(self.scope_attributes),
            names.RESOURCE_ATTRIBUTES: resource,
            names.RESOURCE_SCHEMA_URL: self.resource_schema_url,
            names.SPAN_KIND: "" if self.kind == KINDS[0] else self.kind,
            names.TRACE_STATE: self.trace_state,
            names.SPAN_FLAGS: unusual(self.flags),
            names.LINKS: [dict(each) for each in self.links],
            names.DROPPED_ATTRIBUTES: self.dropped_attributes,
            names.DROPPED_EVENTS: self.dropped_events,
            names.DROPPED_LINKS: self.dropped_links,
        }
        return {name: value for name, value in found.items() if value}


def taken_facts(attributes: Mapping[str, Any]) -> tuple[SpanFacts, dict[str, Any]]:
    """Returns the facts among a span's attributes, and the other attributes.

    What bears such a name and is nothing of the kind stays an attribute.
    """
    given, others = {}, {}
    for name, value in attributes.items():
        known = _FIELDS.get(name)
        if known is not None and known[1](value):
            given[known[0]] = value
        else:
            others[name] = value
    return SpanFacts(**given), others


def link(
    trace_id: str,
    span_id: str,
    *,
    trace_state: str = "",
    flags: int = 0,
    attributes: Mapping[str, Json] | None = None,
    dropped_attributes: int = 0,
) -> dict[str, Json]:
    """Returns a link to a span (ids in hex) as it stands in ``names.LINKS``."""
    more = {
        "trace_state": trace_state,
        "flags": unusual(flags),
        "attributes": dict(attributes or {}),
        "dropped_attributes_count": dropped_attributes,
    }
    return {"trace_id": trace_id, "span_id": span_id, **{name: each for name, each in more.items() if each}}


def unusual(flags: int) -> int:
    """Returns the flags if they say more than those of most spans; 0 otherwise."""
    return flags if flags & ~_USUAL_FLAGS else 0


def is_count(value: object) -> bool:
    """Whether OTLP could have sent it as a count or as flags."""
    return type(value) is int and 0 <= value < _UINT32


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_object(value: object) -> bool:
    return isinstance(value, Mapping)


def _is_kind(value: object) -> bool:
    return isinstance(value, str) and value in KINDS


def _are_links(value: object) -> bool:
    return isinstance(value, list) and all(_is_link(each) for each in value)


def _is_link(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and _is_id(value.get("trace_id"), _TRACE_ID_DIGITS)
        and _is_id(value.get("span_id"), _SPAN_ID_DIGITS)
        and _is_text(value.get("trace_state", ""))
        and is_count(value.get("flags", 0))
        and _is_object(value.get("attributes", {}))
        and is_count(value.get("dropped_attributes_count", 0))
    )


def _is_id(value: object, num_digits: int) -> bool:
    return isinstance(value, str) and len(value) == num_digits and not set(value) - set("0123456789abcdef")


_FIELDS: dict[str, tuple[str, Callable[[object], bool]]] = {
    names.SCOPE_NAME: ("scope_name", _is_text),
    names.SCOPE_VERSION: ("scope_version", _is_text),
    names.SCOPE_SCHEMA_URL: ("scope_schema_url", _is_text),
    names.SCOPE_ATTRIBUTES: ("scope_attributes", _is_object),
    names.RESOURCE_ATTRIBUTES: ("resource_attributes", _is_object),
    names.RESOURCE_SCHEMA_URL: ("resource_schema_url", _is_text),
    names.SPAN_KIND: ("kind", _is_kind),
    names.TRACE_STATE: ("trace_state", _is_text),
    names.SPAN_FLAGS: ("flags", is_count),
    names.LINKS: ("links", _are_links),
    names.DROPPED_ATTRIBUTES: ("dropped_attributes", is_count),
    names.DROPPED_EVENTS: ("dropped_events", is_count),
    names.DROPPED_LINKS: ("dropped_links", is_count),
}

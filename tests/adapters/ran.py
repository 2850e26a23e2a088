"""What is left of a run of an agent in a test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raybolt.env.chat import ChatRequest
from raybolt.env.policy import RunEnd
from raybolt.store.types import Span


@dataclass
class Ran:
    """One finished run."""

    end: RunEnd
    requests: list[ChatRequest]
    spans: list[Span]

    @property
    def result(self) -> Any:
        assert not self.end.failed, self.end
        return self.end.result

    def span(self, name: str) -> Span:
        (found,) = [span for span in self.spans if span.name == name]
        return found

    def parent_name(self, span: Span) -> str | None:
        return {other.span_id: other.name for other in self.spans}.get(span.parent_id or "")

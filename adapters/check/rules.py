"""A check is a rule with a function that tries it on a kit; a broken rule says what was expected and seen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from raybolt.adapters.check.kit import AgentKit, Way

Try: TypeAlias = Callable[[AgentKit, Way], Awaitable[None]]
_MAX_SEEN = 600  # characters of what was seen instead


@dataclass(frozen=True)
class Check:
    """One rule that every adapter keeps."""

    name: str
    """What tests and reports call it."""
    rule: str
    """What must be so, as a sentence."""
    ways: tuple[Way, ...]
    """The ways to bring an agent to which it applies."""
    run: Try
    """Raises `RuleBroken`; or `NotOffered` where the framework has no such thing."""


class RuleBroken(AssertionError):
    """An adapter does not keep a rule."""

    def __init__(self, expected: str, seen: Any, remedy: str) -> None:
        super().__init__(f"expected {expected}\n  seen: {_shortened(seen)}\n  to do: {remedy}")
        self.expected = expected
        self.seen = seen
        self.remedy = remedy


def expect(kept: bool, *, expected: str, seen: Any, remedy: str) -> None:
    """Raises `RuleBroken` unless `kept`."""
    if not kept:
        raise RuleBroken(expected, seen, remedy)


def check(rule: str, *ways: Way) -> Callable[[Try], Check]:
    """Makes a check of the function below it; without `ways` it applies to all."""

    def made(run: Try) -> Check:
        return Check(getattr(run, "__name__", "check"), rule, ways or ("factory", "built"), run)

    return made


def _shortened(seen: Any) -> str:
    text = seen if isinstance(seen, str) else repr(seen)
    return text if len(text) <= _MAX_SEEN else text[: _MAX_SEEN - 1] + "…"

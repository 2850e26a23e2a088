"""A check is a rule and what tries it on a store; a broken rule says what was expected and what was seen."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from raybolt.store.base import LightningStore
from raybolt.store.errors import RayboltError

T = TypeVar("T")
Try: TypeAlias = Callable[[LightningStore], Awaitable[None]]
_MAX_SHOWN = 800  # characters of a value in a message


@dataclass(frozen=True)
class Check:
    """One rule that every store keeps."""

    name: str
    """What tests and reports call it."""
    rule: str
    """What must be so, as a sentence."""
    run: Try
    """Tries it on an empty store; raises ``RuleBroken``."""


class RuleBroken(AssertionError):
    """A store does not keep a rule."""

    def __init__(self, what: str, expected: str, seen: str) -> None:
        super().__init__(f"{what}\n  expected: {_shortened(expected)}\n  seen: {_shortened(seen)}")
        self.what = what
        self.expected = expected
        self.seen = seen


def check(rule: str) -> Callable[[Try], Check]:
    """Makes a check of the function below it."""

    def made(run: Try) -> Check:
        return Check(getattr(run, "__name__", "check"), rule, run)

    return made


def expect(seen: Any, expected: Any, what: str) -> None:
    """Raises ``RuleBroken`` unless the two are equal."""
    if seen != expected:
        raise RuleBroken(what, repr(expected), repr(seen))


def expect_that(kept: bool, what: str, *, expected: str, seen: Any) -> None:
    """Raises ``RuleBroken`` unless ``kept``."""
    if not kept:
        raise RuleBroken(what, expected, repr(seen))


def present(value: T | None, what: str) -> T:
    """Returns the value; ``RuleBroken`` if it is None."""
    if value is None:
        raise RuleBroken(what, "something", "None")
    return value


@contextmanager
def refused(kind: type[RayboltError], *parts: str) -> Iterator[None]:
    """Expects an error of exactly this kind, which is a ValueError and whose message has these parts."""
    what = f"what {kind.__name__} is for"
    try:
        yield
    except Exception as error:
        if type(error) is not kind or not isinstance(error, ValueError):
            raise RuleBroken(
                what, f"{kind.__name__}, a ValueError", f"{type(error).__name__}: {error}"
            ) from error
        missing = [part for part in parts if part not in str(error)]
        if missing:
            raise RuleBroken(
                f"the message of {kind.__name__}", f"that it has {missing}", str(error)
            ) from error
    else:
        raise RuleBroken(
            what, f"{kind.__name__}" + (f" about {', '.join(parts)}" if parts else ""), "no error"
        )


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"

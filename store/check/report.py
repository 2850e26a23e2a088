"""Runs the checks on stores and reports: one line for every rule."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TypeAlias

from raybolt.store.base import LightningStore
from raybolt.store.check.attempts import ATTEMPTS
from raybolt.store.check.changes import CHANGES
from raybolt.store.check.deadlines import DEADLINES
from raybolt.store.check.deletion import DELETION
from raybolt.store.check.groups import GROUPS
from raybolt.store.check.hostile import HOSTILE
from raybolt.store.check.queries import QUERIES
from raybolt.store.check.resources import RESOURCES
from raybolt.store.check.rollouts import ROLLOUTS
from raybolt.store.check.rules import Check, RuleBroken
from raybolt.store.check.signatures import SIGNATURES
from raybolt.store.check.spans import SPANS
from raybolt.store.check.whole import WHOLE
from raybolt.store.check.workers import WORKERS

CHECKS: tuple[Check, ...] = (
    *SIGNATURES,
    *ROLLOUTS,
    *ATTEMPTS,
    *SPANS,
    *RESOURCES,
    *WORKERS,
    *QUERIES,
    *GROUPS,
    *DELETION,
    *CHANGES,
    *DEADLINES,
    *HOSTILE,
    *WHOLE,
)
"""All rules, in the order in which it makes sense to mend them."""

CHECK_SECONDS = 120.0

MakeStore: TypeAlias = Callable[[], AbstractAsyncContextManager[LightningStore]]
"""Makes an empty store, which closes itself as it is left: ``LocalStore``, say."""


@dataclass(frozen=True)
class Outcome:
    """What came of one check."""

    check: Check
    problem: str | None
    """What was expected and what was seen instead; None if the rule is kept."""


@dataclass(frozen=True)
class Report:
    """What came of all checks of one kind of store."""

    outcomes: tuple[Outcome, ...]

    @property
    def broken(self) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.problem is not None)

    def __str__(self) -> str:
        lines = [f"{len(self.outcomes) - len(self.broken)} of {len(self.outcomes)} rules kept"]
        for outcome in self.broken:
            lines.append(f"broken  {outcome.check.name}: {outcome.check.rule}")
            lines.extend(f"        {line}" for line in str(outcome.problem).splitlines())
        return "\n".join(lines)


async def check_store(make_store: MakeStore, checks: Sequence[Check] = CHECKS) -> Report:
    """What came of the checks, each on a store of its own; nothing a store does raises out of here."""
    return Report(tuple([await outcome_of(check, make_store) for check in checks]))


async def outcome_of(check: Check, make_store: MakeStore) -> Outcome:
    """What came of one check."""
    try:
        async with make_store() as store:
            await asyncio.wait_for(check.run(store), CHECK_SECONDS)
    except RuleBroken as broken:
        return Outcome(check, str(broken))
    except TimeoutError:
        return Outcome(check, f"it took more than {CHECK_SECONDS:g} s; see what it waits for")
    except Exception as error:  # of the store, whatever it is
        return Outcome(check, f"{type(error).__name__}: {error}")
    return Outcome(check, None)

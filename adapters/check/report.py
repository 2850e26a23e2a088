"""Runs the checks on a kit and reports: one line for every rule."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from raybolt.adapters.check.ends import ENDS
from raybolt.adapters.check.frozen import FROZEN
from raybolt.adapters.check.kit import AgentKit, NotOffered, Way
from raybolt.adapters.check.many import MANY
from raybolt.adapters.check.replies import REPLIES
from raybolt.adapters.check.rules import Check, RuleBroken
from raybolt.adapters.check.tools import TOOLS

CHECKS: tuple[Check, ...] = (*REPLIES, *TOOLS, *MANY, *FROZEN, *ENDS)
"""All rules, in the order in which it makes sense to mend them."""

CHECK_SECONDS = 180.0


@dataclass(frozen=True)
class Outcome:
    """What came of one check, for one way to bring an agent."""

    check: Check
    way: Way
    status: Literal["kept", "not offered", "broken"]
    detail: str = ""
    """Why it is not offered, or what is wrong and what to do."""


@dataclass(frozen=True)
class Report:
    """What came of all checks of one kit."""

    framework: str
    outcomes: tuple[Outcome, ...]

    @property
    def broken(self) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.status == "broken")

    def __str__(self) -> str:
        lines = [f"{self.framework}: {len(self.outcomes) - len(self.broken)} of {len(self.outcomes)} kept"]
        for outcome in self.outcomes:
            check = outcome.check
            lines.append(f"{outcome.status:>11}  {check.name} ({outcome.way}): {check.rule}")
            lines.extend(f"{'':13}{line}" for line in outcome.detail.splitlines())
        return "\n".join(lines)


def applicable(kit: AgentKit, checks: Sequence[Check] = CHECKS) -> list[tuple[Check, Way]]:
    """Every check with every way to bring an agent to which it applies."""
    return [(check, way) for check in checks for way in check.ways if way in kit.ways]


async def run_checks(kit: AgentKit, checks: Sequence[Check] = CHECKS) -> Report:
    """What came of the checks, one after another; nothing an adapter does raises out of here."""
    outcomes = [await outcome_of(check, kit, way) for check, way in applicable(kit, checks)]
    return Report(kit.framework, tuple(outcomes))


async def outcome_of(check: Check, kit: AgentKit, way: Way) -> Outcome:
    """What came of one check."""
    try:
        await asyncio.wait_for(check.run(kit, way), CHECK_SECONDS)
    except NotOffered as reason:
        return Outcome(check, way, "not offered", str(reason))
    except RuleBroken as broken:
        return Outcome(check, way, "broken", str(broken))
    except TimeoutError:
        return Outcome(check, way, "broken", f"it took more than {CHECK_SECONDS:g} s; see what it waits for")
    except Exception as error:  # of the adapter or the framework, whatever it is
        return Outcome(check, way, "broken", f"{type(error).__name__}: {error}")
    return Outcome(check, way, "kept")

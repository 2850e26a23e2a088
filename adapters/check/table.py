"""What works with what: the outcomes of several frameworks' checks as one Markdown table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from raybolt.adapters.check.report import Outcome, Report
from raybolt.adapters.check.rules import Check


def table(reports: Sequence[Report]) -> str:
    """One row for every rule, one column for every framework."""
    checks = {outcome.check.name: outcome.check for report in reports for outcome in report.outcomes}
    rows = [
        ["", *(report.framework for report in reports)],
        ["---"] * (len(reports) + 1),
        *([check.rule, *(_cell(report, check) for report in reports)] for check in checks.values()),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(report: Report, check: Check) -> str:
    outcomes = [outcome for outcome in report.outcomes if outcome.check.name == check.name]
    if not outcomes:
        return "n/a"
    kept = [outcome for outcome in outcomes if outcome.status == "kept"]
    if len(kept) == len(outcomes):
        return "yes"
    reasons = "; ".join(dict.fromkeys(_reasons(outcomes)))
    return f"{kept[0].way} only; {reasons}" if kept else reasons


def _reasons(outcomes: Sequence[Outcome]) -> Iterator[str]:
    for outcome in outcomes:
        if outcome.status == "not offered":
            yield f"not offered: {outcome.detail}"
        elif outcome.status == "broken":
            yield "broken"

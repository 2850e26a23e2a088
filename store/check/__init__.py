"""Conformance of a store: checks that anyone can run on their own implementation, without pytest.

    report = asyncio.run(check_store(MyStore))
    print(report)
    assert not report.broken

``make_store`` is called once per check and gives an empty store. With pytest, parametrise over ``CHECKS``
and await ``check.run(store)`` in the test.
"""

from raybolt.store.check.report import CHECKS, MakeStore, Outcome, Report, check_store, outcome_of
from raybolt.store.check.rules import Check, RuleBroken

__all__ = [
    "CHECKS",
    "Check",
    "MakeStore",
    "Outcome",
    "Report",
    "RuleBroken",
    "check_store",
    "outcome_of",
]

"""Conformance of a framework adapter: checks that anyone can run on their own adapter, without pytest.

Write an `AgentKit` (a handful of small agents), then::

    report = asyncio.run(run_checks(MyKit()))
    print(report)
    assert not report.broken

On the command line: ``python -m raybolt.adapters.check my_kit:MyKit``. With pytest, parametrise over
`applicable(MyKit())` and await `check.run(kit, way)` in the test.
"""

from raybolt.adapters.check.kit import NOWHERE, AgentKit, NotOffered, Way
from raybolt.adapters.check.report import CHECKS, Outcome, Report, applicable, outcome_of, run_checks
from raybolt.adapters.check.rules import Check, RuleBroken
from raybolt.adapters.check.scripted import ScriptedPolicy, call, say
from raybolt.adapters.check.server import ModelServer
from raybolt.adapters.check.table import table

__all__ = [
    "CHECKS",
    "NOWHERE",
    "AgentKit",
    "Check",
    "ModelServer",
    "NotOffered",
    "Outcome",
    "Report",
    "RuleBroken",
    "ScriptedPolicy",
    "Way",
    "applicable",
    "call",
    "outcome_of",
    "run_checks",
    "say",
    "table",
]

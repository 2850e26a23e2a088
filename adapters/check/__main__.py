"""Check adapters from the command line: `python -m raybolt.adapters.check my_kit:MyKit`."""

from __future__ import annotations

import argparse
import asyncio
import importlib

from raybolt.adapters.check.kit import AgentKit
from raybolt.adapters.check.report import run_checks
from raybolt.adapters.check.table import table


def main() -> int:
    """The exit status: 0 if every rule is kept, 1 otherwise."""
    parser = argparse.ArgumentParser(description="Run the conformance checks of framework adapters.")
    parser.add_argument("kits", nargs="+", metavar="MODULE:CLASS", help="an AgentKit, importable from here")
    parser.add_argument("--table", action="store_true", help="print one Markdown table instead of reports")
    options = parser.parse_args()
    reports = [asyncio.run(run_checks(_kit(kit))) for kit in options.kits]
    print(table(reports) if options.table else "\n\n".join(map(str, reports)))
    return int(any(report.broken for report in reports))


def _kit(place: str) -> AgentKit:
    module, _, name = place.partition(":")
    kit: AgentKit = getattr(importlib.import_module(module), name)()
    return kit


if __name__ == "__main__":
    raise SystemExit(main())

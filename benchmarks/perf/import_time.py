"""How long importing takes: `raybolt`, `raybolt.wrap`, each framework, and each adapter after that.

Every figure is the median over fresh interpreters, in milliseconds of wall clock and of CPU. `import raybolt`
imports no framework; an adapter's files are imported when the first agent of its framework runs.

    python -m raybolt.benchmarks.perf.import_time [--repeats 5] [--report FILE]
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

FRAMEWORKS = {  # adapter's folder -> what its users import
    "langchain": "langchain.agents, langgraph.graph, langchain_openai",
    "autogen": "autogen_agentchat.agents, autogen_agentchat.teams, autogen_ext.models.openai",
    "crewai": "crewai",
    "openai_agents": "agents",
    "agentscope": "agentscope.agent, agentscope.model",
    "openai_python": "openai",
}

_SCRIPT = """
import importlib, json, os, pkgutil, sys, time

def timed(names):
    wall, cpu = time.perf_counter(), time.process_time()
    for name in names:
        importlib.import_module(name)
    return 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu)

framework, adapter = sys.argv[1:]
found = {"raybolt": timed(["raybolt"]), "raybolt.wrap": timed(["raybolt.adapters.wrap"])}
found["framework"] = timed(framework.split(", "))
importlib.import_module("raybolt.env.run")
folder = importlib.import_module(f"raybolt.adapters.{adapter}")
found["adapter"] = timed([f"{folder.__name__}.{each.name}" for each in pkgutil.iter_modules(folder.__path__)])
print(json.dumps(found), flush=True)
os._exit(0)
"""

Times = tuple[float, float]
"""Wall clock and CPU, milliseconds."""


def measure(repeats: int) -> dict[str, Times]:
    """The medians, by what was imported."""
    taken: dict[str, list[Times]] = {}
    for _ in range(repeats):
        for adapter, framework in FRAMEWORKS.items():
            for what, times in _one(framework, adapter).items():
                name = what if what.startswith("raybolt") else f"{adapter} {what}"
                taken.setdefault(name, []).append(times)
    return {name: _medians(times) for name, times in taken.items()}


def _one(framework: str, adapter: str) -> dict[str, Times]:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, framework, adapter], capture_output=True, text=True, check=True
    )
    found: dict[str, Times] = json.loads(done.stdout.splitlines()[-1])
    return found


def _medians(times: list[Times]) -> Times:
    wall, cpu = (round(statistics.median(column), 1) for column in zip(*times, strict=True))
    return wall, cpu


def table(figures: dict[str, Times]) -> Table:
    result = Table("import", "wall ms", "CPU ms")
    for name, (wall, cpu) in figures.items():
        result.add_row(name, f"{wall:.0f}", f"{cpu:.0f}")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--report", type=Path, help="where to write the figures as JSON")
    options = parser.parse_args()
    load = os.getloadavg()
    figures = measure(options.repeats)
    Console().print(table(figures))
    if options.report:
        from raybolt.benchmarks.report import versions, write_json

        named = {
            name: dict(zip(("wall_ms", "cpu_ms"), times, strict=True)) for name, times in figures.items()
        }
        when = datetime.date.today().isoformat()
        machine = {"cores": os.cpu_count(), "load_before": load, "load_after": os.getloadavg(), "date": when}
        report = {"figures": named, "settings": {"repeats": options.repeats}, "machine": machine}
        write_json(options.report, {**report, "versions": versions()})


if __name__ == "__main__":
    main()

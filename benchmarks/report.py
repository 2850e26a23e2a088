"""What a run leaves for people: a JSON report, a plot of its rewards, and example trajectories as text."""

from __future__ import annotations

import dataclasses
import json
import math
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from raybolt.env.trajectory import Trajectory
from raybolt.store import names
from raybolt.store.types import Span

REPORTED_PACKAGES = (
    "raybolt",
    "ray",
    "torch",
    "transformers",
    "langchain",
    "langgraph",
    "gymnasium",
    "numpy",
)
MAX_SHOWN_LINES = 4


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on, and the machine they were made on."""
    found = {"python": platform.python_version(), "machine": platform.platform()}
    for package in REPORTED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def write_json(path: Path, report: Any) -> None:
    """Write the report, a dataclass or mapping; its folder is made if need be. NaN is written as null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_as_json(report), indent=2, allow_nan=False) + "\n")


def _as_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _as_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(each) for each in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and math.isnan(value) else value


def plot_rewards(
    path: Path, curves: Mapping[str, Sequence[float]], held_out: Mapping[str, float], *, title: str
) -> None:
    """Write a PNG: the mean training reward of each iteration, and held-out accuracies as dashed lines.

    Args:
        path: of the PNG; its folder must exist.
        curves: label to one value per iteration.
        held_out: label to an accuracy from 0 to 1.
        title: of the figure.
    """
    # The figure's own classes, not pyplot: no global state, and no display is looked for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for label, curve in curves.items():
        axes.plot(range(1, len(curve) + 1), curve, marker="o", markersize=3, label=label)
    for index, (label, accuracy) in enumerate(held_out.items(), start=len(curves)):
        shown = f"{label}: {100 * accuracy:.1f} %"
        axes.axhline(accuracy, linestyle="--", linewidth=1, color=f"C{index}", label=shown)
    axes.set(xlabel="iteration", ylabel="mean reward of the training rollouts", ylim=(0, 1), title=title)
    axes.grid(alpha=0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(path)


def pick_examples(before: Mapping[str, float | None], after: Mapping[str, float | None]) -> list[str]:
    """Ids of three tasks that both evaluations scored: one learned, one known all along, one still wrong.

    Within each kind it is the first, so nobody chose a pretty one; if a kind is empty, others fill up.
    """
    both = [task_id for task_id in before if task_id in after]
    kinds = [(0.0, 1.0), (1.0, 1.0), (0.0, 0.0)]
    firsts = [next((t for t in both if (before[t], after[t]) == kind), None) for kind in kinds]
    picked = [task_id for task_id in firsts if task_id is not None]
    return (picked + [task_id for task_id in both if task_id not in picked])[:3]


def trajectory_text(heading: str, trajectory: Trajectory, *, right: bool | None) -> str:
    """The run in lines: each SQL query with its rows or error, what the agent said last, right or wrong."""
    verdict = {True: "right", False: "wrong", None: f"failed: {trajectory.error}"}[right]
    lines = [f"  {heading}: {verdict}"]
    for span in trajectory.tool_spans:
        lines.append(f"    SQL    {_query(span)}")
        lines.extend(f"           {line}" for line in _shown(str(span.attributes.get(names.TOOL_RESULT, ""))))
    if trajectory.calls and trajectory.calls[-1].reply.content:
        lines.append(f"    says   {' '.join(trajectory.calls[-1].reply.content.split())[:200]}")
    return "\n".join(lines)


def _query(span: Span) -> str:
    arguments = span.attributes.get(names.TOOL_ARGUMENTS)
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except json.JSONDecodeError:
            return str(arguments)
    return str(arguments.get("query", arguments)) if isinstance(arguments, Mapping) else str(arguments)


def _shown(text: str) -> list[str]:
    lines = text.splitlines() or ["(nothing)"]
    hidden = len(lines) - MAX_SHOWN_LINES
    return lines[:MAX_SHOWN_LINES] + ([f"… {hidden} more lines"] if hidden > 0 else [])

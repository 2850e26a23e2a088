"""What `raybolt store` prints: rollouts, trees of spans, counts. Nothing here computes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.tree import Tree

from raybolt.console import err, out
from raybolt.store import names

if TYPE_CHECKING:
    from pathlib import Path

    from raybolt.store.types import Attempt, Rollout, Span

_COLOURS = {"succeeded": "green", "failed": "red", "cancelled": "red", "ok": "green", "error": "red"}
_WORDS = 60
"""Characters of a reply, a tool's result or an error that a line shows."""


def print_rollouts(found: Sequence[tuple[Rollout, Attempt | None]], *, num_found: int) -> None:
    """A line for each, and how many more there are."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("rollout", "status", "mode", "task", "group"):
        table.add_column(name)
    for name in ("calls", "tokens", "reward", "seconds"):
        table.add_column(name, justify="right")
    table.add_column("enqueued")
    for rollout, attempt in found:
        told = attempt.metadata if attempt is not None else {}
        took = None if rollout.end_time is None or attempt is None else rollout.end_time - attempt.start_time
        table.add_row(
            escape(rollout.rollout_id),
            _coloured(rollout.status),
            rollout.mode or "",
            escape(rollout.task_id or ""),
            escape(rollout.group_id or ""),
            _number(told.get("num_calls")),
            _number(told.get("num_tokens")),
            _number(told.get("reward"), ".3f"),
            _number(took, ".1f"),
            _moment(rollout.start_time),
        )
    out.print(table)
    more = num_found - len(found)
    if more:
        out.print(f"and {more} earlier; --limit 0 shows all")
    if not num_found:
        out.print("no rollout; fewer filters may find some")


def print_rollout(
    rollout: Rollout, attempt: Attempt | None, spans: Sequence[Span], *, num_attempts: int
) -> None:
    """Its head, then its spans as a tree."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("rollout", escape(rollout.rollout_id))
    table.add_row("status", _coloured(rollout.status))
    for name in ("mode", "task_id", "group_id"):
        if getattr(rollout, name) is not None:
            table.add_row(name.removesuffix("_id"), escape(getattr(rollout, name)))
    table.add_row("enqueued", _moment(rollout.start_time))
    table.add_row("input", escape(_short(rollout.input)))
    if attempt is not None:
        table.add_row("attempt", f"{attempt.sequence_id} of {num_attempts}, {_coloured(attempt.status)}")
        for name, value in attempt.metadata.items():
            table.add_row(escape(name), escape(_short(value)))
    out.print(table)
    for tree in _trees(spans):
        out.print(tree)
    if not spans:
        out.print("no spans")


def print_counts(folder: Path, counts: Mapping[str, Any]) -> None:
    """A line for each count."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("store", escape(str(folder)))
    for name, value in counts.items():
        if name == "bytes":
            table.add_row("on disk", size(value))
        elif name == "reward_mean":
            table.add_row("reward", f"mean {value:.3f}" if value is not None else "none")
        elif isinstance(value, Mapping):
            parts = ", ".join(f"{count:,} {key}" for key, count in value.items())
            table.add_row(name, f"{sum(value.values()):,}" + (f" ({parts})" if parts else ""))
        else:
            table.add_row(name, f"{value:,}")
    out.print(table)


def print_moved(counts: Mapping[str, int], where: Path) -> None:
    """What was written, in one line."""
    parts = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    out.print(f"{parts} in {escape(str(where))}")


def print_json(value: Any) -> None:
    """JSON; arrays are lists."""
    out.print(json.dumps(value, indent=2, default=lambda array: array.tolist()), markup=False)


@contextmanager
def span_progress(name: str, *, unit: str = "spans") -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, if that is a terminal; call it with what is done and what there is."""
    bar = Progress(
        TextColumn(name),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        console=err,
        disable=not err.is_terminal,
    )
    with bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def size(num_bytes: int) -> str:
    """12_345_678 as `12.3 MB`."""
    return f"{num_bytes / 1e6:.1f} MB" if num_bytes >= 1e5 else f"{num_bytes / 1e3:.1f} kB"


def _trees(spans: Sequence[Span]) -> list[Tree]:
    """A tree for each span whose parent is not there; children stand in the order in which they began."""
    trees = {span.span_id: Tree(_line(span)) for span in spans}
    roots = []
    for span in spans:
        parent = trees.get(span.parent_id or "")
        if parent is None:
            roots.append(trees[span.span_id])
        else:
            parent.children.append(trees[span.span_id])
    return roots


def _line(span: Span) -> str:
    """Name, time, tokens, reward, and the first words of what came out."""
    told = span.attributes
    parts = [f"[bold]{escape(span.name)}[/]", f"{(span.end_time - span.start_time) * 1e3:.0f} ms"]
    if names.INPUT_TOKENS in told or names.OUTPUT_TOKENS in told:
        parts.append(f"{told.get(names.INPUT_TOKENS, '?')} → {told.get(names.OUTPUT_TOKENS, '?')} tokens")
    if names.REWARD in told:
        version = told.get(names.REWARD_VERSION)
        parts.append(f"[cyan]{told[names.REWARD]:g}[/]" + (f" (version {version})" if version else ""))
    if span.status == "error":
        parts.append(f"[red]{escape(_short(span.status_message or 'error'))}[/]")
    elif words := _outcome(told):
        parts.append(f"[dim]{escape(words)}[/]")
    return "  ".join(parts)


def _outcome(told: Mapping[str, Any]) -> str:
    if messages := told.get(names.OUTPUT_MESSAGES):
        called = [f"{call['function']['name']}(…)" for call in messages[0].get("tool_calls", ())]
        return _short(" ".join([messages[0].get("content") or "", *called]))
    return _short(told[names.TOOL_RESULT]) if names.TOOL_RESULT in told else ""


def _short(value: Any) -> str:
    text = " ".join((value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).split())
    return text if len(text) <= _WORDS else f"{text[: _WORDS - 1]}…"


def _coloured(status: str) -> str:
    colour = _COLOURS.get(status)
    return f"[{colour}]{status}[/]" if colour else status


def _number(value: float | None, form: str = ",") -> str:
    return "" if value is None else format(value, form)


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))

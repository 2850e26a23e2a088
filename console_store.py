"""What `raybolt store` prints: rollouts, trees of spans, counts. Nothing here computes."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console, JustifyMethod
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.tree import Tree

from raybolt.console import err, out, printable, visible
from raybolt.store import names

if TYPE_CHECKING:
    from pathlib import Path

    from raybolt.store.types import Attempt, Rollout, Span

_COLOURS = {"succeeded": "green", "failed": "red", "cancelled": "red", "ok": "green", "error": "red"}
_WORDS = 60
"""Characters of a reply, a tool's result or an error that a line shows."""


def print_rollouts(found: Sequence[tuple[Rollout, Attempt | None]], *, has_more: bool) -> None:
    """A line for each, as wide as the terminal at most; a pipe gets every column in full."""
    in_full = not out.is_terminal
    width = _PIPE_WIDTH if in_full else out.width
    columns = [column for column in _COLUMNS if width >= column.from_width]
    rows = [_cells(rollout, attempt, in_full=in_full) for rollout, attempt in found]
    widths = _widths(columns, rows, width)
    table = Table(box=None, padding=(0, _GAP, 0, 0))
    for column in columns:
        table.add_column(column.name, justify=column.justify, no_wrap=True)
    for row in rows:
        table.add_row(*(_shown(name, row[name], most) for name, most in widths.items()))
    if found:
        Console(highlight=False, width=width, file=out.file, no_color=out.no_color).print(table)
    else:
        out.print("no rollout; fewer filters may find some")
    if has_more:
        out.print("and earlier ones; --limit 0 shows all")


@dataclass(frozen=True)
class _Column:
    name: str
    least: int | None = None
    """What a narrow terminal leaves of it; None for all."""
    justify: JustifyMethod = "left"
    from_width: int = 0
    """Of the terminal; narrower ones do without it."""


_PIPE_WIDTH = 10_000
_GAP = 2
_COLUMNS = (
    _Column("rollout", least=11),
    _Column("status"),
    _Column("mode", from_width=100),
    _Column("task", least=8),
    _Column("group", least=8, from_width=100),
    _Column("calls", justify="right", from_width=100),
    _Column("tokens", justify="right"),
    _Column("reward", justify="right"),
    _Column("seconds", justify="right"),
    _Column("enqueued"),
)


def _cells(rollout: Rollout, attempt: Attempt | None, *, in_full: bool) -> dict[str, str]:
    told = attempt.metadata if attempt is not None else {}
    cells = {
        "rollout": rollout.rollout_id if in_full else _short_id(rollout.rollout_id),
        "status": rollout.status,
        "mode": rollout.mode or "",
        "task": rollout.task_id or "",
        "group": rollout.group_id or "",
        "calls": _number(told.get("num_calls")),
        "tokens": _number(told.get("num_tokens")),
        "reward": _number(told.get("reward"), ".3f"),
        "seconds": _number(_seconds(rollout, attempt), ".1f"),
        "enqueued": _moment(rollout.start_time) if in_full else _recent(rollout.start_time),
    }
    return {name: visible(text).replace("\n", "\\n") for name, text in cells.items()}


def _widths(columns: Sequence[_Column], rows: Sequence[Mapping[str, str]], width: int) -> dict[str, int]:
    """How wide each column is at most, so that all fit, as far as they can be cut."""
    widths = {
        column.name: max([len(column.name), *(len(row[column.name]) for row in rows)]) for column in columns
    }
    for column in sorted(columns, key=lambda column: -widths[column.name]):
        excess = sum(widths.values()) + _GAP * len(columns) - width
        if column.least is not None and excess > 0:
            widths[column.name] = max(widths[column.name] - excess, min(column.least, widths[column.name]))
    return widths


def _shown(name: str, text: str, width: int) -> str:
    """The text, cut in its middle if need be; a rollout's at its end, since `show` wants how it begins."""
    if len(text) > width:
        tail = 0 if name == "rollout" else (width - 1) // 2
        text = f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"
    return _coloured(text) if name == "status" else printable(text)


def print_rollout(
    rollout: Rollout, attempt: Attempt | None, spans: Sequence[Span], *, num_attempts: int
) -> None:
    """Its head, then its spans as a tree."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("rollout", printable(rollout.rollout_id))
    table.add_row("status", _coloured(rollout.status))
    for name in ("mode", "task_id", "group_id"):
        if getattr(rollout, name) is not None:
            table.add_row(name.removesuffix("_id"), printable(getattr(rollout, name)))
    table.add_row("enqueued", _moment(rollout.start_time))
    took = _seconds(rollout, attempt)
    if took is not None:
        table.add_row("took", f"{took:.1f} s")
    table.add_row("input", printable(_short(rollout.input)))
    if attempt is not None:
        table.add_row("attempt", f"{attempt.sequence_id} of {num_attempts}, {_coloured(attempt.status)}")
        for name, value in attempt.metadata.items():
            table.add_row(printable(name), printable(_short(value)))
    out.print(table)
    for tree in _trees(spans):
        out.print(tree)
    if not spans:
        out.print("no spans")


def print_counts(where: str, counts: Mapping[str, Any]) -> None:
    """A line for each count that is known."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("store", printable(where))
    for name, (title, shown) in _COUNTS.items():
        if counts.get(name) is not None:
            table.add_row(title, printable(shown(counts[name])))
    out.print(table)


def size(num_bytes: int) -> str:
    """12_345_678 as `12.3 MB`."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= factor:
            return f"{num_bytes / factor:,.1f} {unit}"
    return f"{num_bytes / 1e3:.1f} kB"


def _parts(counts: Mapping[str, int]) -> str:
    """`5 (4 succeeded, 1 failed)`."""
    parts = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    return f"{sum(counts.values()):,}" + (f" ({parts})" if parts else "")


def _lost(lost: Mapping[str, Sequence[str]]) -> str:
    """What was in flight when the store was opened."""
    return _parts({name: len(ids) for name, ids in lost.items() if ids})


def _duration(seconds: float) -> str:
    """90_061 as `1 d 1 h`: the two largest units."""
    parts: list[str] = []
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        number, seconds = divmod(int(seconds), length)
        if number or (unit == "s" and not parts):
            parts.append(f"{number} {unit}")
    return " ".join(parts[:2])


def _count(number: int) -> str:
    return f"{number:,}"


_COUNTS: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "rollouts": ("rollouts", _parts),
    "modes": ("modes", _parts),
    "groups": ("groups", _parts),
    "attempts": ("attempts", _count),
    "attempts_in_flight": ("in flight", _count),
    "queued": ("queued", _count),
    "oldest_queued_seconds": ("oldest waits", _duration),
    "lost": ("lost at opening", _lost),
    "spans": ("spans", _count),
    "total_span_bytes": ("in memory", size),
    "total_resources": ("resources", _count),
    "total_workers": ("workers", _count),
    "calls": ("calls", _count),
    "tokens": ("tokens", _count),
    "reward_mean": ("reward", "mean {:.3f}".format),
    "num_shards": ("shards", _count),
    "journal_bytes": ("on disk", size),
    "uptime": ("up for", _duration),
}
"""By the names of `LightningStore.statistics`: what a line says, in this order."""


def print_moved(counts: Mapping[str, int], where: Path) -> None:
    """What was written, in one line."""
    parts = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    out.print(f"{parts} in {printable(str(where))}")


def print_json(value: Any) -> None:
    """JSON; arrays are lists, and numbers that JSON lacks are null."""
    out.print(json.dumps(finite(value), indent=2, allow_nan=False), markup=False)


def finite(value: Any) -> Any:
    """The value with lists for arrays, and None for NaN and infinities."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return finite(value.tolist()) if hasattr(value, "tolist") else value


@contextmanager
def progress(name: str, *, unit: str = "spans") -> Iterator[Callable[[int, int | None], None]]:
    """A bar on standard error, if that is a terminal; call it with what is done and what there is to do."""
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


def _trees(spans: Sequence[Span]) -> list[Tree]:
    """A tree for each span whose parent is not there; children stand in the order in which they began.

    Spans that are each other's parents, or their own, are shown below the first of them.
    """
    trees = {span.span_id: Tree(_line(span)) for span in spans}
    children: dict[str, list[str]] = {span.span_id: [] for span in spans}
    roots = []
    for span in spans:
        if span.parent_id in children:
            children[span.parent_id].append(span.span_id)
        else:
            roots.append(span.span_id)
    shown = set(_below(roots, children))
    for span in spans:
        if span.span_id not in shown:
            trees[span.span_id].label = f"{_line(span)}  [yellow](is below itself)[/]"
            roots.append(span.span_id)
            children[str(span.parent_id)].remove(span.span_id)
            shown.update(_below([span.span_id], children))
    for span_id, below in children.items():
        trees[span_id].children.extend(trees[each] for each in below)
    return [trees[root] for root in roots]


def _below(roots: Sequence[str], children: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """The ids of these spans and of all below them."""
    left = list(roots)
    while left:
        span_id = left.pop()
        yield span_id
        left += children[span_id]


def _line(span: Span) -> str:
    """Name, time, tokens, reward, and the first words of what came out."""
    told = span.attributes
    parts = [f"[bold]{printable(span.name)}[/]", f"{(span.end_time - span.start_time) * 1e3:.0f} ms"]
    if names.INPUT_TOKENS in told or names.OUTPUT_TOKENS in told:
        counts = (
            printable(_short(told.get(name, "?"))) for name in (names.INPUT_TOKENS, names.OUTPUT_TOKENS)
        )
        parts.append(f"{' → '.join(counts)} tokens")
    if names.REWARD in told:
        version = printable(_number(told.get(names.REWARD_VERSION), "g"))
        reward = printable(_number(told[names.REWARD], "g"))
        parts.append(f"[cyan]{reward}[/]" + (f" (version {version})" if version not in ("", "0") else ""))
    if span.status == "error":
        parts.append(f"[red]{printable(_short(span.status_message or 'error'))}[/]")
    elif words := _outcome(told):
        parts.append(f"[dim]{printable(words)}[/]")
    return "  ".join(parts)


def _outcome(told: Mapping[str, Any]) -> str:
    messages = told.get(names.OUTPUT_MESSAGES)
    if isinstance(messages, list) and messages and isinstance(messages[0], dict):
        return _said(messages[0])
    came_out = told.get(names.TOOL_RESULT, messages)
    return "" if came_out is None else _short(came_out)


def _said(message: Mapping[str, Any]) -> str:
    """What a message says, and which tools it calls; of one in a form of its own, all of it."""
    calls = message.get("tool_calls") or []
    try:
        called = [f"{call['function']['name']}(…)" for call in calls]
        return _short(" ".join([message.get("content") or "", *called]))
    except (KeyError, TypeError):
        return _short(message)


def _short(value: Any) -> str:
    """The value on one line, cut; what is no text as JSON."""
    text = value if isinstance(value, str) else json.dumps(finite(value), ensure_ascii=False)
    text = " ".join(text[: 100 * _WORDS].split())
    return text if len(text) <= _WORDS else f"{text[: _WORDS - 1]}…"


def _coloured(status: str) -> str:
    colour = _COLOURS.get(status)
    return f"[{colour}]{status}[/]" if colour else status


def _number(value: Any, form: str = ",") -> str:
    """The number in this form; what is none is shown as it is."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        with suppress(OverflowError):
            return format(value, form)
    return "" if value is None else _short(value)


def _seconds(rollout: Rollout, attempt: Attempt | None) -> float | None:
    """How long its last attempt took, once it has ended."""
    return None if rollout.end_time is None or attempt is None else rollout.end_time - attempt.start_time


def _short_id(rollout_id: str) -> str:
    """An id that the store made up is long; eight of its digits are unique enough for `show`."""
    made_up = re.fullmatch(r"ro-[0-9a-f]{32}", rollout_id)
    return rollout_id[:11] if made_up else rollout_id


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _recent(seconds: float) -> str:
    """The time of day; the day too if it is not today."""
    moment = time.localtime(seconds)
    is_today = time.strftime("%x", moment) == time.strftime("%x")
    return time.strftime("%H:%M:%S" if is_today else "%m-%d %H:%M", moment)

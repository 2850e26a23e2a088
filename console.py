"""What the commands print: progress, tables, one-line errors. Nothing here computes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from raybolt.store import names

if TYPE_CHECKING:
    from pathlib import Path

    from raybolt.env.diagnosis import Diagnosis
    from raybolt.rl.results import EvalResult, FitResult
    from raybolt.rl.results import Progress as TrainingProgress
    from raybolt.run_command import CommandRun
    from raybolt.store.types import Span

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)
PHASES = {"sft": "warm-up", "rl": "LightningRL"}


class ProgressView:
    """A bar per stage with the running reward on a terminal; a line per step in a log."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<24}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._current: TaskID | None = None
        self._name = ""

    @contextmanager
    def running(self) -> Iterator[ProgressView]:
        """Show the view while the block runs."""
        with self._bars:
            yield self
            self._end_stage()

    def stage(self, name: str) -> None:
        """Begin a stage: the one before it is over."""
        self._end_stage()
        self._name = name
        self._current = self._bars.add_task(name, total=None, note="")
        if not self._console.is_terminal:
            self._console.print(f"{name} …")

    def step(self, progress: TrainingProgress) -> None:
        """Show one training iteration; a `Trainer`'s `on_progress`."""
        note = _note(progress)
        phase = PHASES.get(progress.phase, progress.phase)
        if not self._console.is_terminal:
            self._console.print(f"{phase}: iteration {progress.iteration} of {progress.iterations}, {note}")
        elif self._current is not None:
            self._bars.update(
                self._current,
                description=f"{self._name}: {phase}",
                completed=progress.iteration,
                total=progress.iterations,
                note=note,
            )

    def _end_stage(self) -> None:
        if self._current is None:
            return
        [task] = [task for task in self._bars.tasks if task.id == self._current]
        if task.total is None:  # a stage without steps: its bar stops pulsing
            self._bars.update(self._current, total=1, completed=1)
        self._bars.stop_task(self._current)
        self._current = None


def _note(progress: TrainingProgress) -> str:
    if progress.reward_mean is not None:
        return f"reward {progress.reward_mean:.3f}"
    return f"loss {progress.loss:.3f}" if progress.loss is not None else ""


def print_error(message: str) -> None:
    """One line on standard error."""
    err.print(f"[bold red]error:[/] {printable(' '.join(message.split()))}")


def print_evaluation(result: EvalResult, *, of: str) -> None:
    """A score with its confidence interval, and what failed."""
    interval = f"95 % interval {percent(result.low)} to {percent(result.high)}"
    out.print(f"[bold]{percent(result.mean)}[/] ({interval}) on {of}")
    print_failures(result.errors, num_failed=result.num_failed)


def print_failures(errors: Mapping[str, int], *, num_failed: int) -> None:
    """How many rollouts failed and why, most frequent reason first; nothing if none did."""
    if not num_failed:
        return
    out.print(f"{num_failed} rollouts failed; they are left out of the score:")
    for text, count in sorted(errors.items(), key=lambda item: -item[1]):
        out.print(f"  {count} x {printable(text)}")


def print_fit(result: FitResult) -> None:
    """Where the time went and where everything lies."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("iterations", str(result.iterations))
    if result.reward_curve:
        table.add_row("training reward", f"{result.reward_curve[0]:.3f} → {result.reward_curve[-1]:.3f}")
    table.add_row("seconds", seconds(result.seconds))
    table.add_row("tokens", ", ".join(f"{name} {count:,}" for name, count in result.tokens.items()))
    for name, path in result.paths.items():
        table.add_row(name, printable(str(path)))
    out.print(table)


def print_demo(report: Mapping[str, Any], examples: Sequence[str]) -> None:
    """The demo's tables, then its example trajectories (plain text)."""
    held_out = report["held_out"]
    asked = f"{held_out['questions']} questions on {held_out['databases']} databases"
    table = Table(title=f"Right answers to {asked} never seen in training")
    table.add_column("agent")
    table.add_column("execution accuracy", justify="right")
    names = {
        "before": "before training",
        "sft": "after supervised warm-up",
        "rl": "after LightningRL",
        "control": "control: same, learning rate 0",
    }
    for key, name in names.items():
        if held_out.get(key) is not None:
            table.add_row(name, percent(held_out[key]))
    for text in examples:
        out.print(printable(text), style="dim")
        out.print()
    out.print(table)
    out.print(f"seconds      {seconds(report['seconds'])}")
    for name, path in report["paths"].items():
        out.print(f"{name:<12} {printable(str(path))}")


def print_calls(result: CommandRun, store: Path) -> None:
    """The LLM calls of a command, on standard error: standard output is the command's."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("role", "model", "tokens in", "out", "seconds", "reply"):
        table.add_column(name, justify="right" if name in ("tokens in", "out", "seconds") else "left")
    for span in result.calls:
        told = span.attributes
        tokens = (str(told.get(name, "")) for name in (names.INPUT_TOKENS, names.OUTPUT_TOKENS))
        seconds = f"{span.end_time - span.start_time:.2f}"
        model = str(told.get(names.REQUEST_MODEL, ""))
        table.add_row(
            printable(str(told[names.AGENT_NAME])),
            printable(model),
            *tokens,
            seconds,
            printable(_reply(span)),
        )
    if result.calls:
        err.print(table)
    else:
        err.print("no LLM call was seen")
    err.print(f"rollout {result.rollout_id} in {printable(str(store))}")
    if result.error is not None:
        print_error(result.error)


def print_diagnosis(diagnosis: Diagnosis, store: Path) -> None:
    """What there is to learn from, and what is wrong with it, worst first."""
    numbers = diagnosis.numbers
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("store", printable(str(store)))
    statuses = ", ".join(f"{count} {status}" for status, count in numbers.rollouts.items())
    table.add_row("rollouts", f"{sum(numbers.rollouts.values())} ({statuses})" if statuses else "0")
    table.add_row("LLM calls", f"{numbers.calls}, of which {numbers.trainable_calls} trainable")
    table.add_row("tokens", f"{numbers.tokens:,} sampled in trainable calls")
    table.add_row("groups", f"{numbers.groups} to compare, in {numbers.groups_with_signal} rewards differ")
    if numbers.reward_mean is not None:
        spread = f"{numbers.reward_min:.3f} to {numbers.reward_max:.3f}"
        table.add_row("reward", f"mean {numbers.reward_mean:.3f}, from {spread}")
    out.print(table)
    if not diagnosis.findings:
        out.print("[bold green]nothing wrong[/]")
    for finding in diagnosis.findings:
        colour = "red" if finding.fatal else "yellow"
        out.print(f"\n[bold {colour}]{finding.link}[/] {printable(finding.summary)}")
        if finding.rollout_ids:
            shown = ", ".join(finding.rollout_ids[:3])
            more = len(finding.rollout_ids) - 3
            out.print(f"  runs  {printable(shown)}{f' and {more} more' if more > 0 else ''}")
        if finding.span is not None:
            place = f"{finding.span.name} ({finding.span.span_id}) of {finding.span.rollout_id}"
            out.print(f"  span  {printable(place)}")
        out.print(f"  do    {printable(finding.remedy)}")


def print_json(value: Any) -> None:
    """A dataclass as JSON."""
    out.print(json.dumps(asdict(value), indent=2), markup=False)


def _reply(span: Span) -> str:
    """The first words of a call's answer, or why there was none."""
    messages = span.attributes.get(names.OUTPUT_MESSAGES)
    if not messages:
        return f"({span.status_message})"[:60]
    called = [f"{call['function']['name']}(…)" for call in messages[0].get("tool_calls", ())]
    return " ".join(" ".join([messages[0].get("content") or "", *called]).split())[:60]


def percent(share: float) -> str:
    """0.712 as `71.2 %`."""
    return f"{100 * share:.1f} %"


def seconds(parts: Mapping[str, float]) -> str:
    """`{"total": 61.2, "rollouts": 40.0}` as `61 total, 40 rollouts`."""
    return ", ".join(f"{value:.0f} {name}" for name, value in parts.items())


def printable(text: str) -> str:
    """The text as rich prints it as it is: brackets are no markup, and control codes are visible."""
    return escape(visible(text))


def visible(text: str) -> str:
    """The text with terminal control codes, changes of direction and halves of characters as `\\x1b`."""
    return _CONTROLS.sub(lambda found: ascii(found.group())[1:-1], text)


_CONTROLS = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")
"""All but line breaks and tabs."""

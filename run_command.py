"""What `raybolt run` does: one run of a command, recorded in a store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raybolt.adapters.command.adapter import CommandFailed
from raybolt.adapters.command.terminal import TerminalProgram
from raybolt.adapters.trace import trace
from raybolt.env.recorder import SpanRecorder
from raybolt.env.task import Task
from raybolt.store import names
from raybolt.store.types import Span


@dataclass(frozen=True, slots=True)
class CommandRun:
    """How it went."""

    rollout_id: str
    status: int
    """For a shell: the command's exit status, or 128 and the signal that ended it."""
    error: str | None
    """Why the rollout failed; None if it did not."""
    calls: tuple[Span, ...]
    """The LLM calls, in their order."""


def run_command(
    arguments: Sequence[str], *, store: Path, model: str | None, task: str | None, seed: int
) -> CommandRun:
    """One rollout in the store at `store`: the command, its LLM calls answered by `model` or by its own LLM.

    `task` is the input on its standard input, JSON or text; None leaves it the terminal's.
    """
    given = Task("run", None if task is None else _json_or_text(task))
    program = TerminalProgram(arguments)
    if model is None:
        return asyncio.run(_traced(program, given, store))
    from raybolt.run_on_model import answered  # loads torch, which a traced run has no use for

    recorder, error = asyncio.run(answered(program, given, store, model=model, seed=seed))
    return _ended(recorder, program, error)


async def _traced(program: TerminalProgram, task: Task, folder: Path) -> CommandRun:
    run = None
    try:
        async with trace(folder, input=task.input) as run:
            await program.run(task, run)
    except CommandFailed:  # kept by the trace
        assert run is not None
    return _ended(run.recorder, program, run.error)


def _ended(recorder: SpanRecorder, program: TerminalProgram, error: str | None) -> CommandRun:
    status = program.status if program.status is not None else 1
    calls = tuple(span for span in recorder.spans if span.attributes.get(names.OPERATION) == names.CHAT)
    return CommandRun(recorder.rollout_id, status if status >= 0 else 128 - status, error, calls)


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text

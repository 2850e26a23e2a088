"""Run a command such that nothing of it is left, however it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_PATIENCE_SECONDS = 0.3  # for a process to end by itself once it has been asked to


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that has ended."""

    status: int
    """Its exit status; negative: the signal that ended it."""
    output: str = ""
    errors: str = ""


async def run_to_end(
    arguments: Sequence[str], *, env: Mapping[str, str], cwd: Path | None, given: str | None
) -> Finished:
    """The command's exit status and output; `given` is its standard input.

    Files stand in for pipes, so that neither much output nor a child that outlives the command can hold it
    up. The command has a process group of its own, all of which is ended: killed once the command has ended,
    or asked and then killed within a second if this is cancelled.

    Raises:
        OSError: there is no such program or folder.
    """
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        source.write((given or "").encode())
        source.seek(0)
        status = await _run(arguments, env, cwd, (source, out, err))
        return Finished(status, _text(out), _text(err))


async def run_on_terminal(
    arguments: Sequence[str], *, env: Mapping[str, str], cwd: Path | None, given: str | None
) -> Finished:
    """The same, with this process's standard output and error, and its input unless one is given."""
    if given is None:
        return Finished(await _run(arguments, env, cwd, (None, None, None)))
    with tempfile.TemporaryFile() as source:
        source.write(given.encode())
        source.seek(0)
        return Finished(await _run(arguments, env, cwd, (source, None, None)))


async def _run(
    arguments: Sequence[str],
    env: Mapping[str, str],
    cwd: Path | None,
    files: tuple[IO[bytes] | None, IO[bytes] | None, IO[bytes] | None],
) -> int:
    process = await asyncio.create_subprocess_exec(
        *arguments, stdin=files[0], stdout=files[1], stderr=files[2],
        env=dict(env), cwd=cwd, start_new_session=True,
    )  # fmt: skip
    try:
        return await process.wait()
    except BaseException:
        _signal_group(process.pid, signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _PATIENCE_SECONDS)
        _signal_group(process.pid, signal.SIGKILL)
        await process.wait()  # reaped here: this loop may close next
        raise
    finally:
        _signal_group(process.pid, signal.SIGKILL)


def _signal_group(group: int, number: signal.Signals) -> None:
    """Signals whatever is left of the group: its first process, once reaped, is no longer in it."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # nobody left; macOS says the latter of zombies
        return


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")

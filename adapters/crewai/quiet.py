"""Keep CrewAI's runs to themselves: nothing sent, nothing written below the home, nothing on the console."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

import crewai_core.paths
from crewai.memory.storage.kickoff_task_outputs_storage import KickoffTaskOutputsSQLiteStorage
from crewai.utilities.task_output_storage_handler import TaskOutputStorageHandler
from crewai_core.printer import _suppress_console_output

from raybolt.adapters.patching import patched

_contained: ContextVar[bool] = ContextVar("raybolt_crewai_contained", default=False)

_OFF = {
    "CREWAI_DISABLE_TELEMETRY": "true",  # asked at every event, so it also counts after CrewAI's import
    "CREWAI_TRACING_ENABLED": "false",  # and with it the question whether to show traces
    "CREWAI_DISABLE_VERSION_CHECK": "true",
}
_STORAGE = "CREWAI_STORAGE_DIR"


def not_reported() -> None:
    """From now on CrewAI sends nothing by itself, unless the user has set its variables otherwise.

    They stay set: CrewAI's listeners work in threads of their own, some of them after a run has ended.
    """
    for name, value in _OFF.items():
        os.environ.setdefault(name, value)


def is_contained() -> bool:
    """Whether the code that runs here is inside `contained`."""
    return _contained.get()


@contextmanager
def contained() -> Iterator[None]:
    """A run in the block writes to a folder of this process instead of the home, and sends nothing.

    The record of task outputs for `crewai replay`, one for all of a project's runs, is not kept at all.
    """
    not_reported()
    token = _contained.set(True)
    try:
        with ExitStack() as stack:
            stack.enter_context(patched(crewai_core.paths, {"get_project_directory_name": _own_directory}))
            stack.enter_context(patched(KickoffTaskOutputsSQLiteStorage, {"_initialize_db": _nothing}))
            stack.enter_context(patched(TaskOutputStorageHandler, {"update": _nothing, "reset": _nothing}))
            yield
    finally:
        _contained.reset(token)


@contextmanager
def silent_unless_verbose(agent: Any) -> Iterator[None]:
    """In the block the console shows what the agent's author has asked for with `verbose`, or nothing.

    A Flow has no such option, so its panels are not shown.
    """
    members = [agent, *(getattr(agent, "agents", None) or ())]
    if any(getattr(member, "verbose", False) is True for member in members):
        yield
        return
    token = _suppress_console_output.set(True)
    try:
        yield
    finally:
        _suppress_console_output.reset(token)


@functools.cache
def _directory() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="raybolt-crewai-")  # goes with the process


def _own_directory(original: Callable[[], str]) -> Callable[[], str]:
    @functools.wraps(original)
    def guarded() -> str:
        return _directory().name if _contained.get() and _STORAGE not in os.environ else original()

    return guarded


def _nothing(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def guarded(*args: Any, **kwargs: Any) -> None:
        if not _contained.get():
            original(*args, **kwargs)

    return guarded

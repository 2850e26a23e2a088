"""What a run may leave behind in its process: nothing."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from raybolt.adapters.check.rules import expect
from raybolt.adapters.patching import active_patches
from raybolt.env.executor import threads

SETTLE_SECONDS = 5.0


@dataclass(frozen=True)
class Footprint:
    """Tasks of this loop and threads of this process, at one moment."""

    tasks: frozenset[asyncio.Task[Any]]
    threads: frozenset[threading.Thread]

    @classmethod
    def now(cls) -> Footprint:
        return cls(frozenset(asyncio.all_tasks()), frozenset(threading.enumerate()))

    def left_since(self, allowed_threads: Sequence[str] = ()) -> list[str]:
        """What is here that was not then; threads of which a name matches are the framework's own."""
        new_tasks = asyncio.all_tasks() - self.tasks
        new_threads = [
            thread.name
            for thread in set(threading.enumerate()) - self.threads
            if thread.name != "raybolt-agent"
            and not any(fnmatchcase(thread.name, pattern) for pattern in allowed_threads)
        ]
        busy = threads.num_busy
        return [
            *(f"task {task.get_name()}: {task.get_coro()!r}" for task in new_tasks),
            *(f"thread {name}" for name in new_threads),
            *([f"{busy} threads that still run agent code"] if busy else []),
            *(f"patch {patch}" for patch in active_patches()),
        ]


async def expect_nothing_left(before: Footprint, allowed_threads: Sequence[str]) -> None:
    """Raises RuleBroken if something of the run is still here after a while."""
    until = time.monotonic() + SETTLE_SECONDS
    while (left := before.left_since(allowed_threads)) and time.monotonic() < until:
        await asyncio.sleep(0.05)
    expect(
        not left,
        expected="no task, busy thread or patched class once the run is over",
        seen=left,
        remedy="undo in `bind`'s exit what `bind` did, and end what the adapter or the framework has started",
    )

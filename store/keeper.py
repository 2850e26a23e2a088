"""Core and journal behind one door: what a store's process runs, whoever asks it."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from .core import LightningCore
from .errors import StoreError, UnknownRollout
from .journal import Journal
from .record import NoRecorder
from .span_cache import SpanCache
from .types import Group, GroupHandle, Rollout

if TYPE_CHECKING:
    import pyarrow as pa

CACHE_BYTES = 512 * 2**20
"""Bytes of spans held in memory by a store that has a journal."""


Question: TypeAlias = tuple[str, dict[str, Any]]
"""An operation of the keeper and its arguments."""


class Keeper:
    """Answers the operations of ``StoreClient``, journalled before they are answered. Thread-safe.

    ``publish`` turns a sealed group's table into what a handle refers to. Attempts found in flight are
    given up, unless ``keep_in_flight`` says that those who run them are alive.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        publish: Callable[["pa.Table"], Any],
        keep_in_flight: bool = False,
        cache_bytes: int = CACHE_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._publish = publish
        self._lock = threading.RLock()
        self._waiters: dict[str, list[_Waiter]] = {}
        self._closed = False
        self._journal = Journal(folder) if folder is not None else None
        self._spans = SpanCache(self._journal.recall if self._journal else None, max_bytes=cache_bytes)
        core = self._core = LightningCore(
            clock=clock,
            recorder=self._journal or NoRecorder(),
            spans=self._spans,
            on_end=self._notify,
            snapshot=self._journal.load() if self._journal else None,
        )
        self._lost: dict[str, list[str]] = {"requeued": [], "failed": []}
        if not keep_in_flight:
            self._lost = core.abandon_in_flight("in flight when the store was opened")
            self._flush()
        self._operations: dict[str, Callable[..., Any]] = {
            "enqueue": core.enqueue,
            "start_rollout": core.start_rollout,
            "dequeue": core.dequeue,
            "update_rollout": core.update_rollout,
            "rollout": core.rollout,
            "rollouts": core.rollouts,
            "start_attempt": core.start_attempt,
            "update_attempt": core.update_attempt,
            "attempts": core.attempts,
            "latest_attempts": core.latest_attempts,
            "add_rows": core.add_rows,
            "rows": core.rows,
            "declare_group": core.groups.declare,
            "groups": core.groups.query,
            "take_groups": self._take_groups,
            "get_group": self._get_group,
            "add_resources": core.resources.add,
            "update_resources": core.resources.update,
            "resources": core.resources.get,
            "latest_resources": core.resources.latest,
            "statistics": self._statistics,
        }

    async def ask(self, operation: str, arguments: dict[str, Any]) -> Any:
        """Returns the operation's result once everything it changed is journalled."""
        if operation == "wait_for_rollouts":
            return await self._wait_for_rollouts(**arguments)
        (answer,) = await self.ask_many([(operation, arguments)])
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def ask_many(self, questions: Sequence[Question]) -> list[Any]:
        """Returns the answers to questions that need no waiting, in order; an exception is an answer too."""
        with self._lock:
            answers = [self._answer(operation, arguments) for operation, arguments in questions]
        if self._journal is None:
            return answers
        await asyncio.sleep(0)  # the calls of this tick of the loop share one transaction
        try:
            with self._lock:
                self._flush()
        except StoreError as error:
            return [error] * len(answers)
        return answers

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._journal is not None:
                self._journal.close()

    def _answer(self, operation: str, arguments: dict[str, Any]) -> Any:
        try:
            self._check_open()
            return self._operations[operation](**arguments)
        except Exception as error:  # whatever it is, it concerns this question's caller and no other
            return error

    def _flush(self) -> None:
        if self._journal is not None and not self._closed:
            self._journal.flush()
            self._spans.trim()

    def _check_open(self) -> None:
        if self._closed:
            where = "in memory" if self._folder is None else f"at {self._folder}"
            raise StoreError(f"the store {where} is closed; open a new one")

    # Groups

    def _take_groups(self, limit: int, *, group_id_in: Iterable[str] | None, claim: str) -> list[GroupHandle]:
        return [
            self._seal(group) for group in self._core.groups.take(limit, group_id_in=group_id_in, claim=claim)
        ]

    def _get_group(self, group_id: str) -> GroupHandle:
        return self._seal(self._core.groups.get(group_id))

    def _seal(self, group: Group) -> GroupHandle:
        from .blocks import encode_rows, num_sampled_tokens  # Arrow is loaded by the first group

        members = self._core.members(group.group_id)
        table = encode_rows(group.group_id, group.task_id, members)
        return GroupHandle(
            group_id=group.group_id,
            task_id=group.task_id,
            ref=self._publish(table),
            num_rollouts=len(members),
            num_succeeded=group.num_succeeded,
            num_spans=table.num_rows,
            num_tokens=num_sampled_tokens(table),
            nbytes=table.nbytes,
        )

    def _statistics(self) -> dict[str, Any]:
        return {**self._core.statistics(), "lost": self._lost}

    # Waiting

    async def _wait_for_rollouts(self, rollout_ids: list[str], timeout: float | None) -> list[Rollout]:
        with self._lock:
            self._check_open()
            waiter = _Waiter({id for id in rollout_ids if not self._rollout(id).ended})
            for rollout_id in waiter.pending:
                self._waiters.setdefault(rollout_id, []).append(waiter)
        await waiter.wait(timeout)
        with self._lock:
            for rollout_id in waiter.pending:
                self._waiters[rollout_id].remove(waiter)
            self._flush()
            return [rollout for rollout in map(self._rollout, rollout_ids) if rollout.ended]

    def _rollout(self, rollout_id: str) -> Rollout:
        rollout = self._core.rollout(rollout_id)
        if rollout is None:
            raise UnknownRollout(f"no rollout has the id {rollout_id!r}")
        return rollout

    def _notify(self, rollout_id: str) -> None:
        for waiter in self._waiters.pop(rollout_id, ()):
            waiter.note_end(rollout_id)


class _Waiter:
    """One caller, on its own event loop, waiting for rollouts to end."""

    def __init__(self, pending: set[str]) -> None:
        self.pending = pending
        self._loop = asyncio.get_running_loop()
        self._done = asyncio.Event()
        if not pending:
            self._done.set()

    async def wait(self, timeout: float | None) -> None:
        try:
            await asyncio.wait_for(self._done.wait(), timeout)
        except TimeoutError:
            return  # the caller gets those that ended in time

    def note_end(self, rollout_id: str) -> None:
        self.pending.discard(rollout_id)
        if not self.pending:
            self._loop.call_soon_threadsafe(self._done.set)

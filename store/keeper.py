"""Core and journal behind one door: what a store's process runs, whoever asks it."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from .clock import SteadyClock, Ticker
from .core import LightningCore
from .errors import StoreError, StoreFull
from .journal import Journal
from .layout import journal_bytes
from .reading import Reader
from .record import NoRecorder, Snapshot
from .room import Room
from .rows import SpanRow
from .sealing import Sealer
from .span_cache import SpanCache
from .spans import SpanBook
from .types import Change, EnqueueRolloutRequest, Group, GroupHandle, Rollout
from .waiting import Waiter, Waiters
from .watch import Watch

if TYPE_CHECKING:
    import pyarrow as pa

CACHE_BYTES = 512 * 2**20
"""Bytes of spans held in memory by a store that has a journal."""
SETTLE_SECONDS = 0.05
"""How long changes may wait before those who look at the journal from outside see them."""
PRUNE_SECONDS = 60.0
"""How often a store with a retention looks for what is too old."""

_TIME_STEP = 1e-6  # seconds; what a float of seconds since the epoch can tell apart

T = TypeVar("T")
Question: TypeAlias = tuple[str, dict[str, Any]]
"""An operation of the keeper and its arguments."""

_ANY_CHANGE = ""
"""What those wait for who wait for the feed to grow."""
_WAITING = frozenset({"wait_for_rollouts", "wait_for_groups", "changes"})


def waits(operation: str) -> bool:
    """Whether the answer may be long in coming, so that no other question should travel with this one."""
    return operation in _WAITING


class Keeper:
    """Answers the operations of ``StoreClient``, journalled before they are answered. Thread-safe.

    ``publish`` turns a sealed group's table into what a handle refers to. Attempts found in flight are
    given up, unless ``keep_in_flight`` says that those who run them are alive. Deadlines are kept by a
    thread of the keeper's own, also when nobody asks anything. Spans are refused where ``room`` has none.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        publish: Callable[["pa.Table"], Any],
        keep_in_flight: bool = False,
        cache_bytes: int = CACHE_BYTES,
        room: Room | None = None,
        retention_seconds: float | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._folder = folder
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._ended, self._completed, self._changed = Waiters(), Waiters(), Waiters()
        self._closed = False
        self._turns: set[asyncio.AbstractEventLoop] = set()
        """Event loops on which something was changed in their present turn."""
        self._retention_seconds = retention_seconds
        self._clock = clock or SteadyClock()
        self._opened = self._next_prune = self._reserved = self._clock()
        self._next_settling: float | None = None
        self._room = room
        journal = self._journal = Journal(folder) if folder is not None else None
        recorder = journal or NoRecorder()
        snapshot = journal.load() if journal else Snapshot()
        self._cache = SpanCache(journal.recall if journal else None, max_bytes=cache_bytes)
        watch = Watch(
            clock=self._clock,
            on_new=self._cache.expect,
            on_end=self._ended.notify,
            on_delete=self._forget,
            on_complete=self._completed.notify,
            on_change=lambda: self._changed.notify(_ANY_CHANGE),
            recall_changes=journal.recall_changes if journal else None,
        )
        core = self._core = LightningCore(recorder=recorder, watch=watch, snapshot=snapshot)
        self._spans = SpanBook(core, recorder, self._cache, snapshot)
        self._sealer = Sealer(self._spans.members, publish)
        self._ticker = Ticker(self._tick, self._clock)
        self._lost: dict[str, list[str]] = {"requeued": [], "failed": []}
        self._operations = self._all_operations()
        with self._lock:  # the clock may tick already
            if not keep_in_flight:
                self._lost = core.abandon_in_flight("in flight when the store was opened")
                self._flush()
            self._plan_tick()

    def _all_operations(self) -> dict[str, Callable[..., Any]]:
        core, spans = self._core, self._spans
        reader = Reader(core, spans)
        return {
            "enqueue": core.enqueue,
            "check_requests": self._check_requests,
            "queued": core.queued,
            "claimed": core.entries.claimed,
            "known": lambda rollout_ids: [id for id in rollout_ids if core.rollout(id) is not None],
            "start_rollout": core.start_rollout,
            "dequeue": core.dequeue,
            "update_rollout": core.update_rollout,
            "rollout": reader.rollout,
            "rollouts": reader.rollouts,
            "delete_rollouts": core.delete,
            "check_deletable": lambda rollout_ids: len(core.deletable(rollout_ids)),
            "prune": self._prune,
            "start_attempt": core.start_attempt,
            "update_attempt": core.update_attempt,
            "attempts": reader.attempts,
            "latest_attempts": core.latest_attempts,
            "add_rows": self._add_rows_or_hear,
            "check_attempts": self._check_attempts,
            "hear_from": self._hear_from,
            "rows": reader.rows,
            "next_sequence_ids": spans.next_sequence_ids,
            "declare_group": core.groups.declare,
            "groups": core.groups.query,
            "complete_groups": core.groups.complete,
            "take_groups": self._take_groups,
            "acknowledge_groups": core.groups.acknowledge,
            "check_taken": core.groups.check_taken,
            "get_group": self._get_group,
            "add_resources": core.resources.add,
            "update_resources": core.resources.update,
            "resources": core.resources.get,
            "query_resources": reader.resources,
            "check_resources": core.resources.check_known,
            "latest_resources": core.resources.latest,
            "reserve": self._reserve,
            "update_worker": core.update_worker,
            "worker": core.workers.get,
            "workers": reader.workers,
            "statistics": self._statistics,
            "compact": self._compact,
        }

    async def ask(self, operation: str, arguments: dict[str, Any]) -> Any:
        """Returns the operation's result once everything it changed is journalled."""
        if operation == "wait_for_rollouts":
            return await self._wait_for_rollouts(**arguments)
        if operation == "wait_for_groups":
            return await self._wait_for_groups(**arguments)
        if operation == "changes":
            return await self._changes(**arguments)
        (answer,) = await self.ask_many([(operation, arguments)])
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def ask_many(self, questions: Sequence[Question]) -> list[Any]:
        """Returns the answers to questions that need no waiting, in order; an exception is an answer too."""
        self._check_process()
        with self._lock:
            answers = [self._answer(operation, arguments) for operation, arguments in questions]
            self._plan_tick()
            if self._journal is None:
                return answers
            # What changed nothing, and was answered by what is journalled, flushes no more than the cache.
            if self._journal.flushed or self._is_first_of_turn():
                return self._flushed(answers)
        await asyncio.sleep(0)  # all but the first call of a turn of the loop share one transaction
        with self._lock:
            return self._flushed(answers)

    def close(self) -> None:
        """Writes what is pending and lets go of the folder; closing twice does nothing.

        Those who wait for something get StoreError. In a process that was forked off it does nothing.
        """
        if os.getpid() != self._pid:
            return
        with closing(self._ticker), self._lock:
            if self._closed:
                return
            self._closed = True
            for waiters in (self._ended, self._completed, self._changed):
                waiters.release()
            if self._journal is not None:
                self._journal.close()

    def _answer(self, operation: str, arguments: dict[str, Any]) -> Any:
        try:
            self._check_open()
            return self._operations[operation](**arguments)
        except Exception as error:  # whatever it is, it concerns this question's caller and no other
            return error

    def _is_first_of_turn(self) -> bool:
        """Whether it is the first change in this turn of the event loop, which is most often the only one."""
        loop = asyncio.get_running_loop()
        if loop in self._turns:
            return False
        self._turns.add(loop)
        loop.call_soon(self._turns.discard, loop)
        return True

    def _flushed(self, answers: list[Any]) -> list[Any]:
        """Returns the answers, once what they tell of is journalled; else errors in their places."""
        try:
            self._flush()
        except StoreError as error:
            return [error] * len(answers)
        return answers

    def _flush(self) -> None:
        """Journals what was changed; StoreError if that fails, or failed when the store was closed."""
        if self._journal is not None and not (self._closed and self._journal.flushed):
            self._journal.flush()
            self._cache.trim()
            self._core.feed.trim()
            if self._journal.waits and self._next_settling is None:
                self._next_settling = self._clock() + SETTLE_SECONDS
                self._plan_tick()

    def _check_process(self) -> None:
        """Comes before the lock, which may have been held when the process was forked off."""
        if os.getpid() != self._pid:
            where = "in memory" if self._folder is None else f"at {self._folder}"
            raise StoreError(
                f"the store {where} belongs to process {self._pid}, from which this one was forked; serve it "
                "there, and give this process an HttpStore"
            )

    def _check_open(self) -> None:
        if self._closed:
            where = "in memory" if self._folder is None else f"at {self._folder}"
            raise StoreError(f"the store {where} is closed; open a new one")

    def _check_requests(self, requests: Sequence[EnqueueRolloutRequest]) -> None:
        self._core.check_requests(requests, resolved=True)

    def _add_rows(self, rows: Sequence[SpanRow]) -> list[int]:
        if self._room is not None:
            self._room.check(sum(len(row.arrays) + len(row.attributes) for row in rows))
        return self._spans.add(rows)

    def _add_rows_or_hear(self, rows: Sequence[SpanRow]) -> list[int]:
        if not rows:
            return []  # for which there is room everywhere
        try:
            return self._add_rows(rows)
        except StoreFull:
            self._hear_from((row.rollout_id, row.attempt_id) for row in rows)
            raise

    def _check_attempts(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._spans.check(pairs)
        if self._room is None:
            return
        try:
            self._room.check(0)
        except StoreFull:
            self._hear_from(pairs)
            raise

    def _hear_from(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Notes that the attempts live, whose spans find no room: who waits for room is not silent."""
        attempts = dict.fromkeys(pairs)
        self._spans.check(attempts)
        for rollout_id, attempt_id in attempts:
            self._core.hear_from(*self._core.entries.get_attempt(rollout_id, attempt_id))

    def _reserve(self, resources_ids: Sequence[str | None]) -> tuple[list[str | None], list[float]]:
        """Resources and places in time for as many rollouts, which other shards may then enqueue."""
        resolved = self._core.resources.resolve(resources_ids)
        start = max(self._clock(), self._reserved + _TIME_STEP)
        times = [start + index * _TIME_STEP for index in range(len(resolved))]
        self._reserved = times[-1] if times else start
        return resolved, times

    # Time

    def _tick(self) -> None:
        """Does what is due. A journal that cannot be written says so to whoever asks next."""
        with self._lock:
            if self._closed:
                return
            self._core.expire()
            with suppress(StoreError):
                if self._retention_seconds is not None and self._clock() >= self._next_prune:
                    self._next_prune = self._clock() + PRUNE_SECONDS
                    self._prune(self._retention_seconds)
                self._flush()
                self._settle()
            self._plan_tick()

    def _settle(self) -> None:
        """Moves the journal's tail into its database if that is due, for those who look from outside."""
        if self._next_settling is not None and self._clock() >= self._next_settling:
            assert self._journal is not None, "without a journal nothing waits"
            self._next_settling = None
            self._journal.settle()

    def _plan_tick(self) -> None:
        when = self._core.next_deadline()
        if self._retention_seconds is not None:
            when = self._next_prune if when is None else min(when, self._next_prune)
        if self._next_settling is not None:
            when = self._next_settling if when is None else min(when, self._next_settling)
        self._ticker.wake_at(when)

    def _prune(self, older_than_seconds: float) -> int:
        return self._core.delete(self._core.ended_before(self._clock() - older_than_seconds))

    def _forget(self, rollout_id: str, attempt_ids: list[str]) -> None:
        num_spans = self._cache.forget(rollout_id)
        if num_spans is None:
            assert self._journal is not None, "without a journal every span is in the cache"
            num_spans = self._journal.count_spans(rollout_id)
        self._spans.forget(attempt_ids, num_spans)

    # Groups

    def _take_groups(
        self, limit: int, *, group_id_in: Iterable[str] | None, claim: str, lease_seconds: float | None
    ) -> list[GroupHandle]:
        groups = self._core.groups
        offered = groups.offered(limit, group_id_in=group_id_in, claim=claim)
        try:
            handles = self._sealer.seal_what_fits(offered, claim)
        except StoreError:
            groups.give_back(offered)
            raise
        sealed = {handle.group_id for handle in handles}
        taken = [group for group in offered if group.group_id in sealed]
        groups.take(taken, claim=claim)
        groups.give_back(group for group in offered if group.group_id not in sealed)  # or they would be lost
        if lease_seconds is not None:  # it counts from when the taker can begin
            groups.lease(taken, self._clock() + lease_seconds)
        return handles

    def _get_group(self, group_id: str) -> GroupHandle:
        (handle,) = self._sealer.seal_what_fits([self._core.groups.get(group_id)], claim=None)
        return handle

    # The store itself

    def _statistics(self) -> dict[str, Any]:
        counts = self._core.entries.counts()
        return {
            **counts,
            **self._core.queue_counts(),
            "groups": self._core.groups.count(),
            "spans": self._spans.num_spans,
            "lost": {kind: list(rollout_ids) for kind, rollout_ids in self._lost.items()},
            "total_rollouts": sum(counts["rollouts"].values()),
            "total_attempts": counts["attempts"],
            "total_spans": self._spans.num_spans,
            "total_resources": len(self._core.resources),
            "total_workers": len(self._core.workers),
            "total_span_bytes": self._cache.nbytes,
            "journal_bytes": journal_bytes(self._folder) if self._folder is not None else 0,
            "num_shards": 1,
            "uptime": self._clock() - self._opened,
        }

    def _compact(self) -> None:
        if self._journal is not None:
            self._journal.compact()

    # Waiting

    async def _wait_for_rollouts(self, rollout_ids: list[str], timeout: float | None) -> list[Rollout]:
        def those() -> list[Rollout]:
            return [self._core.entries.get(rollout_id).rollout for rollout_id in rollout_ids]

        return await self._wait(
            self._ended,
            lambda: {rollout.rollout_id for rollout in those() if not rollout.ended},
            lambda: [rollout for rollout in those() if rollout.ended],
            timeout,
        )

    async def _wait_for_groups(self, group_ids: list[str], timeout: float | None) -> list[Group]:
        def those() -> list[Group]:
            return [self._core.groups.get(group_id) for group_id in group_ids]

        return await self._wait(
            self._completed,
            lambda: {group.group_id for group in those() if group.status == "open"},
            lambda: [group for group in those() if group.status != "open"],
            timeout,
        )

    async def _changes(self, cursor: str, limit: int, timeout: float | None) -> list[Change]:
        def found() -> list[Change]:
            return self._core.feed.after(cursor, limit)

        return await self._wait(self._changed, lambda: set() if found() else {_ANY_CHANGE}, found, timeout)

    async def _wait(
        self, waiters: Waiters, pending: Callable[[], set[str]], read: Callable[[], T], timeout: float | None
    ) -> T:
        """Returns what is read, journalled, once nothing pends any more or the time is up.

        Whoever looks what pends is a waiter from then on, so that nothing can happen between the two.
        """
        self._check_process()
        with self._lock:
            self._check_open()
            waiter = Waiter(pending())
            waiters.add(waiter)
        try:
            await waiter.wait(timeout)
        finally:
            with self._lock:
                waiters.remove(waiter)
        with self._lock:
            self._check_open()
            self._flush()
            return read()

"""Where `raybolt store` reads from: a store's folder, its server, or a store on Ray; each asked alike.

A folder is read beside whoever has it open, in a snapshot of each journal. A store that is reached at work is
asked page by page, and may change in between.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count as counting
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, get_args

from raybolt.store.blocking import blocking
from raybolt.store.errors import InvalidValue, StoreError
from raybolt.store.types import Attempt, AttemptedRollout, Mode, Rollout, RolloutData, RolloutStatus, Span

if TYPE_CHECKING:
    from raybolt.store import HttpStore, RayStore

Outline: TypeAlias = tuple[Rollout, Attempt | None]
"""A rollout with its last attempt."""
Tried: TypeAlias = tuple[Attempt, Sequence[Span]]
"""An attempt with its spans."""
Progress: TypeAlias = Callable[[int, int | None], None]

RAY_SCHEME = "ray://"
RETRY_SECONDS = 2.0
"""How long a server may be away: who waits at a terminal would rather know."""
_PAGE = 500
_AT_ONCE = 16
"""Rollouts whose spans are asked for at the same time."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which rollouts a command is about; InvalidValue for a status or mode that there is not."""

    status: Sequence[str] = ()
    mode: str | None = None
    group: str | None = None
    task: str | None = None
    contains: str | None = None

    def __post_init__(self) -> None:
        for status in self.status:
            _check_one_of("--status", status, get_args(RolloutStatus))
        if self.mode is not None:
            _check_one_of("--mode", self.mode, get_args(Mode))

    def keeps(self, rollout: Rollout) -> bool:
        return (
            (not self.status or rollout.status in self.status)
            and self.mode in (None, rollout.mode)
            and (self.group is None or self.group in (rollout.group_id or ""))
            and self.task in (None, rollout.task_id)
            and (self.contains or "") in rollout.rollout_id
        )


class Source(Protocol):
    """What the commands ask a store."""

    export_unit: str
    """What the progress of an export is counted in."""

    def newest(self, wanted: Wanted) -> Iterator[Outline]:
        """Yields the rollouts, those enqueued last first."""

    def runs(self, wanted: Wanted) -> Iterator[RolloutData]:
        """Yields the rollouts with the spans of their last attempts, those enqueued first first."""

    def named(self, beginning: str) -> list[Rollout]:
        """Returns the rollouts whose ids begin so."""

    def attempts(self, rollout_id: str) -> list[Tried]:
        """Returns a rollout's attempts, oldest first."""

    def counts(self) -> dict[str, Any]:
        """Returns what `statistics` says, as far as it is known, and what else can be counted."""

    def num_rollouts(self) -> int:
        """Returns how many there are, read from no rollout."""

    def export(self, out: Path, progress: Progress) -> dict[str, int]:
        """Writes the whole store as Parquet; returns how many rows each file has."""

    def compact(self) -> tuple[int, int]:
        """Gives back the room of what was deleted; returns the bytes of the journals, before and after."""


@contextmanager
def opened(where: str, *, token: str | None = None, ca: Path | None = None) -> Iterator[Source]:
    """The store at a folder, an http(s) address or ``ray://NAME``; StoreError if there is none."""
    if where.startswith(("http://", "https://")):
        from raybolt.store import HttpStore

        store = HttpStore(where, token=token, ca=ca, retry_seconds=RETRY_SECONDS)
        try:
            yield LiveSource(store)
        finally:
            blocking(store.close())
    elif where.startswith(RAY_SCHEME):
        yield LiveSource(connected(where))
    else:
        yield FolderSource(checked_folder(where))


def checked_folder(where: str) -> Path:
    """Returns the folder; InvalidValue for what is meant as an address, or is a store at work."""
    if where.startswith(("http://", "https://", RAY_SCHEME)):
        raise InvalidValue(f"{where} is a store at work; give a folder")
    if re.fullmatch(r"[\w.-]+:\d+(/.*)?", where) and not os.path.exists(where):
        raise InvalidValue(f"{where} is no folder; give an address as http://{where}")
    try:
        os.stat(where)
    except FileNotFoundError:
        pass  # which each command says in its own words, or makes
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidValue(f"{where[:200]!r} cannot be looked at ({reason}); give a store's folder") from None
    return Path(where)


def connected(where: str) -> RayStore:
    """Returns the store on Ray that ``ray://NAME`` names; StoreError if no cluster or no such store runs."""
    import ray

    from raybolt.store import RayStore

    if not ray.is_initialized():
        try:
            ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError) as error:
            raise StoreError(
                f"{where}: no Ray cluster answers here; set RAY_ADDRESS to the one that has the store, and "
                f"RAY_AUTH_MODE=token with its token if it wants one ({error})"
            ) from None
    return RayStore.connect(where.removeprefix(RAY_SCHEME))


class FolderSource:
    """A store's folder."""

    export_unit = "spans"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def newest(self, wanted: Wanted) -> Iterator[Outline]:
        from raybolt.store.peek import read_outlines

        outlines = [each for each in read_outlines(self._folder) if wanted.keeps(each[0])]
        outlines.sort(key=lambda each: each[0].start_time)  # which mixes the shards
        return reversed(outlines)

    def runs(self, wanted: Wanted) -> Iterator[RolloutData]:
        from raybolt.store.peek import read_rollouts

        return (run for run in read_rollouts(self._folder) if wanted.keeps(run.rollout))

    def named(self, beginning: str) -> list[Rollout]:
        from raybolt.store.peek import read_outlines

        found = (rollout for rollout, _ in read_outlines(self._folder))
        return [rollout for rollout in found if rollout.rollout_id.startswith(beginning)]

    def attempts(self, rollout_id: str) -> list[Tried]:
        from raybolt.store.peek import read_attempts

        return list(read_attempts(self._folder, rollout_id))

    def counts(self) -> dict[str, Any]:
        from raybolt.store.peek import count, read_outlines

        counts = count(self._folder)
        oldest = counts.pop("oldest_queued_time")
        return {
            **counts,
            "oldest_queued_seconds": None if oldest is None else max(0.0, time.time() - oldest),
            **_outcomes(list(read_outlines(self._folder))),
        }

    def num_rollouts(self) -> int:
        from raybolt.store.peek import count

        return sum(count(self._folder)["rollouts"].values())

    def export(self, out: Path, progress: Progress) -> dict[str, int]:
        from raybolt.store.parquet import export_parquet

        return export_parquet(self._folder, out, on_progress=progress)

    def compact(self) -> tuple[int, int]:
        from raybolt.store import LocalStore
        from raybolt.store.layout import journal_bytes
        from raybolt.store.peek import journals_of

        folders = [file.parent for file in journals_of(self._folder)]
        before = sum(map(journal_bytes, folders))
        for folder in folders:
            store = LocalStore(folder, keep_in_flight=True)
            try:
                blocking(store.compact())
            finally:
                blocking(store.close())
        return before, sum(map(journal_bytes, folders))


class LiveSource:
    """A store at work, on Ray or behind a server."""

    def __init__(self, store: HttpStore | RayStore) -> None:
        self._store = store
        self.export_unit = "MB" if store.folder is None else "spans"

    def newest(self, wanted: Wanted) -> Iterator[Outline]:
        # What was enqueued at one moment comes in the order of enqueuing.
        for _, tied in groupby(self._outlines(wanted, "desc"), key=lambda each: each[0].start_time):
            yield from reversed(list(tied))

    def runs(self, wanted: Wanted) -> Iterator[RolloutData]:
        outlines = self._outlines(wanted, "asc")
        while batch := list(islice(outlines, _AT_ONCE)):
            yield from blocking(_gathered([self._run(*each) for each in batch]))

    def named(self, beginning: str) -> list[Rollout]:
        found = blocking(self._store.query_rollouts(rollout_id_contains=beginning))
        return [rollout for rollout in found if rollout.rollout_id.startswith(beginning)]

    def attempts(self, rollout_id: str) -> list[Tried]:
        attempts = blocking(self._store.query_attempts(rollout_id))
        spans = blocking(
            _gathered([self._store.query_spans(rollout_id, attempt.attempt_id) for attempt in attempts])
        )
        return list(zip(attempts, spans, strict=True))

    def counts(self) -> dict[str, Any]:
        return blocking(self._store.statistics())

    def num_rollouts(self) -> int:
        return sum(self.counts()["rollouts"].values())

    def export(self, out: Path, progress: Progress) -> dict[str, int]:
        from raybolt.store import HttpStore

        if isinstance(self._store, HttpStore):
            return self._store.export_parquet(out, on_bytes=lambda done: progress(done // 10**6, None))
        if self._store.folder is None:
            raise InvalidValue("this store is in memory only; one that a folder keeps can be exported")
        if not self._store.folder.exists():
            raise StoreError(f"{self._store.folder} is on another machine; run this command there")
        return FolderSource(self._store.folder).export(out, progress)

    def compact(self) -> tuple[int, int]:
        before = self.counts()["journal_bytes"]
        blocking(self._store.compact())
        return before, self.counts()["journal_bytes"]

    def _outlines(self, wanted: Wanted, order: Any) -> Iterator[Outline]:
        for page in counting():
            rollouts = blocking(
                self._store.query_rollouts(
                    status_in=wanted.status or None,  # type: ignore[arg-type]  # checked when it was made
                    mode=wanted.mode,  # type: ignore[arg-type]  # likewise
                    rollout_id_contains=wanted.contains,
                    sort_by="start_time",
                    sort_order=order,
                    limit=_PAGE,
                    offset=page * _PAGE,
                )
            )
            for rollout in filter(wanted.keeps, rollouts):
                yield rollout, rollout.attempt if isinstance(rollout, AttemptedRollout) else None
            if len(rollouts) < _PAGE:
                return

    async def _run(self, rollout: Rollout, attempt: Attempt | None) -> RolloutData:
        spans = await self._store.query_spans(rollout.rollout_id, attempt.attempt_id) if attempt else []
        return RolloutData(rollout, attempt, tuple(spans))


async def _gathered(calls: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
    return await asyncio.gather(*calls)


def _outcomes(outlines: Sequence[Outline]) -> dict[str, Any]:
    """What the runs said of themselves."""
    told = [attempt.metadata for _, attempt in outlines if attempt is not None]
    succeeded = [attempt for rollout, attempt in outlines if attempt and rollout.status == "succeeded"]
    rewards = _numbers(attempt.metadata.get("reward") for attempt in succeeded)
    return {
        "modes": dict(Counter(rollout.mode or "none" for rollout, _ in outlines)),
        "calls": sum(map(int, _numbers(each.get("num_calls") for each in told))),
        "tokens": sum(map(int, _numbers(each.get("num_tokens") for each in told))),
        "reward_mean": sum(rewards) / len(rewards) if rewards else None,
    }


def _numbers(values: Iterable[Any]) -> list[float]:
    """Those of the values that are finite numbers: metadata may say anything."""
    numbers = [each for each in values if isinstance(each, int | float) and not isinstance(each, bool)]
    return [float(each) for each in numbers if abs(each) <= sys.float_info.max]


def _check_one_of(option: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise InvalidValue(f"{option} is {value!r}; give one of {', '.join(allowed)}")

"""Several keepers as one: which shard a question goes to, and how their answers become one.

A rollout lives on the shard that its group's id (without a group: its own id) hashes to, so that a group can
be sealed as one object. Resources are kept by the first shard. What concerns several shards is asked of all
of them at once, after all have said that they will not refuse: so it still happens as a whole or not at all,
unless two callers contradict each other in that very moment.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, TypeAlias
from zlib import crc32

from .errors import InvalidValue, StoreFull, UnknownRollout
from .merging import (
    in_order_of,
    merged_changes,
    merged_page,
    merged_statistics,
    merged_worker,
    merged_workers,
    split_cursor,
)
from .types import (
    Attempt,
    AttemptedRollout,
    Change,
    EnqueueRolloutRequest,
    Group,
    GroupHandle,
    Rollout,
    Worker,
)

Ask: TypeAlias = Callable[[str, dict[str, Any]], Awaitable[Any]]
"""Asks one shard's keeper; raises what it raised."""
KNOWN_ROLLOUTS = 100_000
"""Rollouts whose shard a client remembers; of others it asks every shard."""


class ShardRouter:
    """Answers the operations of a ``Keeper`` from those of several."""

    def __init__(self, shards: Sequence[Ask]) -> None:
        self._shards = shards
        self._home: OrderedDict[str, int] = OrderedDict()  # rollout id -> shard
        self._special: dict[str, Callable[..., Awaitable[Any]]] = {
            "enqueue": self._enqueue,
            "start_rollout": self._start_rollout,
            "dequeue": self._dequeue,
            "update_rollout": self._update_rollout,
            "rollout": self._rollout,
            "rollouts": self._rollouts,
            "wait_for_rollouts": self._wait_for_rollouts,
            "delete_rollouts": self._delete_rollouts,
            "prune": self._summed("prune"),
            "latest_attempts": self._latest_attempts,
            "add_rows": self._add_rows,
            "next_sequence_ids": self._next_sequence_ids,
            "groups": self._groups,
            "wait_for_groups": self._wait_for_groups,
            "take_groups": self._take_groups,
            "acknowledge_groups": self._acknowledge_groups,
            "update_worker": self._update_worker,
            "worker": self._worker,
            "workers": self._workers,
            "changes": self._changes,
            "statistics": self._statistics,
            "compact": self._everywhere("compact"),
        }

    async def ask(self, operation: str, arguments: dict[str, Any]) -> Any:
        """Returns what a single keeper that held everything would answer."""
        if len(self._shards) == 1:
            return await self._shards[0](operation, arguments)
        if operation in self._special:
            return await self._special[operation](**arguments)
        if "resources" in operation:
            return await self._shards[0](operation, arguments)
        if "group_id" in arguments:
            return await self._shards[self._shard_of(arguments["group_id"])](operation, arguments)
        shard = await self._find(arguments["rollout_id"])
        return await self._shards[shard](operation, arguments)

    # Where things are

    def _shard_of(self, key: str) -> int:
        return crc32(key.encode("utf-8", "surrogatepass")) % len(self._shards)

    def _remember(self, rollouts: Iterable[Rollout]) -> None:
        for rollout in rollouts:
            self._home[rollout.rollout_id] = self._shard_of(rollout.group_id or rollout.rollout_id)
        while len(self._home) > KNOWN_ROLLOUTS:
            self._home.popitem(last=False)

    async def _find(self, rollout_id: str) -> int:
        """The shard that has the rollout; UnknownRollout if none has it."""
        if rollout_id not in self._home and await self._rollout(rollout_id) is None:
            raise UnknownRollout(f"no rollout has the id {rollout_id!r}")
        return self._home[rollout_id]

    async def _by_shard(self, rollout_ids: Iterable[str]) -> dict[int, list[str]]:
        """The ids, each once, by their shards; UnknownRollout if one has none."""
        parts: dict[int, list[str]] = {}
        for rollout_id in dict.fromkeys(rollout_ids):
            parts.setdefault(await self._find(rollout_id), []).append(rollout_id)
        return parts

    async def _ask_all(self, operation: str, arguments: Mapping[str, Any]) -> list[Any]:
        return await asyncio.gather(*(shard(operation, dict(arguments)) for shard in self._shards))

    async def _ask_some(self, operation: str, arguments: Mapping[int, dict[str, Any]]) -> dict[int, Any]:
        """Asks the shards that are named, each with its own arguments."""
        answers = await asyncio.gather(
            *(self._shards[shard](operation, given) for shard, given in arguments.items())
        )
        return dict(zip(arguments, answers, strict=True))

    def _everywhere(self, operation: str) -> Callable[..., Awaitable[None]]:
        async def ask(**arguments: Any) -> None:
            await self._ask_all(operation, arguments)

        return ask

    def _summed(self, operation: str) -> Callable[..., Awaitable[int]]:
        async def ask(**arguments: Any) -> int:
            return sum(await self._ask_all(operation, arguments))

        return ask

    # Rollouts

    async def _enqueue(self, requests: list[EnqueueRolloutRequest]) -> list[Rollout]:
        requests, times = await self._resolved(requests)
        parts: dict[int, list[EnqueueRolloutRequest]] = {}
        times_of: dict[int, list[float]] = {}
        for request, time in zip(requests, times, strict=True):
            shard = self._shard_of(request.group_id or str(request.rollout_id))
            parts.setdefault(shard, []).append(request)
            times_of.setdefault(shard, []).append(time)
        await self._check_ids(parts)
        if len(parts) > 1:
            await self._ask_some("check_requests", {s: {"requests": part} for s, part in parts.items()})
        answers = await self._ask_some(
            "enqueue", {s: {"requests": part, "times": times_of[s]} for s, part in parts.items()}
        )
        queued = {rollout.rollout_id: rollout for part in answers.values() for rollout in part}
        self._remember(queued.values())
        return [queued[str(request.rollout_id)] for request in requests]

    async def _start_rollout(
        self, request: EnqueueRolloutRequest, worker_id: str | None, attempt_id: str
    ) -> AttemptedRollout:
        (request,), (time,) = await self._resolved([request])
        shard = self._shard_of(request.group_id or str(request.rollout_id))
        await self._check_ids({shard: [request]})
        started: AttemptedRollout = await self._shards[shard](
            "start_rollout",
            {"request": request, "worker_id": worker_id, "attempt_id": attempt_id, "time": time},
        )
        self._remember([started])
        return started

    async def _resolved(
        self, requests: list[EnqueueRolloutRequest]
    ) -> tuple[list[EnqueueRolloutRequest], list[float]]:
        """The requests with their resources, and when each counts as enqueued: both by the first shard."""
        ids = [request.resources_id for request in requests]
        resolved, times = await self._shards[0]("reserve", {"resources_ids": ids})
        named = [replace(request, resources_id=id) for request, id in zip(requests, resolved, strict=True)]
        return named, times

    async def _check_ids(self, parts: Mapping[int, list[EnqueueRolloutRequest]]) -> None:
        """Raises InvalidValue if another shard than the one meant for a rollout has one of its id."""
        ids = [str(request.rollout_id) for part in parts.values() for request in part]
        meant = {str(request.rollout_id): shard for shard, part in parts.items() for request in part}
        taken = [id for id, count in Counter(ids).items() if count > 1]
        for shard, known in enumerate(await self._ask_all("known", {"rollout_ids": ids})):
            taken += [rollout_id for rollout_id in known if meant[rollout_id] != shard]
        if taken:
            raise InvalidValue(f"rollout_id {taken[0]!r} is taken; give another, or none")

    async def _dequeue(self, limit: int, worker_id: str | None, claim: str) -> list[AttemptedRollout]:
        """Takes those that have waited longest in all queues, though others take from them meanwhile."""
        numbers = range(len(self._shards))
        claims = {s: [f"{claim}-{turn}-{s}" for turn in numbers] for s in numbers}
        again, queues = await asyncio.gather(
            self._ask_some("claimed", {s: {"claims": each, "limit": limit} for s, each in claims.items()}),
            self._ask_all("queued", {"limit": limit}),
        )
        taken: list[AttemptedRollout] = [each for part in again.values() for each in part]
        if taken:  # asked for the second time: by now other shards may have what waited longest
            self._remember(taken)
            return sorted(taken, key=lambda each: each.start_time)
        for turn in numbers:
            if turn > 0:
                queues = await self._ask_all("queued", {"limit": limit - len(taken)})
            waiting = sorted((position, shard) for shard, queue in enumerate(queues) for position, _ in queue)
            shares: dict[int, int] = {}
            for _, shard in waiting[: limit - len(taken)]:
                shares[shard] = shares.get(shard, 0) + 1
            if not shares:
                break
            answers = await self._ask_some(
                "dequeue",
                {
                    shard: {"limit": share, "worker_id": worker_id, "claim": claims[shard][turn]}
                    for shard, share in shares.items()
                },
            )
            taken += in_order_of([shard for _, shard in waiting], answers)
            if len(taken) >= limit or len(waiting) <= sum(shares.values()):
                break
        if worker_id is not None and not taken:  # it asked, if in vain
            await self._shards[0]("dequeue", {"limit": 0, "worker_id": worker_id, "claim": claim})
        self._remember(taken)
        return taken

    async def _update_rollout(self, rollout_id: str, **changes: Any) -> Rollout:
        shard = await self._find(rollout_id)
        if isinstance(changes["resources_id"], str):
            await self._shards[0]("check_resources", {"resources_id": changes["resources_id"]})
        updated: Rollout = await self._shards[shard](
            "update_rollout", {"rollout_id": rollout_id, **changes, "resolved": True}
        )
        return updated

    async def _rollout(self, rollout_id: str) -> Rollout | None:
        if rollout_id in self._home:
            known: Rollout | None = await self._shards[self._home[rollout_id]](
                "rollout", {"rollout_id": rollout_id}
            )
            if known is not None:
                return known
            del self._home[rollout_id]  # somebody deleted it, and may have made another elsewhere
        found = [r for r in await self._ask_all("rollout", {"rollout_id": rollout_id}) if r is not None]
        self._remember(found)
        return found[0] if found else None

    async def _rollouts(self, **query: Any) -> list[Rollout]:
        rollouts = await merged_page(self._ask_all, "rollouts", query, Rollout, order="start_time")
        self._remember(rollouts)
        return rollouts

    async def _wait_for_rollouts(self, rollout_ids: list[str], timeout: float | None) -> list[Rollout]:
        parts = await self._by_shard(rollout_ids)
        answers = await self._ask_some(
            "wait_for_rollouts",
            {shard: {"rollout_ids": part, "timeout": timeout} for shard, part in parts.items()},
        )
        ended = {rollout.rollout_id: rollout for part in answers.values() for rollout in part}
        return [ended[rollout_id] for rollout_id in rollout_ids if rollout_id in ended]

    async def _delete_rollouts(self, rollout_ids: list[str]) -> int:
        await self._ask_all("check_deletable", {"rollout_ids": rollout_ids})
        num_deleted = sum(await self._ask_all("delete_rollouts", {"rollout_ids": rollout_ids}))
        for rollout_id in rollout_ids:
            self._home.pop(rollout_id, None)
        return num_deleted

    # Attempts and spans

    async def _latest_attempts(self, rollout_ids: list[str]) -> list[Attempt | None]:
        parts = await self._by_shard(rollout_ids)
        answers = await self._ask_some(
            "latest_attempts", {shard: {"rollout_ids": part} for shard, part in parts.items()}
        )
        found = {
            rollout_id: attempt
            for shard, part in parts.items()
            for rollout_id, attempt in zip(part, answers[shard], strict=True)
        }
        return [found[rollout_id] for rollout_id in rollout_ids]

    async def _add_rows(self, rows: list[Any]) -> list[int]:
        parts: dict[int, list[int]] = {}
        for index, row in enumerate(rows):
            parts.setdefault(await self._find(row.rollout_id), []).append(index)
        if len(parts) > 1:
            pairs = {
                shard: list(dict.fromkeys((rows[i].rollout_id, rows[i].attempt_id) for i in part))
                for shard, part in parts.items()
            }
            await self._ask_some("check_attempts", {shard: {"pairs": each} for shard, each in pairs.items()})
        answers = await self._ask_some(
            "add_rows", {shard: {"rows": [rows[i] for i in part]} for shard, part in parts.items()}
        )
        return sorted(parts[shard][i] for shard, repeated in answers.items() for i in repeated)

    async def _next_sequence_ids(self, pairs: list[tuple[str, str]]) -> list[int]:
        parts: dict[int, list[int]] = {}
        for index, (rollout_id, _) in enumerate(pairs):
            parts.setdefault(await self._find(rollout_id), []).append(index)
        answers = await self._ask_some(
            "next_sequence_ids", {s: {"pairs": [pairs[i] for i in part]} for s, part in parts.items()}
        )
        numbers = {i: n for s, part in parts.items() for i, n in zip(part, answers[s], strict=True)}
        return [numbers[index] for index in range(len(pairs))]

    # Groups

    async def _groups(self, status_in: list[str] | None, group_id_in: list[str] | None) -> list[Group]:
        answers = await self._ask_all("groups", {"status_in": status_in, "group_id_in": group_id_in})
        groups: list[Group] = [group for part in answers for group in part]
        if group_id_in is not None:
            by_id = {group.group_id: group for group in groups}
            return [by_id[group_id] for group_id in dict.fromkeys(group_id_in) if group_id in by_id]
        return sorted(groups, key=lambda group: group.create_time)

    async def _wait_for_groups(self, group_ids: list[str], timeout: float | None) -> list[Group]:
        parts = self._groups_by_shard(group_ids)
        answers = await self._ask_some(
            "wait_for_groups", {s: {"group_ids": part, "timeout": timeout} for s, part in parts.items()}
        )
        complete = {group.group_id: group for part in answers.values() for group in part}
        return [complete[group_id] for group_id in group_ids if group_id in complete]

    async def _take_groups(
        self, limit: int, group_id_in: list[str] | None, claim: str, lease_seconds: float | None
    ) -> list[GroupHandle]:
        """Takes those that were complete first on all shards, though others take from them meanwhile."""
        taken = await self._taken_before(claim, lease_seconds)
        if taken:
            return taken
        turn = 0
        while len(taken) < limit:
            query = {"limit": limit - len(taken), "group_id_in": group_id_in}
            ready = [group for part in await self._ask_all("complete_groups", query) for group in part]
            if not ready:
                break
            ready.sort(key=lambda group: group.complete_time or 0.0)
            chosen = [group.group_id for group in ready[: limit - len(taken)]]
            shared = {"claim": f"{claim}-{turn}", "lease_seconds": lease_seconds}
            handles, refusal = await self._take(self._groups_by_shard(chosen), shared)
            taken += [handles[group_id] for group_id in chosen if group_id in handles]
            if refusal is not None and not taken:
                raise refusal
            if refusal is not None:
                break
            turn += 1
        return taken

    async def _taken_before(self, claim: str, lease_seconds: float | None) -> list[GroupHandle]:
        """What the claim took when it was asked for the first time: none of that is complete any more."""
        everywhere: dict[int, list[str]] = {shard: [] for shard in range(len(self._shards))}
        taken: list[GroupHandle] = []
        for turn in count():
            shared = {"claim": f"{claim}-{turn}", "lease_seconds": lease_seconds}
            handles, refusal = await self._take(everywhere, shared)
            if refusal is not None and not handles and not taken:
                raise refusal
            if not handles:
                break
            taken += handles.values()
        return taken

    async def _take(
        self, parts: Mapping[int, list[str]], shared: Mapping[str, Any]
    ) -> tuple[dict[str, GroupHandle], StoreFull | None]:
        """What the shards hand out of these groups, and what one said that has no room for any of its own."""
        answers = await asyncio.gather(
            *(
                self._shards[shard]("take_groups", {"limit": len(part), "group_id_in": part, **shared})
                for shard, part in parts.items()
            ),
            return_exceptions=True,
        )
        refusal: StoreFull | None = None
        handles: dict[str, GroupHandle] = {}
        for answer in answers:
            if isinstance(answer, StoreFull):
                refusal = answer
            elif isinstance(answer, BaseException):
                raise answer
            else:
                handles.update((handle.group_id, handle) for handle in answer)
        return handles, refusal

    async def _acknowledge_groups(self, claims: list[tuple[str, str]]) -> None:
        parts: dict[int, dict[str, Any]] = {}
        for group_id, claim in claims:
            shard = self._shard_of(group_id)
            parts.setdefault(shard, {"claims": []})["claims"].append((group_id, claim))
        if len(parts) > 1:
            await self._ask_some("check_taken", parts)
        await self._ask_some("acknowledge_groups", parts)

    def _groups_by_shard(self, group_ids: Iterable[str]) -> dict[int, list[str]]:
        parts: dict[int, list[str]] = {}
        for group_id in group_ids:
            parts.setdefault(self._shard_of(group_id), []).append(group_id)
        return parts

    # Workers

    async def _update_worker(self, **arguments: Any) -> Worker:
        return merged_worker(await self._ask_all("update_worker", arguments))

    async def _worker(self, worker_id: str) -> Worker | None:
        found = [w for w in await self._ask_all("worker", {"worker_id": worker_id}) if w is not None]
        return merged_worker(found) if found else None

    async def _workers(self, **query: Any) -> list[Worker]:
        return await merged_workers(self._ask_all, query)

    # The store itself

    async def _changes(self, cursor: str, limit: int, timeout: float | None) -> list[Change]:
        """Reads what every shard has; if that is nothing, waits for the first that has something."""
        cursors = split_cursor(cursor, len(self._shards))

        def questions(timeout: float | None) -> dict[int, dict[str, Any]]:
            shared = {"limit": limit, "timeout": timeout}
            return {shard: {"cursor": at, **shared} for shard, at in enumerate(cursors)}

        answers = await self._ask_some("changes", questions(0))
        if timeout != 0 and not any(answers.values()):
            waits = [
                asyncio.ensure_future(self._shards[shard]("changes", question))
                for shard, question in questions(timeout).items()
            ]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:  # also if the caller gives up
                for wait in waits:
                    wait.cancel()
                await asyncio.gather(*waits, return_exceptions=True)
            answers = await self._ask_some("changes", questions(0))
        return merged_changes(cursors, answers, limit)

    async def _statistics(self) -> dict[str, Any]:
        workers = await self._workers(
            status_in=None,
            worker_id_contains=None,
            filter_logic="and",
            sort_by=None,
            sort_order="asc",
            limit=-1,
            offset=0,
        )
        return merged_statistics(await self._ask_all("statistics", {}), num_workers=len(workers))

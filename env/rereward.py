"""New rewards for stored trajectories: no agent runs again, and the old ones stay."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from raybolt.env.executor import is_cancelled, run_in_thread
from raybolt.env.foreign import sound
from raybolt.env.recorded import task_of, trajectory_of
from raybolt.env.recorder import describe
from raybolt.env.rewards import as_reward
from raybolt.env.run import RewardFunction
from raybolt.env.task import Task
from raybolt.env.trajectory import FINAL_REWARD, is_root, reward_version
from raybolt.store import names
from raybolt.store.base import LightningStore
from raybolt.store.errors import InvalidValue, StoreError
from raybolt.store.patience import add_when_room
from raybolt.store.types import Attempt, Mode, Rollout, RolloutStatus, Span
from raybolt.store.values import checked_count


@dataclass(frozen=True, slots=True)
class NewRewards:
    """What `re_reward` did."""

    version: int
    """Of the new rewards: what `trajectory_from_spans(…, reward_version=…)` takes."""
    rewards: dict[str, float]
    """The new final rewards, by rollout id."""
    errors: dict[str, str] = field(default_factory=dict)
    """Why a rollout could not be rewarded, by its id. Its whole group keeps the rewards it had."""


@dataclass(frozen=True, slots=True)
class _Stored:
    rollout: Rollout
    attempt: Attempt
    spans: Sequence[Span]

    @property
    def root(self) -> Span | None:
        return next(filter(is_root, self.spans), None)


async def re_reward(
    store: LightningStore,
    reward: RewardFunction,
    *,
    tasks: Iterable[Task] = (),
    rollout_id_in: Iterable[str] | None = None,
    group_id_in: Iterable[str] | None = None,
    mode: Mode | None = None,
    include_failed: bool = False,
    require_result: bool = True,
    concurrency: int = 8,
) -> NewRewards:
    """Calls `reward(task, result, trajectory)` on stored rollouts; what it says counts now.

    A new final reward is a further span of the rollout's last attempt, one version up. It replaces the final
    reward for all who read the trajectory (`get_group` included), and the older ones stay readable under
    their versions; rewards emitted inside the run go on counting. The reward in the attempt's metadata
    follows.

    Only rollouts that succeeded are judged, unless `include_failed` says otherwise. Then `trajectory.failed`,
    `.error` and `.origin` tell how a rollout failed, and the result is None unless the agent got as far as to
    return one. It stays failed, but has a return, and counts in its group as others do. Where the reward
    function returns None for a failed rollout, that stays without.

    Rollouts are chosen as by `query_rollouts`. `tasks` stand in, by task id, for what the store kept of the
    tasks. The result is what the run returned, as far as that was small JSON; without it a rollout is an
    error, or, with `require_result=False`, gets None. A reward function that raises is an error, too. A group
    in which there is an error keeps the rewards it had, all of them, since credit compares its rollouts.
    At most `concurrency` reward functions run at once, plain ones in threads.

    Raises:
        InvalidValue: `concurrency` is below 1.
        StoreError: somebody else wrote rewards of the same version meanwhile; call it again.
    """
    at_once = checked_count(concurrency, "concurrency", least=1)
    known = {task.task_id: task for task in tasks}
    stored = [
        found
        async for found in _ended(
            store, include_failed, rollout_id_in=rollout_id_in, group_id_in=group_id_in, mode=mode
        )
    ]
    version = 1 + max((reward_version(span) for each in stored for span in each.spans), default=0)
    free = asyncio.Semaphore(at_once)

    async def one(each: _Stored) -> float | str | None:
        async with free:
            try:
                task = known.get(str(each.rollout.task_id)) or task_of(each.rollout)
                return await _reward(reward, task, each, require_result)
            except asyncio.CancelledError as error:
                if is_cancelled():
                    raise
                return describe(error)
            except Exception as error:  # the reward function is the user's code; its failure is data
                return describe(error)

    outcomes = await asyncio.gather(*map(one, stored))
    errors = {
        each.rollout.rollout_id: outcome
        for each, outcome in zip(stored, outcomes, strict=True)
        if isinstance(outcome, str)
    }
    held_back = {_group(each) for each in stored if each.rollout.rollout_id in errors}
    rewards: dict[str, float] = {}
    groups: dict[str, list[_Stored]] = {}
    for each, outcome in zip(stored, outcomes, strict=True):
        if isinstance(outcome, float) and _group(each) not in held_back:
            rewards[each.rollout.rollout_id] = outcome
            groups.setdefault(_group(each), []).append(each)
    await _write_all(store, list(groups.values()), rewards, version)
    return NewRewards(version, rewards, errors)


async def _ended(store: LightningStore, include_failed: bool, **filters: Any) -> AsyncIterator[_Stored]:
    statuses: tuple[RolloutStatus, ...] = ("succeeded", "failed") if include_failed else ("succeeded",)
    rollouts = await store.query_rollouts(status_in=statuses, **filters)
    attempts = await store.get_latest_attempts([rollout.rollout_id for rollout in rollouts])
    for rollout, attempt in zip(rollouts, attempts, strict=True):
        if attempt is not None:  # a rollout may be declared failed before anybody tried
            spans = await store.query_spans(rollout.rollout_id, attempt.attempt_id)
            yield _Stored(rollout, attempt, sound(spans))


async def _reward(reward: RewardFunction, task: Task, stored: _Stored, require_result: bool) -> float | None:
    """The new reward; None if there is to be none, which only a failed rollout may stay without."""
    root, failed = stored.root, stored.rollout.status == "failed"
    kept = {} if root is None else root.attributes
    returned = not failed or names.RESULT_MISSING in kept
    if require_result and returned and names.RESULT not in kept:
        reason = kept.get(names.RESULT_MISSING, "the run was recorded without it")
        raise InvalidValue(
            f"the agent's result is not in the store: {reason}; judge by the trajectory, with "
            "require_result=False"
        )
    trajectory = trajectory_of(stored.rollout, stored.attempt, stored.spans)
    arguments = (task, kept.get(names.RESULT), trajectory)
    is_async = inspect.iscoroutinefunction(reward)
    value: Any = reward(*arguments) if is_async else await run_in_thread(reward, *arguments)
    value = await value if inspect.isawaitable(value) else value
    return None if failed and value is None else as_reward(value)


async def _write_all(
    store: LightningStore, groups: Sequence[Sequence[_Stored]], rewards: Mapping[str, float], version: int
) -> None:
    """Writes the new rewards, each group's by itself; then raises the first error, if there was one."""
    writing = (_write(store, group, rewards, version) for group in groups)
    results = await asyncio.gather(*writing, return_exceptions=True)
    failures = [result for result in results if result is not None]
    if failures:
        num_written = len(groups) - len(failures)
        failures[0].add_note(f"{num_written} of {len(groups)} groups have rewards of version {version}")
        raise failures[0]


async def _write(
    store: LightningStore, group: Sequence[_Stored], rewards: Mapping[str, float], version: int
) -> None:
    attempts = [(each.rollout.rollout_id, each.attempt.attempt_id) for each in group]
    numbers = await store.get_many_span_sequence_ids(attempts)
    spans = [
        _reward_span(each, rewards[each.rollout.rollout_id], version, number)
        for each, number in zip(group, numbers, strict=True)
    ]
    if len(await add_when_room(store, spans)) < len(spans):
        raise StoreError(f"{_group(group[0])} got rewards of version {version} meanwhile; reward again")
    await asyncio.gather(
        *(_follow(store, each, span, version) for each, span in zip(group, spans, strict=True))
    )


def _reward_span(stored: _Stored, reward: float, version: int, sequence_id: int) -> Span:
    attempt, root = stored.attempt, stored.root
    now = max((span.end_time for span in stored.spans), default=attempt.start_time)
    return Span(
        rollout_id=attempt.rollout_id,
        attempt_id=attempt.attempt_id,
        sequence_id=sequence_id,
        trace_id=root.trace_id if root is not None else "0" * 32,
        # Made from the version, so that two who write the same version at once notice.
        span_id=blake2b(f"{attempt.attempt_id}/{version}".encode(), digest_size=8).hexdigest(),
        parent_id=root.span_id if root is not None else None,
        name="reward",
        start_time=now,
        end_time=now,
        attributes={names.KIND: FINAL_REWARD, names.REWARD: reward, names.REWARD_VERSION: version},
    )


async def _follow(store: LightningStore, stored: _Stored, span: Span, version: int) -> None:
    """Has the attempt's metadata say what counts now."""
    trajectory = trajectory_of(stored.rollout, stored.attempt, [*stored.spans, span])
    metadata = {**stored.attempt.metadata, "reward": trajectory.total_reward, "reward_version": version}
    await store.update_attempt(stored.rollout.rollout_id, stored.attempt.attempt_id, metadata=metadata)


def _group(stored: _Stored) -> str:
    """What is rewarded as a whole: a group, or a rollout that has none."""
    group_id = stored.rollout.group_id
    return f"rollout {stored.rollout.rollout_id}" if group_id is None else f"group {group_id}"

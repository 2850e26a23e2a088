"""Random operations on stores, each answer compared with that of a simple model.

A walk is told by its seed: run it again with `-k "seed-3"`. One folder's store is closed and opened again at
random, another's is killed: opened again as its files are at that moment. Of the others, what was in flight
is then declared unresponsive by hand, which is what opening does.
"""

import random
from pathlib import Path
from typing import Any

import pytest
from store_model import IN_FLIGHT, Model
from store_samples import copy_of_killed, make_span
from store_sharded import ShardedStore

from raybolt.store import LightningStore, LocalStore, RayboltError, RolloutConfig

NUM_STEPS = 250
_CONFIGS = [
    RolloutConfig(),
    RolloutConfig(max_attempts=2, retry_condition=("failed",)),
    RolloutConfig(max_attempts=3, retry_condition=("unresponsive", "timeout")),
]


class Driver:
    """The model's operations, done by a store."""

    def __init__(self, store: LightningStore, folder: Path | None = None, *, killed: bool = False) -> None:
        self._store = store
        self._folder = folder
        self._killed = killed
        self._attempt_ids: dict[tuple[str, int], str] = {}

    async def enqueue(self, rollout_id: str, input: Any, group: str | None, config: RolloutConfig) -> str:
        rollout = await self._store.enqueue_rollout(
            input, rollout_id=rollout_id, group_id=group, config=config
        )
        return rollout.status

    async def dequeue(self, limit: int, worker: str | None) -> list[tuple[str, int]]:
        taken = await self._store.dequeue_many_rollouts(limit, worker_id=worker)
        return [self._note(one) for one in taken]

    async def start_attempt(self, rollout_id: str, worker: str | None) -> tuple[str, int]:
        return self._note(await self._store.start_attempt(rollout_id, worker))

    async def end_attempt(self, rollout_id: str, number: int, status: Any) -> str:
        attempt_id = self._attempt_ids.get((rollout_id, number), "nobody")
        return (await self._store.update_attempt(rollout_id, attempt_id, status)).status

    async def add_spans(self, rollout_id: str, number: int, sequence_ids: list[int]) -> list[int]:
        attempt = _Attempt(rollout_id, self._attempt_ids.get((rollout_id, number), "nobody"))
        spans = [make_span(attempt, sequence_id) for sequence_id in sequence_ids]  # type: ignore[arg-type]
        return [span.sequence_id for span in await self._store.add_many_spans(spans)]

    async def add_numbered(self, rollout_id: str, number: int) -> int:
        attempt_id = self._attempt_ids.get((rollout_id, number), "nobody")
        sequence_id = await self._store.get_next_span_sequence_id(rollout_id, attempt_id)
        await self.add_spans(rollout_id, number, [sequence_id])
        return sequence_id

    async def set_status(self, rollout_id: str, status: Any) -> str:
        return (await self._store.update_rollout(rollout_id, status=status)).status

    async def set_mode(self, rollout_id: str, mode: Any) -> str | None:
        return (await self._store.update_rollout(rollout_id, mode=mode)).mode

    async def declare(self, group: str, num_rollouts: int) -> str:
        return (await self._store.declare_group(group, num_rollouts)).status

    async def take(self, limit: int) -> list[str]:
        return [handle.group_id for handle in await self._store.take_groups(limit)]

    async def delete(self, rollout_ids: list[str]) -> int:
        return await self._store.delete_rollouts(rollout_ids)

    async def reopen(self, in_flight: list[tuple[str, int]]) -> None:
        if self._folder is not None:
            if self._killed:
                self._folder = copy_of_killed(self._folder, self._folder.with_name(f"{self._folder.name}-"))
            await self._store.close()
            self._store = LocalStore(self._folder, cache_bytes=20_000)
            return
        for rollout_id, number in in_flight:
            await self.end_attempt(rollout_id, number, "unresponsive")

    async def state(self) -> dict[str, Any]:
        store = self._store
        rollouts = await store.query_rollouts()
        attempts = {r.rollout_id: await store.query_attempts(r.rollout_id) for r in rollouts}
        order = {a.attempt_id: a.sequence_id for each in attempts.values() for a in each}
        groups = await store.query_groups()
        return {
            "rollouts": [(r.rollout_id, r.status, r.mode, r.group_id) for r in rollouts],
            "attempts": {id: [(a.status, a.worker_id) for a in each] for id, each in attempts.items()},
            "spans": {
                r.rollout_id: [
                    (order[s.attempt_id], s.sequence_id) for s in await store.query_spans(r.rollout_id)
                ]
                for r in rollouts
            },
            "groups": [(g.group_id, g.status, g.num_rollouts, g.num_ended, g.num_succeeded) for g in groups],
            "num_spans": (await store.statistics())["spans"],
            "busy": sorted(w.worker_id for w in await store.query_workers(status_in=["busy"])),
        }

    async def close(self) -> None:
        await self._store.close()

    def _note(self, taken: Any) -> tuple[str, int]:
        key = (taken.rollout_id, taken.attempt.sequence_id)
        self._attempt_ids[key] = taken.attempt.attempt_id
        return key


class _Attempt:
    """As much of an attempt as a span needs."""

    def __init__(self, rollout_id: str, attempt_id: str) -> None:
        self.rollout_id = rollout_id
        self.attempt_id = attempt_id


def random_operation(rng: random.Random, model: Model) -> tuple[str, tuple[Any, ...]]:
    """An operation that may well be refused: ids are drawn from few, known or not."""
    rollout_id = f"r{rng.randrange(30)}"
    rollout = model.rollouts.get(rollout_id)
    number = (
        rng.randint(1, len(rollout.attempts) + (rng.random() < 0.1)) if rollout and rollout.attempts else 1
    )
    worker = rng.choice([None, "w0", "w1"])
    group = rng.choice([None, "g0", "g1", "g2", "g3"])
    operations: list[tuple[int, str, tuple[Any, ...]]] = [
        (6, "enqueue", (rollout_id, rng.randrange(2), group, rng.choice(_CONFIGS))),
        (5, "dequeue", (rng.randint(0, 3), worker)),
        (2, "start_attempt", (rollout_id, worker)),
        (
            9,
            "end_attempt",
            (rollout_id, number, rng.choice(["succeeded", "failed", "timeout", "unresponsive"])),
        ),
        (8, "add_spans", (rollout_id, number, [rng.randrange(12) for _ in range(rng.randint(1, 3))])),
        (3, "add_numbered", (rollout_id, number)),
        (1, "set_status", (rollout_id, "cancelled")),
        (1, "set_mode", (rollout_id, rng.choice(["train", "val"]))),
        (3, "declare", (group or "g4", rng.randint(1, 3))),
        (3, "take", (rng.randint(1, 2),)),
        (3, "delete", ([rollout_id, *rng.sample(sorted(model.rollouts), min(1, len(model.rollouts)))],)),
        (1, "reopen", ()),
    ]
    if rollout and not any(attempt.status in IN_FLIGHT for attempt in rollout.attempts):
        operations.append((2, "set_status", (rollout_id, "queuing")))
    weights = [weight for weight, _, _ in operations]
    ((_, name, arguments),) = rng.choices(operations, weights)
    return name, arguments


async def answer_of(driver: Driver, name: str, arguments: tuple[Any, ...]) -> Any:
    try:
        return await getattr(driver, name)(*arguments)
    except RayboltError as error:
        return type(error).__name__


def expected_of(model: Model, name: str, arguments: tuple[Any, ...]) -> Any:
    try:
        return getattr(model, name)(*arguments)
    except RayboltError as error:
        return type(error).__name__


@pytest.mark.parametrize("seed", range(4), ids=lambda seed: f"seed-{seed}")
async def test_stores_answer_random_operations_as_a_simple_model_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr("raybolt.store.journal.MOST_WAITING", 10 * seed)
    rng, model = random.Random(seed), Model()
    drivers = {
        "memory": Driver(LocalStore(None)),
        "folder": Driver(LocalStore(tmp_path / "a", cache_bytes=20_000), tmp_path / "a"),
        "killed": Driver(LocalStore(tmp_path / "b", cache_bytes=20_000), tmp_path / "b", killed=True),
        "shards": Driver(ShardedStore(3)),
    }
    done: set[str] = set()
    for step in range(NUM_STEPS):
        name, arguments = random_operation(rng, model)
        for_drivers = (model.attempts_in_flight(),) if name == "reopen" else arguments
        expected = expected_of(model, name, arguments)
        for kind, driver in drivers.items():
            seen = await answer_of(driver, name, for_drivers)
            assert seen == expected, f"{kind}, step {step}: {name}{for_drivers}"
        done.add(name)
        if name == "reopen" or step % 25 == 0 or step == NUM_STEPS - 1:
            for kind, driver in drivers.items():
                assert await driver.state() == model.state(), f"{kind}, after step {step}"
    assert len(done) == 12
    for driver in drivers.values():
        await driver.close()

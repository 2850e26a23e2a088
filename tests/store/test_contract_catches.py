"""The shipped suite notices stores that break the contract, and says which rule, what it expected and saw."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from raybolt.store import (
    AttemptedRollout,
    GroupHandle,
    InvalidValue,
    LocalStore,
    Rollout,
    Span,
    StoreError,
    Worker,
)
from raybolt.store.check import CHECKS, RuleBroken, check_store
from raybolt.store.check.rules import expect, refused


class LastInFirstOut(LocalStore):
    async def dequeue_many_rollouts(
        self, limit: int = 1, *, worker_id: str | None = None
    ) -> list[AttemptedRollout]:
        return (await super().dequeue_many_rollouts(limit, worker_id=worker_id))[::-1]


class SaysEverySpanIsNew(LocalStore):
    async def add_many_spans(self, spans: Sequence[Span]) -> list[Span]:
        await super().add_many_spans(spans)
        return list(spans)


class InventsRollouts(LocalStore):
    async def get_rollout_by_id(self, rollout_id: str) -> Rollout | None:
        found = await super().get_rollout_by_id(rollout_id)
        return found or Rollout(rollout_id=rollout_id, input=None, start_time=0.0)


class TakesNoPosition(LocalStore):
    async def update_worker(self, worker_id: str, *, heartbeat_stats: Any = None) -> Worker:  # type: ignore[override]
        return await super().update_worker(worker_id, heartbeat_stats)


class TakesAnyonesAcknowledgement(LocalStore):
    async def acknowledge_groups(self, handles: Iterable[GroupHandle]) -> None:
        given = list(handles)
        groups = await self.query_groups(group_id_in=[handle.group_id for handle in given])
        takers = {group.group_id: group.taken_by for group in groups}
        await super().acknowledge_groups(
            [replace(handle, claim=takers.get(handle.group_id) or handle.claim) for handle in given]
        )


class QueuesByEnqueuing(LocalStore):
    async def dequeue_many_rollouts(
        self, limit: int = 1, *, worker_id: str | None = None
    ) -> list[AttemptedRollout]:
        taken = await super().dequeue_many_rollouts(limit, worker_id=worker_id)
        return sorted(taken, key=lambda rollout: rollout.rollout_id)


class CountsTheDequeuedAsQueued(LocalStore):
    async def statistics(self) -> dict[str, Any]:
        counts = await super().statistics()
        return {**counts, "queued": counts["queued"] + counts["rollouts"].get("preparing", 0)}


class RaisesWhatItLikes(LocalStore):
    async def get_rollout_by_id(self, rollout_id: str) -> Rollout | None:
        raise ZeroDivisionError("oh")


@pytest.mark.parametrize(
    ("store", "check", "texts"),
    [
        (LastInFirstOut, "queue_order", ["the rest of the queue", "['r1', 'r2']", "['r2', 'r1']"]),
        (SaysEverySpanIsNew, "repeated_spans", ["expected: ['span-2', 'span-1']", "'span-2']"]),
        (InventsRollouts, "unknown_ids", ["an unknown rollout", "expected: None", "rollout_id='nobody'"]),
        (TakesNoPosition, "positional_parameters", ["update_worker", "('heartbeat_stats', UNSET)"]),
        (
            TakesAnyonesAcknowledgement,
            "late_acknowledgement",
            ["InvalidTransition about 'g', lease", "seen: no error"],
        ),
        (
            QueuesByEnqueuing,
            "requeued_one_after_another",
            ["the queue", "'r4', 'r1', 'r5', 'r0'", "'r0', 'r1', 'r2'"],
        ),
        (CountsTheDequeuedAsQueued, "statistics", ["the counts", "'queued': 1", "'queued': 2"]),
        (RaisesWhatItLikes, "enqueued_rollout", ["ZeroDivisionError: oh"]),
    ],
)
async def test_a_store_that_breaks_a_rule_is_caught(store: Any, check: str, texts: list[str]) -> None:
    chosen = [one for one in CHECKS if one.name == check]
    report = await check_store(store, chosen)
    (outcome,) = report.broken
    assert outcome.check.name == check
    for text in texts:
        assert text in str(report)
    assert str(report).startswith(f"0 of 1 rules kept\nbroken  {check}: {outcome.check.rule}\n")


async def test_a_store_that_keeps_the_rules_is_reported_in_a_line() -> None:
    report = await check_store(LocalStore, [one for one in CHECKS if one.name in ("retries", "versions")])
    assert report.broken == ()
    assert str(report) == "2 of 2 rules kept"


def test_every_rule_has_a_name_of_its_own_and_a_sentence() -> None:
    assert len({check.name for check in CHECKS}) == len({check.rule for check in CHECKS}) == len(CHECKS)
    assert all(len(check.rule.split()) > 2 for check in CHECKS)


def test_an_error_of_the_wrong_kind_or_without_its_value_breaks_a_rule() -> None:
    with (
        pytest.raises(RuleBroken, match="expected: InvalidValue, a ValueError\n  seen: KeyError: 'x'"),
        refused(InvalidValue),
    ):
        raise KeyError("x")
    with (
        pytest.raises(RuleBroken, match=r"expected: that it has \['limit'\]\n  seen: nonsense"),
        refused(InvalidValue, "limit"),
    ):
        raise InvalidValue("nonsense")
    with (
        pytest.raises(RuleBroken, match="expected: InvalidValue about limit\n  seen: no error"),
        refused(InvalidValue, "limit"),
    ):
        pass
    with pytest.raises(RuleBroken, match="StoreError"), refused(StoreError):  # which is no ValueError
        raise StoreError("x")
    with pytest.raises(RuleBroken, match="the answer\n  expected: 1\n  seen: 2"):
        expect(2, 1, "the answer")

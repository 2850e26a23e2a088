"""How a run's end reaches the store, which may be full."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from store_samples import make_span

from raybolt.env.report import report
from raybolt.store import AttemptedRollout, LocalStore, RolloutConfig, Span, StoreFull


class Full(LocalStore):
    """Refuses all spans, until `has_room` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.has_room = False
        self.refused = asyncio.Event()

    async def add_many_spans(self, spans: Sequence[Span]) -> list[Span]:
        if self.has_room:
            return await super().add_many_spans(spans)
        self.refused.set()
        raise StoreFull("no room on /disk")


SUCCESS = {"num_calls": 1, "num_tokens": 5, "reward": 1.0}
FAILURE = {"num_calls": 0, "error": "KeyError: 'weather'", "origin": "agent"}


def reporting(store: LocalStore, started: AttemptedRollout, outcome: Any, **options: Any) -> Any:
    spans = [make_span(started.attempt, number) for number in range(3)]
    return report(store, started.rollout_id, started.attempt.attempt_id, spans, outcome, **options)


@pytest.mark.parametrize(("outcome", "status"), [(SUCCESS, "succeeded"), (FAILURE, "failed")])
async def test_the_store_gets_the_spans_and_the_outcome(outcome: dict[str, Any], status: str) -> None:
    async with LocalStore() as store:
        started = await store.start_rollout("x", rollout_id="r")
        assert await reporting(store, started, outcome) == outcome
        (attempt,) = await store.query_attempts("r")
        assert (attempt.status, attempt.metadata) == (status, outcome)
        assert len(await store.query_spans("r")) == 3


async def test_no_attempt_has_succeeded_before_its_spans_are_there() -> None:
    async with Full() as store:
        started = await store.start_rollout("x", rollout_id="r")
        telling = asyncio.create_task(reporting(store, started, SUCCESS))
        await store.refused.wait()
        (attempt,) = await store.query_attempts("r")
        assert attempt.end_time is None
        store.has_room = True
        assert await telling == SUCCESS
        (attempt,) = await store.query_attempts("r")
        assert attempt.status == "succeeded"
        assert [span.sequence_id for span in await store.query_spans("r")] == [0, 1, 2]


async def test_a_run_whose_spans_find_no_room_in_time_has_failed_and_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Full() as store:
        started = await store.start_rollout("x", rollout_id="r")
        said = await reporting(store, started, SUCCESS, limit_seconds=0.01)
        (attempt,) = await store.query_attempts("r")
        assert attempt.status == "failed"
        assert attempt.metadata == said == {
            "num_calls": 1,
            "num_tokens": 5,
            "error": "its 3 spans found no room in the store within 0.01 s: no room on /disk",
            "error_type": "StoreFull",
            "origin": "store",
        }  # fmt: skip
        assert caplog.messages[-1].startswith("Rollout r failed: its 3 spans found no room in the store")


async def test_a_run_that_is_cancelled_while_it_waits_has_failed_and_says_why() -> None:
    async with Full() as store:
        started = await store.start_rollout("x", rollout_id="r")
        telling = asyncio.create_task(reporting(store, started, SUCCESS))
        await store.refused.wait()
        telling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await telling
        (attempt,) = await store.query_attempts("r")
        assert (attempt.status, attempt.metadata["origin"]) == ("failed", "store")
        assert attempt.metadata["error"] == (
            "it was cancelled while its 3 spans waited for room: no room on /disk"
        )


async def test_a_run_that_is_cancelled_for_another_reason_is_left_as_it_is() -> None:
    class Slow(LocalStore):
        async def add_many_spans(self, spans: Sequence[Span]) -> list[Span]:
            await asyncio.Event().wait()
            raise AssertionError("never")

    async with Slow() as store:
        started = await store.start_rollout("x", rollout_id="r")
        telling = asyncio.create_task(reporting(store, started, SUCCESS))
        await asyncio.sleep(0)
        telling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await telling
        (attempt,) = await store.query_attempts("r")
        assert (attempt.status, attempt.metadata) == ("preparing", {})


async def test_the_end_of_an_attempt_that_took_too_long_changes_nothing_and_its_spans_are_kept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with LocalStore() as store:
        config = RolloutConfig(timeout_seconds=0.01)
        started = await store.start_rollout("x", rollout_id="r", config=config)
        await store.wait_for_rollouts(["r"])
        await reporting(store, started, SUCCESS)
        (attempt,) = await store.query_attempts("r")
        assert attempt.status == "timeout"
        assert len(await store.query_spans("r")) == 3
        assert "Rollout r: that it succeeded came too late: attempt" in caplog.messages[-1]

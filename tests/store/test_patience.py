"""How writers wait for a store that is full."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import pytest
from store_samples import make_span

from raybolt.store import (
    LocalStore,
    RolloutConfig,
    Span,
    StoreFull,
    UnknownRollout,
    add_when_room,
    patience,
)


class FullAtFirst(LocalStore):
    """Refuses spans the first so many times."""

    def __init__(self, num_refusals: int) -> None:
        super().__init__()
        self.num_refusals = num_refusals
        self.num_asked = 0

    async def add_many_spans(self, spans: Sequence[Span]) -> list[Span]:
        self.num_asked += 1
        if self.num_asked <= self.num_refusals:
            raise StoreFull(f"refusal {self.num_asked}")
        return await super().add_many_spans(spans)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(patience, "_LONGEST_PAUSE_SECONDS", 0.05)


def pauses_in(caplog: pytest.LogCaptureFixture) -> list[Any]:
    """What the log says of each pause: its length in seconds."""
    return [record.args[3] for record in caplog.records if record.args and len(record.args) == 5]


async def test_spans_are_sent_again_after_growing_pauses_until_there_is_room(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with FullAtFirst(5) as store:
        started = await store.start_rollout("x", rollout_id="r")
        spans = [make_span(started.attempt, 1), make_span(started.attempt, 2)]
        added = await add_when_room(store, spans)
        assert [span.span_id for span in added] == ["span-1", "span-2"]
        assert [span.sequence_id for span in await store.query_spans("r")] == [1, 2]
        assert store.num_asked == 6
    assert pauses_in(caplog) == [0.01, 0.02, 0.04, 0.05, 0.05]
    assert caplog.messages[0] == (
        "Rollouts r stand still, since their 2 spans find no room: refusal 1. "
        "Next try in 0.0 s; given up in 3600 s."
    )
    assert caplog.messages[-1] == "There is room again: Rollouts r go on."


async def test_a_store_with_room_is_asked_once_and_nothing_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, logger="raybolt")
    async with FullAtFirst(0) as store:
        started = await store.start_rollout("x")
        span = make_span(started.attempt, 1)
        assert await add_when_room(store, [span]) == [span]
        assert await add_when_room(store, [span]) == []
        assert store.num_asked == 2
    assert caplog.messages == []


async def test_tries_come_before_the_store_takes_the_silent_attempt_for_dead(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with FullAtFirst(4) as store:
        config = RolloutConfig(unresponsive_seconds=0.06)
        started = await store.start_rollout("x", config=config)
        await add_when_room(store, [make_span(started.attempt, 1)])
    assert pauses_in(caplog) == [0.01, 0.015, 0.015, 0.015]


async def test_spans_are_given_up_after_the_limit(caplog: pytest.LogCaptureFixture) -> None:
    async with FullAtFirst(10**9) as store:
        started = await store.start_rollout("x")
        with pytest.raises(StoreFull, match=r"refusal \d+"):
            await add_when_room(store, [make_span(started.attempt, 1)], limit_seconds=0.2)
        assert store.num_asked == len(pauses_in(caplog)) + 1 >= 2
        with pytest.raises(StoreFull):
            await add_when_room(store, [make_span(started.attempt, 1)], limit_seconds=0)
        assert store.num_asked == len(pauses_in(caplog)) + 2


async def test_who_is_cancelled_while_waiting_learns_what_for() -> None:
    async with FullAtFirst(10**9) as store:
        started = await store.start_rollout("x")
        adding = asyncio.create_task(add_when_room(store, [make_span(started.attempt, 1)]))
        while store.num_asked < 2:
            await asyncio.sleep(0.001)
        adding.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await adding
    assert isinstance(cancelled.value.__cause__, StoreFull)


async def test_other_errors_are_raised_at_once() -> None:
    async with FullAtFirst(1) as store:
        started = await store.start_rollout("x", rollout_id="r")
        await store.update_attempt("r", "latest", "succeeded")
        await store.delete_rollouts(["r"])
        with pytest.raises(UnknownRollout):  # deleted while its spans waited
            await add_when_room(store, [make_span(started.attempt, 1)])
        assert store.num_asked == 2

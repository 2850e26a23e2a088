"""What happens at its time, and the clocks that say when."""

import time
from typing import Any

import pytest

from raybolt.store import LocalStore, RolloutConfig
from raybolt.store.clock import SteadyClock, Ticker
from raybolt.store.core import LightningCore
from raybolt.store.deadlines import Deadlines
from raybolt.store.keeper import Keeper
from raybolt.store.record import NoRecorder, Snapshot
from raybolt.store.types import Attempt, EnqueueRolloutRequest, Group, Rollout
from raybolt.store.watch import Watch


class FakeClock:
    """A clock that stands until it is set."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def make_core(clock: FakeClock, snapshot: Snapshot | None = None) -> LightningCore:
    def ignore(*_: Any) -> None:
        """Nobody waits for anything."""

    watch = Watch(
        clock=clock,
        on_new=ignore,
        on_end=ignore,
        on_delete=ignore,
        on_complete=ignore,
        on_change=lambda: None,
        recall_changes=None,
    )
    return LightningCore(recorder=NoRecorder(), watch=watch, snapshot=snapshot)


def start(core: LightningCore, rollout_id: str, config: RolloutConfig) -> None:
    request = EnqueueRolloutRequest(input="x", rollout_id=rollout_id, config=config, metadata={})
    core.start_rollout(request, worker_id="w", attempt_id=f"at-{rollout_id}")


def status(core: LightningCore, rollout_id: str) -> str:
    rollout = core.rollout(rollout_id)
    assert rollout is not None
    return rollout.status


# Deadlines


def test_deadlines_come_earliest_first_and_once() -> None:
    due: dict[str, float | None] = {"a": 3.0, "b": 1.0, "c": 2.0, "never": None}
    deadlines = Deadlines(due.get)
    for id in due:
        deadlines.note(id)
    assert deadlines.next() == 1.0
    assert deadlines.overdue(0.5) == []
    assert deadlines.overdue(2.0) == ["b", "c"]
    assert deadlines.overdue(2.0) == []
    assert deadlines.next() == 3.0


def test_a_deadline_that_is_put_off_is_looked_at_again_when_it_was_due() -> None:
    due: dict[str, float | None] = {"a": 1.0}
    deadlines = Deadlines(due.get)
    deadlines.note("a")
    due["a"] = 5.0  # nobody says so: a heartbeat only changes when it is really due
    assert deadlines.next() == 1.0
    assert deadlines.overdue(1.0) == []
    assert deadlines.next() == 5.0
    assert deadlines.overdue(5.0) == ["a"]


def test_a_deadline_that_is_brought_forward_comes_early_and_not_again() -> None:
    due: dict[str, float | None] = {"a": 9.0}
    deadlines = Deadlines(due.get)
    deadlines.note("a")
    due["a"] = 2.0
    deadlines.note("a")
    assert deadlines.next() == 2.0
    assert deadlines.overdue(2.0) == ["a"]
    due["a"] = None
    assert deadlines.overdue(9.0) == []
    assert deadlines.next() is None


def test_many_heartbeats_do_not_grow_the_heap() -> None:
    due: dict[str, float | None] = {"a": 1.0}
    deadlines = Deadlines(due.get)
    for beat in range(1000):
        due["a"] = 1.0 + beat
        deadlines.note("a")
    assert len(deadlines._heap) == 1


def test_what_ended_before_its_deadline_does_not_stay_in_memory_until_it_comes() -> None:
    due: dict[str, float | None] = {"kept": 50.0}
    deadlines = Deadlines(due.get)
    deadlines.note("kept")
    for number in range(100_000):
        due[str(number)] = 1000.0 + number
        deadlines.note(str(number))
        del due[str(number)]
    assert len(deadlines._heap) < 3000
    assert len(deadlines._noted) < 3000
    due["late"] = 60.0
    deadlines.note("late")
    assert (deadlines.overdue(10.0), deadlines.overdue(2e6)) == ([], ["kept", "late"])
    assert deadlines.next() is None


# The core


def test_the_earlier_of_both_limits_ends_an_attempt() -> None:
    clock = FakeClock(1000.0)
    core = make_core(clock)
    start(core, "slow", RolloutConfig(timeout_seconds=10, unresponsive_seconds=50))
    start(core, "silent", RolloutConfig(timeout_seconds=50, unresponsive_seconds=20))
    assert core.next_deadline() == 1010.0
    clock.now = 1009.9
    core.expire()
    assert (status(core, "slow"), status(core, "silent")) == ("preparing", "preparing")
    clock.now = 1010.0
    core.expire()
    (slow,) = core.attempts("slow")
    assert (slow.status, slow.end_time) == ("timeout", 1010.0)
    assert slow.metadata == {"error": "the attempt took more than 10 seconds", "origin": "limit"}
    assert core.next_deadline() == 1020.0
    clock.now = 1030.0
    core.expire()
    (silent,) = core.attempts("silent")
    assert (silent.status, silent.end_time) == ("unresponsive", None)
    assert silent.metadata["error"] == "no span and no heartbeat came for 20 seconds"


def test_a_heartbeat_puts_silence_off_but_not_the_time_limit() -> None:
    clock = FakeClock(0.0)
    core = make_core(clock)
    start(core, "r", RolloutConfig(timeout_seconds=100, unresponsive_seconds=30))
    for clock.now in (20.0, 40.0, 60.0, 80.0):
        core.update_worker("w", heartbeat_stats={})
        core.expire()
        assert status(core, "r") == "preparing"
    clock.now = 100.0
    core.expire()
    assert [attempt.status for attempt in core.attempts("r")] == ["timeout"]


# Clocks


def test_the_steady_clock_does_not_follow_a_wall_clock_that_jumps(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SteadyClock()
    before, wall = clock(), time.time()
    assert abs(before - wall) < 5.0
    for jump in (-86_400.0, +86_400.0):
        monkeypatch.setattr(time, "time", lambda jump=jump: wall + jump)
        after = clock()
        assert before <= after < before + 60.0


async def test_a_wall_clock_that_jumps_ends_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    async with LocalStore() as store:
        config = RolloutConfig(timeout_seconds=3600, unresponsive_seconds=3600)
        await store.start_rollout("x", rollout_id="r", config=config)
        wall = time.time()
        monkeypatch.setattr(time, "time", lambda: wall + 86_400)
        assert await store.wait_for_rollouts(["r"], timeout=0.3) == []
        monkeypatch.setattr(time, "time", lambda: wall - 86_400)
        later = await store.start_rollout("y")
        first = await store.get_rollout_by_id("r")
        assert first is not None
        assert first.start_time <= later.start_time < first.start_time + 60.0


def test_an_attempt_from_a_clock_that_was_set_back_gets_its_whole_time_from_now() -> None:
    config = RolloutConfig(timeout_seconds=10, unresponsive_seconds=10)
    rollout = Rollout(rollout_id="r", input="x", status="running", config=config, start_time=5000.0)
    attempt = Attempt(rollout_id="r", attempt_id="a", sequence_id=1, status="running", start_time=5000.0)
    clock = FakeClock(1000.0)
    core = make_core(clock, Snapshot(rollouts=[(rollout, None)], attempts=[attempt]))
    assert core.next_deadline() == 1010.0
    clock.now = 1010.0
    core.expire()
    assert [attempt.status for attempt in core.attempts("r")] == ["timeout"]


def test_silence_is_counted_from_when_the_store_was_opened() -> None:
    config = RolloutConfig(unresponsive_seconds=10)
    rollout = Rollout(rollout_id="r", input="x", status="running", config=config, start_time=1000.0)
    attempt = Attempt(rollout_id="r", attempt_id="a", sequence_id=1, status="running", start_time=1000.0)
    clock = FakeClock(2000.0)  # the store was down in between, and nobody could be heard
    core = make_core(clock, Snapshot(rollouts=[(rollout, None)], attempts=[attempt]))
    assert core.next_deadline() == 2010.0


def taken(**times: float) -> Group:
    """A group of one that somebody holds."""
    return Group(
        group_id="g", num_rollouts=1, num_ended=1, status="taken", taken_by="c", create_time=1.0, **times
    )


def test_a_lease_that_ran_out_while_the_store_was_closed_ends_at_once() -> None:
    group = taken(lease_end=50.0)
    rollout = Rollout(
        rollout_id="r", input="x", group_id="g", status="succeeded", start_time=1.0, end_time=2.0
    )
    core = make_core(FakeClock(60.0), Snapshot(rollouts=[(rollout, None)], groups=[group]))
    assert core.next_deadline() == 50.0
    core.expire()
    restored = core.groups.get("g")
    assert (restored.status, restored.taken_by, restored.complete_time) == ("complete", None, 60.0)


def test_a_lease_from_a_clock_that_was_set_back_ends_after_its_own_time() -> None:
    group = taken(lease_end=90_070.0, complete_time=90_000.0)
    core = make_core(FakeClock(1000.0), Snapshot(groups=[group]))
    assert core.next_deadline() == 1070.0
    later = make_core(FakeClock(90_010.0), Snapshot(groups=[group]))
    assert later.next_deadline() == 90_070.0


def test_complete_groups_are_handed_out_by_completion_also_after_a_restart() -> None:
    groups = [
        Group(group_id=id, num_rollouts=1, num_ended=1, status="complete", complete_time=when)
        for id, when in (("made first", 9.0), ("made second", 8.0))
    ]
    core = make_core(FakeClock(10.0), Snapshot(groups=groups))
    assert [g.group_id for g in core.groups.complete(2, group_id_in=None)] == ["made second", "made first"]


# The ticker


def test_the_ticker_calls_at_its_time_and_again_when_told_an_earlier_one() -> None:
    class Bell:
        def __init__(self) -> None:
            self.rings: list[float] = []

        def ring(self) -> None:
            self.rings.append(time.monotonic())

    bell = Bell()
    ticker = Ticker(bell.ring, time.monotonic)
    began = time.monotonic()
    ticker.wake_at(began + 3600)
    ticker.wake_at(began + 0.1)
    deadline = began + 30
    while not bell.rings and time.monotonic() < deadline:
        time.sleep(0.01)
    ticker.close()
    assert len(bell.rings) == 1
    assert bell.rings[0] >= began + 0.1


async def test_a_keeper_with_a_clock_of_its_own_gives_up_by_that_clock() -> None:
    clock = FakeClock(1000.0)
    keeper = Keeper(None, publish=lambda table: table, clock=clock)
    request = EnqueueRolloutRequest(
        input="x", rollout_id="r", metadata={}, config=RolloutConfig(timeout_seconds=60)
    )
    await keeper.ask("start_rollout", {"request": request, "worker_id": None, "attempt_id": "a"})
    clock.now = 500.0  # it goes backwards
    assert (await keeper.ask("rollout", {"rollout_id": "r"})).status == "preparing"
    keeper._tick()
    assert (await keeper.ask("rollout", {"rollout_id": "r"})).status == "preparing"
    clock.now = 1060.0
    keeper._tick()
    rollout = await keeper.ask("rollout", {"rollout_id": "r"})
    assert (rollout.status, rollout.end_time) == ("failed", 1060.0)
    keeper.close()

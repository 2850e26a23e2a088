"""The store's clock, its ticker and who waits: what only shows when threads and objects come and go."""

import asyncio
import gc
import threading
import time

import pytest

from raybolt.store import clock
from raybolt.store.clock import SteadyClock, Ticker
from raybolt.store.waiting import Waiter, Waiters


class Ticked:
    """Something with a tick: it waits until it may, and closes its ticker if told to."""

    def __init__(self, *, closes: bool = False) -> None:
        self.may, self.began, self.ended = threading.Event(), threading.Event(), threading.Event()
        self.closes = closes
        self.ticker = Ticker(self.tick, time.monotonic)

    def tick(self) -> None:
        self.began.set()
        assert self.may.wait(60)
        if self.closes:
            self.ticker.close()
        self.ended.set()


def test_the_quickest_of_several_readings_sets_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    # Five pairs of readings of the monotonic clock, with the wall clock read between them; all but the fourth
    # were held up, and the wall clock seems to be ahead by more than its 1000 seconds.
    monotonic = iter([0.0, 4.0, 10.0, 12.0, 20.0, 23.0, 30.0, 30.5, 40.0, 44.0, 50.0])
    wall = iter([1004.0, 1012.0, 1023.0, 1030.25, 1044.0])
    with monkeypatch.context() as patched:
        patched.setattr(clock.time, "monotonic", lambda: next(monotonic))
        patched.setattr(clock.time, "time", lambda: next(wall))
        steady = SteadyClock()
        assert steady() == 1050.0


def test_a_tick_that_fails_is_logged_and_the_next_one_comes(caplog: pytest.LogCaptureFixture) -> None:
    class Failing:
        def __init__(self) -> None:
            self.ticked = threading.Event()
            self.ticker = Ticker(self.tick, time.monotonic)

        def tick(self) -> None:
            self.ticked.set()
            raise OSError("the disk is gone")

    failing = Failing()
    for _ in range(2):
        failing.ticked.clear()
        failing.ticker.wake_at(time.monotonic())
        assert failing.ticked.wait(60)
    failing.ticker.close()
    assert "What a store had to do at its time failed" in caplog.text
    assert "OSError: the disk is gone" in caplog.text


def test_closing_a_ticker_waits_for_the_tick_that_is_under_way() -> None:
    ticked = Ticked()
    ticked.ticker.wake_at(time.monotonic())
    assert ticked.began.wait(60)
    closing = threading.Thread(target=ticked.ticker.close)
    closing.start()
    assert not ticked.ended.is_set()
    ticked.may.set()
    closing.join(60)
    assert ticked.ended.is_set()


def test_a_tick_may_close_its_own_ticker() -> None:
    ticked = Ticked(closes=True)
    ticked.may.set()
    ticked.ticker.wake_at(time.monotonic())
    assert ticked.ended.wait(60)


def test_a_ticker_ends_with_the_object_that_it_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_PATIENCE_SECONDS", 0.01)
    ticked = Ticked()
    ticked.ticker.wake_at(time.monotonic() + 3600)
    thread = ticked.ticker._thread
    assert thread is not None
    del ticked
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()


async def test_a_waiter_that_gave_up_hears_no_more_and_another_one_still_does() -> None:
    waiters, gone, patient = Waiters(), Waiter({"a", "b"}), Waiter({"a"})
    waiters.add(gone)
    waiters.add(patient)
    waiters.remove(gone)
    waiters.notify("a")
    await asyncio.wait_for(patient.wait(None), 60)
    assert (gone.pending, patient.pending) == ({"a", "b"}, set())

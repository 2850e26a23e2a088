"""Forks whose store, answerer or caller gives up in the middle: no rollout stays open."""

import asyncio
import itertools

import pytest
from replayed_runs import Agent, record, team, tokens_of, trajectory

from raybolt.env.fork import fork
from raybolt.store import InvalidValue, LocalStore, StoreError

STEPS = ["start_rollout", "declare_group", "add_many_spans", "update_attempt"]


def at_call(monkeypatch, store, method, number, then):
    """Has `then` called at this call (from 1) of the store's method, before and after its work."""
    real, numbers = getattr(store, method), itertools.count(1)

    async def watched(*args, **kwargs):
        here = next(numbers) == number
        if here:
            then("before")
        answer = await real(*args, **kwargs)
        if here:
            then("after")
            await asyncio.sleep(0)
        return answer

    monkeypatch.setattr(store, method, watched)


async def left_of_fork(store, parent):
    """The fork's rollouts; each has ended, and their group is complete or there is none."""
    forks = [each for each in await store.query_rollouts() if each.rollout_id != parent]
    assert {each.status for each in forks} <= {"failed", "succeeded", "cancelled"}
    groups = await store.query_groups()
    assert [group.status for group in groups] == (["complete"] if forks else [])
    return forks


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("step", STEPS)
async def test_a_store_that_fails_once_leaves_no_rollout_open(codec, monkeypatch, step, number, when):
    function, _ = team()
    if step == "declare_group":
        number = 1

    def fail(moment):
        if moment == when:
            raise StoreError("the line broke")

    async with LocalStore(None) as store:
        parent = await record(store, function, codec)
        at_call(monkeypatch, store, step, number, fail)
        with pytest.raises(StoreError, match="the line broke"):
            await fork(
                Agent(function), store, parent, 2, 3, answer=lambda prompt: tokens_of(codec, "x"), codec=codec
            )
        forks = await left_of_fork(store, parent)
        if step in ("start_rollout", "declare_group"):
            was_declared = (step, when) == ("declare_group", "after")
            assert [each.status for each in forks] == ["cancelled"] * (3 if was_declared else 0)
            return
        assert len(forks) == 3
        for each in forks:  # what they did is not lost for an error that passed
            assert each.status == "succeeded"
            assert len((await trajectory(store, each.rollout_id)).calls) == 4


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
async def test_a_fork_that_is_cancelled_at_any_time_leaves_no_rollout_open(
    codec, monkeypatch, step, when, times
):
    function, _ = team()

    def cancel(moment):
        if moment == when:
            for delay in range(times):
                asyncio.get_running_loop().call_later(0.01 * delay, going_on.cancel)

    async with LocalStore(None) as store:
        parent = await record(store, function, codec)
        at_call(monkeypatch, store, step, 1, cancel)
        going_on = asyncio.ensure_future(
            fork(
                Agent(function), store, parent, 2, 3, answer=lambda prompt: tokens_of(codec, "x"), codec=codec
            )
        )
        with pytest.raises(asyncio.CancelledError):
            await going_on
        forks = await left_of_fork(store, parent)
        assert len(forks) == 3
        if step in ("start_rollout", "declare_group"):
            assert {each.attempt.metadata["error"] for each in forks} == {"the fork was cancelled"}


async def test_an_answerer_that_is_cancelled_within_fails_its_continuation_alone(codec):
    function, _ = team()
    numbers = itertools.count()

    async def sometimes(prompt):
        if next(numbers) == 0:
            raise asyncio.CancelledError("an inner scope")
        return tokens_of(codec, "fine")

    async with LocalStore(None) as store:
        parent = await record(store, function, codec)
        made = await fork(Agent(function), store, parent, 3, 2, answer=sometimes, codec=codec)
        assert list(made.errors.values()) == ["CancelledError: an inner scope"]
        forks = await left_of_fork(store, parent)
        assert sorted(each.status for each in forks) == ["failed", "succeeded"]


async def test_an_answer_that_is_no_action_fails_its_continuation_alone(codec):
    function, _ = team()
    numbers = itertools.count()

    async with LocalStore(None) as store:
        parent = await record(store, function, codec)
        made = await fork(
            Agent(function),
            store,
            parent,
            3,
            2,
            answer=lambda prompt: "no action" if next(numbers) == 0 else tokens_of(codec, "fine"),
            codec=codec,
        )
        (error,) = made.errors.values()
        assert error.startswith("InvalidValue: ")
        forks = await left_of_fork(store, parent)
        assert sorted(each.status for each in forks) == ["failed", "succeeded"]


async def test_a_group_that_has_no_room_gets_no_fork(codec):
    function, _ = team()
    async with LocalStore(None) as store:
        parent = await record(store, function, codec)
        await store.declare_group("g", 1)
        with pytest.raises(InvalidValue, match="num_rollouts of group 'g' is 2, but was declared as 1"):
            await fork(
                Agent(function),
                store,
                parent,
                2,
                2,
                answer=lambda prompt: tokens_of(codec, "x"),
                codec=codec,
                group_id="g",
            )
        assert [each.rollout_id for each in await store.query_rollouts()] == [parent]


async def test_a_store_that_stays_away_is_told_of(codec, monkeypatch, caplog):
    function, _ = team()

    async def gone(*args, **kwargs):
        raise StoreError("the store is gone")

    async with LocalStore(None) as store:
        parent = await record(store, function, codec)
        monkeypatch.setattr(store, "update_attempt", gone)
        with pytest.raises(StoreError, match="the store is gone"):
            await fork(
                Agent(function), store, parent, 2, 2, answer=lambda prompt: tokens_of(codec, "x"), codec=codec
            )
    assert caplog.text.count("stays open: StoreError: the store is gone") == 2

"""New rewards for stored rollouts, and what the learner makes of them."""

import asyncio

import pytest
from replayed_runs import Agent
from scripted_runs import HELLO, Program, say

from raybolt.env.diagnosis import diagnose
from raybolt.env.emit import emit_reward
from raybolt.env.exports import chats, recorded_runs
from raybolt.env.limits import RunLimits
from raybolt.env.policy import RunEnd
from raybolt.env.recorded import comparable_runs, summary_of, task_metadata
from raybolt.env.recorder import SpanRecorder
from raybolt.env.replay import replay
from raybolt.env.rereward import re_reward
from raybolt.env.run import AgentRun
from raybolt.env.run_facts import facts_of
from raybolt.env.task import Task
from raybolt.env.trajectory import trajectory_from_spans
from raybolt.rl.connectors import demonstrated_calls, succeeded_trajectories
from raybolt.store import InvalidValue, LocalStore, Span, StoreError, names, read_group

TASK = Task("t1", "hello", reference="right", metadata={"level": 3})


async def store_run(store, function, *, reward=None, group_id=None):
    """One run of the agent in the store; its rollout id."""
    started = await store.start_rollout(
        TASK.input, task_id="t1", group_id=group_id, mode="train", metadata=task_metadata(TASK)
    )
    recorder = SpanRecorder(started.rollout_id, started.attempt.attempt_id)
    run = AgentRun(Program(function), TASK, recorder=recorder, limits=RunLimits(), reward=reward)
    while not isinstance(pending := await run.next(), RunEnd):
        for call in pending:
            run.answer(call.call_id, say("hi"))
    status = "failed" if pending.failed else "succeeded"
    await store.add_many_spans(recorder.drain())
    await store.update_attempt(
        started.rollout_id, started.attempt.attempt_id, status=status, metadata=summary_of(run.trajectory)
    )
    return started.rollout_id


def agent(result=None, emitted=(), error=None):
    async def run(task, policy):
        await policy.complete(HELLO)
        for reward in emitted:
            emit_reward(reward)
        if error is not None:
            raise error
        return result

    return run


async def stored(store, rollout_id, **options):
    spans = await store.query_spans(rollout_id, "latest")
    return trajectory_from_spans(spans, rollout_id=rollout_id, attempt_id="x", **options)


async def test_the_reward_function_gets_task_result_and_trajectory_as_in_the_run():
    seen = []

    def judge(task, result, trajectory):
        seen.append((task, result, [call.reply.content for call in trajectory.calls]))
        return len(result["text"])

    async with LocalStore(None) as store:
        rollout_id = await store_run(store, agent({"text": "abc", "n": [1, None]}), reward=lambda *_: 0.0)
        made = await re_reward(store, judge)
        assert (made.version, made.rewards, made.errors) == (1, {rollout_id: 3.0}, {})
        assert seen == [(TASK, {"text": "abc", "n": [1, None]}, ["hi"])]


async def test_the_latest_version_counts_and_every_older_one_can_still_be_read():
    async with LocalStore(None) as store:
        rollout_id = await store_run(store, agent(0.5, emitted=[0.25]))

        async def later(task, result, trajectory):
            return trajectory.final_reward * 10

        first, second = await re_reward(store, later), await re_reward(store, later)
        assert (first.version, second.version) == (1, 2)
        assert (await stored(store, rollout_id)).total_reward == 50.25
        assert [(await stored(store, rollout_id, reward_version=v)).final_reward for v in (0, 1, 2)] == [
            0.5,
            5.0,
            50.0,
        ]
        assert [reward.version for reward in (await stored(store, rollout_id)).rewards] == [0, 2]
        with pytest.raises(InvalidValue, match="is 3; the rollout has rewards of versions: 0, 1, 2"):
            await stored(store, rollout_id, reward_version=3)
        attempt = await store.get_latest_attempt(rollout_id)
        assert attempt.status == "succeeded"
        assert (attempt.metadata["reward"], attempt.metadata["reward_version"]) == (50.25, 2)


async def test_a_group_sealed_again_gives_the_learner_new_advantages():
    from raybolt.rl.connectors import credited_calls

    def advantages(handle):
        group = [with_tokens(each) for each in succeeded_trajectories(handle.ref)]
        calls = credited_calls(group, "group_norm", lambda role: "p").get("p", [])
        return [float(call.advantages[0]) for call in calls]

    async with LocalStore(None) as store:
        await store.declare_group("g", 2)
        for result in (1.0, 0.0):
            await store_run(store, agent(result), group_id="g")
        (handle,) = await store.take_groups(1)
        assert advantages(handle) == pytest.approx([1.0, -1.0], abs=1e-5)
        await re_reward(store, lambda task, result, trajectory: -result)
        again = await store.get_group("g")
        assert advantages(again) == pytest.approx([-1.0, 1.0], abs=1e-5)
        assert advantages(handle) == pytest.approx([1.0, -1.0], abs=1e-5)
        assert [facts_of(data).reward for data in read_group(again).rollouts] == [-1.0, 0.0]


def with_tokens(trajectory):
    from dataclasses import replace

    import numpy as np

    ids = np.array([7, 8], np.int32)
    calls = tuple(
        replace(call, prompt_ids=ids, response_ids=ids, logprobs=np.zeros(2, np.float32))
        for call in trajectory.calls
    )
    return replace(trajectory, calls=calls)


async def test_a_group_in_which_one_cannot_be_judged_keeps_all_its_rewards():
    def judge(task, result, trajectory):
        return 1 / result

    async with LocalStore(None) as store:
        bad = [await store_run(store, agent(result), group_id="bad") for result in (2, 0)]
        good = await store_run(store, agent(4), group_id="good")
        alone = await store_run(store, agent(8))
        made = await re_reward(store, judge)
        assert made.rewards == {good: 0.25, alone: 0.125}
        assert made.errors == {bad[1]: "ZeroDivisionError: division by zero"}
        assert [(await stored(store, each)).total_reward for each in bad] == [2.0, 0.0]


async def test_a_result_that_is_not_in_the_store_is_an_error_unless_it_is_not_needed():
    async with LocalStore(None) as store:
        strange = await store_run(store, agent({"who": {1, 2}}), reward=lambda *_: 1)
        long = await store_run(store, agent("x" * 70_000), reward=lambda *_: 1)
        made = await re_reward(store, lambda task, result, trajectory: 2)
        assert made.rewards == {}
        assert "holds, a value of type set, which JSON does not give back" in made.errors[strange]
        assert "its JSON has 70002 characters, more than 64000" in made.errors[long]
        made = await re_reward(
            store, lambda task, result, trajectory: 2 + (result is None), require_result=False
        )
        assert made.rewards == {strange: 3.0, long: 3.0}


async def test_failed_rollouts_and_those_not_chosen_are_left_alone():
    def fails(task, policy):
        raise RuntimeError

    async with LocalStore(None) as store:
        failed = await store_run(store, fails)
        chosen, other = [await store_run(store, agent(1), group_id=group) for group in "ab"]
        made = await re_reward(store, lambda *_: 7, group_id_in=["a"])
        assert made.rewards == {chosen: 7.0}
        assert (await stored(store, other)).total_reward == 1.0
        assert (await re_reward(store, lambda *_: 7, rollout_id_in=[failed])).rewards == {}


async def test_failed_rollouts_are_judged_where_one_asks_for_it_and_stay_failed():
    seen = []

    def judge(task, result, trajectory):
        seen.append((result, trajectory.failed, trajectory.error, trajectory.origin))
        return -1 if trajectory.failed else 1

    async with LocalStore(None) as store:
        failed = await store_run(store, agent(error=RuntimeError("no"), emitted=[0.25]))
        fine = await store_run(store, agent("yes"), reward=lambda *_: 0)
        with pytest.raises(
            InvalidValue, match=r"failed \(RuntimeError: no\), so it has no reward; .* judge it"
        ):
            _ = (await stored(store, failed)).total_reward
        made = await re_reward(store, judge, include_failed=True)
        assert (made.rewards, made.errors) == ({failed: -1.0, fine: 1.0}, {})
        assert sorted(seen, key=str) == [
            ("yes", False, None, None),
            (None, True, "RuntimeError: no", "agent"),
        ]
        trajectory = await stored(store, failed)
        assert (trajectory.failed, trajectory.judged, trajectory.total_reward) == (True, True, -0.75)
        rollout = await store.get_rollout_by_id(failed)
        attempt = await store.get_latest_attempt(failed)
        assert (rollout.status, attempt.status) == ("failed", "failed")
        assert (attempt.metadata["error"], attempt.metadata["reward"]) == ("RuntimeError: no", -0.75)


async def test_a_failed_rollout_for_which_there_is_no_reward_stays_without_and_holds_nothing_back():
    def judge(task, result, trajectory):
        return None if trajectory.origin == "agent" else 2

    async with LocalStore(None) as store:
        broken = await store_run(store, agent(error=OSError("engine")), group_id="g")
        fine = await store_run(store, agent(1), group_id="g")
        made = await re_reward(store, judge, include_failed=True)
        assert (made.rewards, made.errors) == ({fine: 2.0}, {})
        assert not (await stored(store, broken)).judged
        made = await re_reward(store, lambda *_: None, include_failed=True)
        assert made.errors == {fine: "InvalidValue: the reward is None of type NoneType; expected a number"}


async def test_a_rollout_that_failed_for_want_of_a_reward_is_judged_by_its_result():
    def broken(task, result, trajectory):
        raise KeyError("typo")

    async with LocalStore(None) as store:
        failed = await store_run(store, agent("abc"), reward=broken)
        strange = await store_run(store, agent({1, 2}), reward=broken)
        assert (await store.get_rollout_by_id(failed)).status == "failed"
        made = await re_reward(store, lambda task, result, _: len(result), include_failed=True)
        assert made.rewards == {failed: 3.0}
        assert "a value of type set" in made.errors[strange]


async def test_the_learner_takes_a_failed_rollout_only_once_it_is_judged():
    def rewards(handle):
        return [each.total_reward for each in succeeded_trajectories(handle.ref)]

    async with LocalStore(None) as store:
        await store.declare_group("g", 2)
        await store_run(store, agent(1.0), group_id="g")
        failed = await store_run(store, agent(error=RuntimeError("no")), group_id="g")
        (handle,) = await store.take_groups(1)
        assert rewards(handle) == [1.0]
        await re_reward(store, lambda task, result, trajectory: -trajectory.failed, include_failed=True)
        again = await store.get_group("g")
        assert rewards(again) == [0.0, -1.0]
        assert [facts_of(data).reward for data in read_group(again).rollouts] == [0.0, -1.0]
        group = [with_tokens(each) for each in succeeded_trajectories(again.ref)]
        assert len(demonstrated_calls(group, lambda role: "p")["p"]) == 1  # nobody imitates what failed
        (chat,) = [
            row for row in chats([data async for data in recorded_runs(store)]) if row["rollout_id"] == failed
        ]
        assert (chat["status"], chat["reward"]) == ("failed", -1.0)


async def test_what_an_older_judge_said_of_a_failed_rollout_is_not_compared_with_a_newer_ones_words():
    async with LocalStore(None) as store:
        await store.declare_group("g", 2)
        await store_run(store, agent(1.0), group_id="g")
        failed = await store_run(store, agent(error=RuntimeError("no")), group_id="g")
        await store.take_groups(1)

        async def returns():
            handle = await store.get_group("g")
            group = comparable_runs(read_group(handle).rollouts)
            assert [run.rollout.rollout_id for run in group] == [
                each.rollout_id for each in succeeded_trajectories(handle.ref)
            ]
            numbers = diagnose(read_group(handle).rollouts).numbers
            return [each.total_reward for each in succeeded_trajectories(handle.ref)], numbers.groups

        await re_reward(store, lambda task, result, run: -run.failed, include_failed=True)
        assert await returns() == ([0.0, -1.0], 1)
        await re_reward(store, lambda *_: 100)  # whose scale is another
        assert await returns() == ([100.0], 0)
        assert (await stored(store, failed)).reward_version == 1
        await re_reward(store, lambda task, result, run: None if run.failed else 50, include_failed=True)
        assert await returns() == ([50.0], 0)
        await re_reward(store, lambda *_: 7, include_failed=True)
        assert await returns() == ([7.0, 7.0], 1)


async def test_a_group_has_new_rewards_as_a_whole_or_none_of_them_when_the_store_fails(monkeypatch):
    async with LocalStore(None) as store:
        for group_id in "gh":
            for _ in range(3):
                await store_run(store, agent(1), group_id=group_id)
        real = store.add_many_spans

        async def fails_for_g(spans):
            rollout = await store.get_rollout_by_id(spans[0].rollout_id)
            if rollout.group_id == "g":
                raise StoreError("the line broke")
            return await real(spans)

        monkeypatch.setattr(store, "add_many_spans", fails_for_g)
        with pytest.raises(StoreError, match="the line broke") as raised:
            await re_reward(store, lambda *_: 5)
        assert raised.value.__notes__ == ["1 of 2 groups have rewards of version 1"]
        for group_id, expected in (("g", 0), ("h", 1)):
            for rollout in await store.query_rollouts(group_id_in=[group_id]):
                assert (await stored(store, rollout.rollout_id)).reward_version == expected
        monkeypatch.undo()
        assert (await re_reward(store, lambda *_: 6)).version == 2
        for rollout in await store.query_rollouts():
            assert (await stored(store, rollout.rollout_id)).final_reward == 6.0


async def test_a_reward_function_that_is_cancelled_within_is_an_error_of_its_rollout():
    async def gives_up(task, result, trajectory):
        raise asyncio.CancelledError("an inner scope")

    async with LocalStore(None) as store:
        rollout_id = await store_run(store, agent(1))
        made = await re_reward(store, gives_up)
        assert made.errors == {rollout_id: "CancelledError: an inner scope"}


@pytest.mark.parametrize("odd", ["good", None, True, float("nan"), 10**400, [1.0]])
async def test_a_reward_that_is_no_number_is_none(odd):
    async with LocalStore(None) as store:
        rollout_id = await store_run(store, agent("x"), reward=lambda *_: 2)
        (attempt,) = await store.query_attempts(rollout_id)
        number = await store.get_next_span_sequence_id(rollout_id, attempt.attempt_id)
        foreign = Span(
            rollout_id=rollout_id,
            attempt_id=attempt.attempt_id,
            sequence_id=number,
            trace_id="0" * 32,
            span_id="f" * 16,
            name="foreign",
            start_time=1.0,
            end_time=2.0,
            attributes={names.REWARD: odd, names.REWARD_VERSION: odd},
        )
        await store.add_span(foreign)
        trajectory = await stored(store, rollout_id)
        assert (trajectory.total_reward, trajectory.reward_version) == (2.0, 0)
        assert (await re_reward(store, lambda *_: 3)).version == 1


async def test_tasks_stand_in_for_what_the_store_kept_of_them():
    async with LocalStore(None) as store:
        await store_run(store, agent(1))
        made = await re_reward(
            store, lambda task, *_: task.metadata["level"], tasks=[Task("t1", "", metadata={"level": 9})]
        )
        assert list(made.rewards.values()) == [9.0]


@pytest.mark.parametrize(
    ("concurrency", "remedy"),
    [(0, "1 or more"), (-1, "1 or more"), ("8", "a whole number"), (None, "a whole number")],
)
async def test_reward_functions_cannot_run_none_at_a_time(concurrency, remedy):
    async with LocalStore() as store:
        with pytest.raises(InvalidValue, match=rf"concurrency is {concurrency!r}; give {remedy}"):
            await re_reward(store, lambda task, result, trajectory: 1.0, concurrency=concurrency)


async def test_two_that_write_the_same_version_at_once_are_told():
    async with LocalStore(None) as store:
        await store_run(store, agent(1))

        async def meanwhile(task, result, trajectory):
            await re_reward(store, lambda *_: 3)
            return 2

        with pytest.raises(StoreError, match="got rewards of version 1 meanwhile"):
            await re_reward(store, meanwhile)


async def test_the_result_of_a_run_stands_in_its_root_span():
    async with LocalStore(None) as store:
        rollout_id = await store_run(store, agent([1, "two"]), reward=lambda *_: 0)
        (root,) = [span for span in await store.query_spans(rollout_id) if span.parent_id is None]
    assert root.attributes[names.RESULT] == [1, "two"]


async def test_a_reward_function_that_raises_what_no_future_takes_is_an_error_like_any_other():
    async with LocalStore(None) as store:
        await store_run(store, agent(1.0))
        done = await asyncio.wait_for(re_reward(store, lambda *_: next(iter([]))), 60)
        (error,) = done.errors.values()
        assert "StopIteration" in error


async def test_a_replay_of_a_run_that_failed_for_want_of_a_reward_fails_as_it_did():
    async with LocalStore(None) as store:
        rollout_id = await store_run(store, agent("text"))
        assert (await store.get_rollout_by_id(rollout_id)).status == "failed"
        async with await replay(Agent(agent("text")), store, rollout_id) as at:
            assert at.run.end.origin == "reward"

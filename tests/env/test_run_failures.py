"""What can go wrong in a run, and whom it is blamed on."""

import asyncio
import contextlib
import gc
import threading
import time

import pytest
from scripted_runs import HELLO, finish, new_run, say

from raybolt.env.emit import emit_reward
from raybolt.env.executor import threads
from raybolt.env.limits import RunLimits
from raybolt.env.policy import PolicyAbort, RunEnd
from raybolt.store import names


async def one_call(task, policy):
    await policy.complete(HELLO)
    return "done"


def root(run):
    return next(span for span in run.recorder.spans if span.parent_id is None)


async def test_an_agent_that_raises_fails_its_run_and_is_blamed():
    async def agent(task, policy):
        await policy.complete(HELLO)
        raise KeyError("city")

    run = new_run(agent, reward=lambda *_: 1)
    end = await finish(run)
    assert (end.error, end.origin) == ("KeyError: 'city'", "agent")
    assert end.to_metadata() == {"error": "KeyError: 'city'", "error_type": "KeyError", "origin": "agent"}
    span = root(run)
    assert (span.status, span.status_message) == ("error", "KeyError: 'city'")
    assert span.attributes[names.ERROR_ORIGIN] == "agent"
    assert span.attributes[names.ERROR_TYPE] == "KeyError"
    assert 'raise KeyError("city")' in span.events[0].attributes["exception.stacktrace"]
    assert (run.trajectory.status, run.trajectory.origin) == ("failed", "agent")


async def test_an_agent_that_exits_the_program_ends_only_its_run():
    async def agent(task, policy):
        await policy.complete(HELLO)
        raise SystemExit(3)

    assert (await finish(new_run(agent))).error == "SystemExit: 3"


@pytest.mark.parametrize("blocking", [False, True])
async def test_an_agent_that_calls_no_llm_fails(blocking):
    async def agent(task, policy):
        return 1.0

    end = await finish(new_run((lambda *_: 1.0) if blocking else agent, blocking=blocking))
    assert end.origin == "agent"
    assert "made no LLM call" in end.error


async def test_an_agent_that_returns_nothing_needs_a_reward_from_elsewhere():
    async def silent(task, policy):
        await policy.complete(HELLO)

    async def emitting(task, policy):
        await policy.complete(HELLO)
        emit_reward(1)

    end = await finish(new_run(silent))
    assert end.origin == "reward"
    assert "the agent returned nothing and emitted none; give a reward function" in end.error
    assert (await finish(new_run(emitting))).error is None
    assert (await finish(new_run(silent, reward=lambda *_: 0))).error is None
    assert (await finish(new_run(silent, require_reward=False))).error is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "the reward is nan; expected a finite number"),
        (float("inf"), "the reward is inf; expected a finite number"),
        ("good", "the reward is 'good' of type str; expected a number"),
        (None, "the reward is None of type NoneType; expected a number"),
        ([1, 2], "the reward is [1, 2] of type list; expected a number"),
    ],
)
async def test_a_reward_that_is_no_number_fails_the_run_and_is_never_zero(value, message):
    run = new_run(one_call, reward=lambda *_: value)
    end = await finish(run)
    assert end == RunEnd(error=f"InvalidValue: {message}", origin="reward")
    assert run.trajectory.rewards == ()


async def test_an_emitted_reward_that_is_no_number_fails_the_run_but_not_the_agent():
    went_on = []

    async def agent(task, policy):
        await policy.complete(HELLO)
        emit_reward(float("nan"))
        went_on.append(True)
        return 1

    end = await finish(new_run(agent))
    assert went_on == [True]
    assert end.origin == "reward"
    assert "emit_reward: the reward is nan" in end.error


async def test_a_reward_function_that_raises_is_blamed():
    def score(task, result, trajectory):
        return 1 / 0

    end = await finish(new_run(one_call, reward=score))
    assert (end.error, end.origin) == ("ZeroDivisionError: division by zero", "reward")


async def endless(task, policy):
    while True:
        await policy.complete(HELLO)


async def stubborn(task, policy):
    while True:
        try:
            await policy.complete(HELLO)
        except Exception:
            continue


def endless_blocking(task, policy):
    while True:
        policy.complete_sync(HELLO)


@pytest.mark.parametrize(
    ("agent", "blocking"), [(endless, False), (stubborn, False), (endless_blocking, True)]
)
async def test_an_agent_that_calls_for_ever_ends_at_its_call_limit(agent, blocking):
    run = new_run(agent, blocking=blocking, limits=RunLimits(max_calls=3))
    end = await finish(run)
    assert end == RunEnd(error="the agent made more than 3 LLM calls", origin="limit")
    assert len(run.trajectory.calls) == 3
    assert root(run).attributes[names.ERROR_ORIGIN] == "limit"


async def sleeping(task, policy):
    await policy.complete(HELLO)
    await asyncio.sleep(3600)


def spinning(task, policy):
    policy.complete_sync(HELLO)
    while True:
        pass


@pytest.mark.parametrize(("agent", "blocking"), [(sleeping, False), (spinning, True)])
async def test_an_agent_that_takes_for_ever_ends_at_its_time_limit(agent, blocking):
    begin = time.perf_counter()
    end = await finish(new_run(agent, blocking=blocking, limits=RunLimits(max_seconds=0.2)))
    assert end == RunEnd(error="the agent took more than 0.2 seconds", origin="limit")
    assert time.perf_counter() - begin < 3


async def test_the_clock_stands_still_while_the_policy_thinks():
    run = new_run(one_call, require_reward=False, limits=RunLimits(max_seconds=0.1))
    (call,) = await run.next()
    await asyncio.sleep(0.3)
    run.answer(call.call_id, say("slow"))
    assert (await run.next()).error is None


async def test_a_reward_function_that_takes_for_ever_ends_at_the_limit():
    async def score(task, result, trajectory):
        await asyncio.sleep(3600)

    end = await finish(new_run(one_call, reward=score, limits=RunLimits(max_seconds=0.2)))
    assert end == RunEnd(error="the reward function took more than 0.2 seconds", origin="limit")


async def test_an_engine_that_fails_is_blamed_whatever_the_agent_catches():
    run = new_run(stubborn)
    (call,) = await run.next()
    run.fail(call.call_id, RuntimeError("out of memory"))
    end = await run.next()
    assert end == RunEnd(error="RuntimeError: out of memory", origin="engine")


@pytest.mark.parametrize("blocking", [False, True])
async def test_aborting_reaches_the_agent_in_its_call(blocking):
    seen = []

    async def agent(task, policy):
        try:
            await policy.complete(HELLO)
        except BaseException as error:
            seen.append(error)
            raise

    def blocking_agent(task, policy):
        try:
            policy.complete_sync(HELLO)
        except BaseException as error:
            seen.append(error)
            raise

    run = new_run(blocking_agent if blocking else agent, blocking=blocking)
    await run.next()
    end = await run.abort("shutting down")
    assert end == RunEnd(error="shutting down", origin="raybolt")
    assert [type(error) for error in seen] == [PolicyAbort]
    assert await run.abort("again") is end


async def test_a_run_aborted_before_it_began_never_starts_the_agent():
    started = []

    async def agent(task, policy):
        started.append(True)

    assert (await new_run(agent).abort("not needed")).error == "not needed"
    assert started == []


async def test_an_agent_that_swallows_everything_is_left_behind_and_spares_the_loop(caplog):
    released = asyncio.Event()

    async def agent(task, policy):
        while not released.is_set():
            with contextlib.suppress(BaseException):
                await policy.complete(HELLO)

    begin = time.perf_counter()
    end = await finish(new_run(agent, limits=RunLimits(max_calls=2)))
    assert end == RunEnd(error="the agent made more than 2 LLM calls", origin="limit")
    assert time.perf_counter() - begin < 3
    assert "ignores its end and is left behind" in caplog.text
    released.set()
    await asyncio.sleep(0.1)


async def test_a_blocking_call_on_the_loops_thread_is_refused_with_a_remedy():
    async def agent(task, policy):
        return policy.complete_sync(HELLO)

    end = await finish(new_run(agent))
    assert end.origin == "agent"
    assert end.error.startswith("BlockingCall: an async agent made a blocking LLM call")


async def test_one_failing_run_spares_its_siblings():
    async def agent(task, policy):
        await policy.complete(HELLO)
        raise RuntimeError("boom")

    ends = await asyncio.gather(
        finish(new_run(agent)),
        finish(new_run(one_call, reward=lambda *_: 1)),
        finish(new_run(endless, limits=RunLimits(max_calls=2))),
        finish(new_run(one_call, reward=lambda *_: "x")),
    )
    assert [end.origin for end in ends] == ["agent", None, "limit", "reward"]


async def test_no_thread_and_no_task_is_left_when_runs_have_ended():
    def spinning_or_waiting(task, policy):
        policy.complete_sync(HELLO)
        while True:
            policy.complete_sync(HELLO)

    before = {thread for thread in threading.enumerate() if thread.name == "raybolt-agent"}
    runs = [new_run(spinning_or_waiting, blocking=True) for _ in range(8)]
    await asyncio.gather(*(run.next() for run in runs))
    await asyncio.gather(*(run.abort("enough") for run in runs))
    for _ in range(60):
        left = {thread for thread in threading.enumerate() if thread.name == "raybolt-agent"} - before
        if not left:
            break
        await asyncio.sleep(0.1)
    assert left == set()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert threads._workers == {}
    gc.collect()


async def test_spans_that_come_after_the_end_are_dropped():
    async def agent(task, policy):
        await policy.complete(HELLO)
        return 1

    run = new_run(agent)
    await finish(run)
    number = len(run.recorder.spans)
    assert run.recorder.record("late") is None
    assert len(run.recorder.spans) == number

"""How a run goes on: stepping, concurrency, threads, rewards."""

import asyncio
import threading

import numpy as np
import pytest
from scripted_runs import HELLO, TASK, BlockingProgram, Program, finish, new_run, say

from raybolt.env.context import current_run
from raybolt.env.emit import emit_reward
from raybolt.env.errors import RunOver
from raybolt.env.policy import RunEnd
from raybolt.env.recorder import SpanRecorder
from raybolt.env.run import AgentRun


async def two_calls(task, policy):
    first = await policy.complete(HELLO)
    second = await policy.complete(HELLO)
    return f"{first.message.content}{second.message.content}"


async def test_a_run_shows_its_calls_one_by_one_and_then_its_end():
    run = new_run(two_calls, reward=lambda *_: 1)
    (call,) = await run.next()
    assert (call.call_id, call.role, call.request) == ("call-0", "agent", HELLO)
    run.answer("call-0", say("a"))
    (call,) = await run.next()
    run.answer("call-1", say("b"))
    assert await run.next() == RunEnd(result="ab")
    assert run.trajectory.total_reward == 1.0


async def test_a_blocking_agent_runs_the_same_way():
    def agent(task, policy):
        return len(policy.complete_sync(HELLO).message.content)

    run = new_run(agent, blocking=True)
    assert await finish(run, lambda _: say("four")) == RunEnd(result=4)
    assert run.trajectory.total_reward == 4.0


async def test_a_blocking_agent_with_a_loop_of_its_own_runs_the_same_way():
    def agent(task, policy):
        async def inner():
            answers = await asyncio.gather(policy.complete(HELLO), policy.complete(HELLO))
            return float(len(answers))

        return asyncio.run(inner())

    assert await finish(new_run(agent, blocking=True)) == RunEnd(result=2.0)


async def test_calls_made_at_once_are_pending_at_once_and_answered_in_any_order():
    async def agent(task, policy):
        answers = await asyncio.gather(policy.complete(HELLO), policy.complete(HELLO))
        return [answer.message.content for answer in answers]

    run = new_run(agent, require_reward=False)
    pending = await run.next()
    assert [call.call_id for call in pending] == ["call-0", "call-1"]
    run.answer("call-1", say("second"))
    (left,) = await run.next()
    assert left.call_id == "call-0"
    run.answer("call-0", say("first"))
    assert (await run.next()).result == ["first", "second"]


async def test_next_waits_for_a_call_that_was_not_seen():
    async def agent(task, policy):
        slow = asyncio.create_task(policy.complete(HELLO))
        await policy.complete(HELLO)
        await asyncio.sleep(0.01)
        await policy.complete(HELLO)
        await slow
        return 1

    run = new_run(agent)
    assert {call.call_id for call in await run.next()} == {"call-0", "call-1"}
    run.answer("call-0", say("quick"))
    assert {call.call_id for call in await run.next(seen={"call-0", "call-1"})} == {"call-1", "call-2"}
    await run.abort("enough")


@pytest.mark.parametrize("blocking", [False, True])
async def test_a_hundred_runs_share_a_loop_without_seeing_one_another(blocking):
    async def agent(task, policy):
        await policy.complete(HELLO)
        emit_reward(float(task.task_id))
        await policy.complete(HELLO)

    def blocking_agent(task, policy):
        policy.complete_sync(HELLO)
        emit_reward(float(task.task_id))
        policy.complete_sync(HELLO)

    program = BlockingProgram(blocking_agent) if blocking else Program(agent)
    tasks = [type(TASK)(str(number), "") for number in range(100)]
    runs = [AgentRun(program, task, recorder=SpanRecorder(task.task_id, "a")) for task in tasks]
    # All are started before any is answered: a bounded pool would hang here.
    first = await asyncio.gather(*(run.next() for run in runs))
    assert [len(pending) for pending in first] == [1] * 100
    await asyncio.gather(*(finish(run) for run in runs))
    assert [run.trajectory.total_reward for run in runs] == [float(number) for number in range(100)]
    assert current_run.get() is None


async def test_blocking_code_inside_an_async_agent_gets_a_thread_and_the_run():
    async def agent(task, policy):
        await asyncio.gather(*(asyncio.to_thread(policy.complete_sync, HELLO) for _ in range(12)))
        await asyncio.get_running_loop().run_in_executor(None, emit_reward, 3)

    run = new_run(agent, require_reward=True)
    pending = await run.next()
    while len(pending) < 12:  # more than asyncio's own executor has threads
        pending = await run.next(seen={call.call_id for call in pending})
    for call in pending:
        run.answer(call.call_id, say("x"))
    assert (await run.next()).error is None
    assert run.trajectory.total_reward == 3.0


async def test_an_agent_may_stop_waiting_for_an_answer():
    async def agent(task, policy):
        try:
            await asyncio.wait_for(policy.complete(HELLO), 0.01)
        except TimeoutError:
            return (await policy.complete(HELLO)).message.content
        return "answered"

    run = new_run(agent, require_reward=False)
    (call,) = await run.next()
    (second,) = await run.next(seen={call.call_id})
    run.answer(call.call_id, say("too late"))
    run.answer(second.call_id, say("in time"))
    assert (await run.next()).result == "in time"
    assert [each.call_id for each in run.trajectory.calls] == ["call-1"]


async def test_answering_twice_is_an_error_that_names_what_is_pending():
    run = new_run(two_calls)
    await run.next()
    run.answer("call-0", say("a"))
    with pytest.raises(RunOver, match="call 'call-0' is not pending; pending are none"):
        run.answer("call-0", say("a"))
    await run.abort("enough")


class Odd:
    """Has an item like a tensor, and a number in it."""

    size = 1

    def item(self):
        return 0.5


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.array([0.5]), Odd()])
async def test_whatever_holds_one_number_is_a_reward(value):
    run = new_run(two_calls, reward=lambda *_: value)
    await finish(run)
    assert run.trajectory.total_reward == 0.5


async def test_a_truth_value_returned_by_the_agent_is_its_reward():
    async def agent(task, policy):
        await policy.complete(HELLO)
        return True

    run = new_run(agent)
    await finish(run)
    assert run.trajectory.total_reward == 1.0


async def test_a_reward_function_may_be_async_and_sees_task_result_and_trajectory():
    seen = []

    async def score(task, result, trajectory):
        await asyncio.sleep(0)
        seen.append(
            (task.task_id, result, [call.reply.content for call in trajectory.calls], trajectory.status)
        )
        return 2

    run = new_run(two_calls, reward=score)
    await finish(run)
    assert seen == [("t1", "hihi", ["hi", "hi"], "running")]
    assert run.trajectory.final_reward == 2.0


async def test_a_plain_reward_function_may_block_without_stopping_the_loop():
    event = threading.Event()

    def score(task, result, trajectory):
        assert event.wait(5)
        return 1

    run = new_run(two_calls, reward=score)
    ending = asyncio.create_task(finish(run))
    await asyncio.sleep(0.05)
    event.set()
    assert (await ending).error is None


async def test_emitted_rewards_and_the_final_one_add_up():
    async def agent(task, policy):
        await policy.complete(HELLO)
        emit_reward(0.25)
        emit_reward(0.25, why="again")
        await policy.complete(HELLO)
        return 1  # with a reward function this is a result and no reward

    run = new_run(agent, reward=lambda *_: 0.125)
    await finish(run)
    trajectory = run.trajectory
    assert trajectory.total_reward == 0.625
    assert trajectory.final_reward == 0.125
    assert [call.reward for call in trajectory.calls] == [0.5, 0.0]
    assert [reward.call_id for reward in trajectory.rewards] == ["call-0", "call-0", "call-1"]

"""The trajectory that comes out of the store is the one that was in memory."""

import asyncio
from dataclasses import fields, replace

import numpy as np
import pytest
from scripted_runs import HELLO, finish, new_run

from raybolt.env.chat import ChatMessage, Completion
from raybolt.env.emit import emit_reward, operation
from raybolt.env.trajectory import Call, Trajectory, trajectory_from_spans
from raybolt.store.errors import InvalidValue
from raybolt.store.local import LocalStore


def same(one, other):
    """Whether two values are equal down to the dtypes of arrays."""
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Call | Trajectory):
        names = [field.name for field in fields(one) if field.name != "tool_spans"]
        return type(one) is type(other) and all(same(getattr(one, n), getattr(other, n)) for n in names)
    return one == other


def sampled(number):
    return Completion(
        ChatMessage("assistant", f"answer {number}"),
        prompt_ids=np.arange(number + 3, dtype=np.int32),
        response_ids=np.array([7, number], dtype=np.int32),
        logprobs=np.array([-0.1, -1 / 3], dtype=np.float32),
        weights_version=number,
    )


async def forked(task, policy):
    await policy.complete(HELLO)
    emit_reward(0.5)
    with operation("both"):
        await asyncio.gather(policy.complete(HELLO), policy.complete(HELLO))
    await policy.complete(HELLO)


async def run_forked(reward=lambda *_: 1):
    run = new_run(forked, reward=reward)
    counter = iter(range(10))
    await finish(run, lambda _: sampled(next(counter)))
    return run


async def test_calls_form_a_graph_in_which_a_fork_and_its_join_show():
    trajectory = (await run_forked()).trajectory
    assert [call.parents for call in trajectory.calls] == [
        (),
        ("call-0",),
        ("call-0",),
        ("call-1", "call-2"),
    ]
    assert [call.reward for call in trajectory.calls] == [0.5, 0.0, 0.0, 0.0]
    assert trajectory.total_reward == 1.5
    assert trajectory.calls[1].response_ids.tolist() == [7, 1]


async def test_the_store_gives_back_exactly_what_was_in_memory(tmp_path):
    run = await run_forked()
    async with LocalStore(tmp_path) as store:
        started = await store.start_rollout("hello", rollout_id="ro-1")
        attempt_id = started.attempt.attempt_id
        run.recorder.attempt_id = attempt_id
        await store.add_many_spans([replace(span, attempt_id=attempt_id) for span in run.recorder.drain()])
    async with LocalStore(tmp_path) as reopened:
        kept = await reopened.query_spans("ro-1", attempt_id)
    again = trajectory_from_spans(reversed(kept), rollout_id="ro-1", attempt_id=attempt_id, task_id="t1")
    assert same(again, run.trajectory)


async def test_a_failed_rollout_has_no_return():
    def broken(*_):
        raise RuntimeError("no")

    trajectory = (await run_forked(broken)).trajectory
    assert (trajectory.status, trajectory.origin) == ("failed", "reward")
    with pytest.raises(InvalidValue, match="so it has no reward; leave it out"):
        _ = trajectory.total_reward


async def test_calls_without_tokens_are_known_as_such():
    async def agent(task, policy):
        await policy.complete(HELLO)
        return 1

    run = new_run(agent)
    await finish(run)
    (call,) = run.trajectory.calls
    assert not call.has_tokens
    assert call.messages == HELLO.messages
    assert call.reply == ChatMessage("assistant", "hi")
    assert call.start < call.end

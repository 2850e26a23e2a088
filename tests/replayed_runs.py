"""Scripted runs in a store, to be replayed and forked."""

import asyncio
import itertools

import numpy as np
from scripted_runs import Program

from raybolt.env.chat import ChatMessage, ChatRequest
from raybolt.env.emit import emit_reward, operation
from raybolt.env.limits import RunLimits
from raybolt.env.policy import RunEnd, Sampled
from raybolt.env.recorded import summary_of, task_metadata
from raybolt.env.recorder import SpanRecorder
from raybolt.env.run import AgentRun
from raybolt.env.stepper import RunStepper
from raybolt.env.task import Task
from raybolt.env.trajectory import trajectory_from_spans

TASK = Task("t1", "cats")


class Agent:
    """An agent given by a function, with what `wrap` would add."""

    name = "scripted"
    limits = RunLimits(max_seconds=5)
    reward = None
    trainable = None

    def __init__(self, function, **settings):
        self._function = function
        vars(self).update(settings)

    def program(self):
        return Program(self._function)


def team():
    """A writer and a critic, two rounds each, with a tool between them that counts its executions."""
    count = {"look": 0}

    @operation
    def look(word):
        count["look"] += 1
        emit_reward(0.25)
        return {"found": f"{word} #{count['look']}"}

    async def run(task, policy):
        talk = [ChatMessage("user", task.input)]
        for _ in range(2):
            draft = await policy.complete(ChatRequest(tuple(talk), role="writer"))
            seen = look(draft.message.content)
            talk += [draft.message, ChatMessage("user", str(seen["found"]))]
            verdict = await policy.complete(ChatRequest(tuple(talk), role="critic"))
            talk += [verdict.message, ChatMessage("user", "go on")]
        return 1.0

    return run, count


def tokens_of(codec, text, logprob=-1.0):
    ids = np.array(codec.tokenizer.encode(text + "<|im_end|>"), np.int32)
    return Sampled(ids, np.full(len(ids), logprob, np.float32), 3, 0.7)


async def record(store, function, codec, unanswered=None, **settings):
    """A run of the agent in the store, answered "say 0", "say 1", …; its rollout id.

    Calls of the role `unanswered` are left waiting.
    """
    started = await store.start_rollout(TASK.input, task_id="t1", mode="train", metadata=task_metadata(TASK))
    recorder = SpanRecorder(started.rollout_id, started.attempt.attempt_id)
    run = AgentRun(Program(function), TASK, recorder=recorder, **settings)
    stepper, numbers = RunStepper(run, codec), itertools.count()
    while not isinstance(prompts := await stepper.next(), RunEnd):
        await asyncio.sleep(0)
        for prompt in prompts:
            if prompt.call.role != unanswered:
                stepper.act({prompt.call.call_id: tokens_of(codec, f"say {next(numbers)}")})
    await store.add_many_spans(recorder.drain())
    await store.update_attempt(
        started.rollout_id,
        started.attempt.attempt_id,
        status="failed" if prompts.failed else "succeeded",
        metadata=summary_of(run.trajectory),
    )
    return started.rollout_id


async def trajectory(store, rollout_id):
    spans = await store.query_spans(rollout_id, "latest")
    return trajectory_from_spans(spans, rollout_id=rollout_id, attempt_id="x")


def same_call(one, two):
    assert (one.call_id, one.role, one.reply, one.weights_version) == (
        two.call_id,
        two.role,
        two.reply,
        two.weights_version,
    )
    assert (one.temperature, one.drift, one.finish_reason) == (two.temperature, two.drift, two.finish_reason)
    for name in ("prompt_ids", "response_ids", "logprobs"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))

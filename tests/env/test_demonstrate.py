"""Demonstrations through a real store."""

import json

import numpy as np
import pytest
from scripted_runs import Program

from raybolt.env.chat import ChatMessage, ChatRequest, ToolCall, ToolSpec
from raybolt.env.demonstrate import demonstrate
from raybolt.env.limits import RunLimits
from raybolt.env.task import Task
from raybolt.env.trajectory import trajectory_from_spans
from raybolt.store.errors import InvalidValue
from raybolt.store.local import LocalStore

ADD = ToolSpec("add", "adds", {"type": "object", "properties": {"a": {"type": "integer"}}})


async def adding(task, policy):
    messages = [ChatMessage("user", task.input)]
    while True:
        answer = (await policy.complete(ChatRequest(tuple(messages), (ADD,)))).message
        if not answer.tool_calls:
            return float(answer.content == "3")
        arguments = json.loads(answer.tool_calls[0].arguments)
        messages += [
            answer,
            ChatMessage("tool", str(arguments["a"] + 1), tool_call_id=answer.tool_calls[0].id),
        ]


class Adder:
    limits = RunLimits()
    reward = None
    trainable = None

    def program(self):
        return Program(adding)


def teacher(task, request):
    if request.messages[-1].role == "tool":
        return ChatMessage("assistant", request.messages[-1].content)
    return ChatMessage("assistant", None, (ToolCall("t", "add", '{"a": 2}'),))


async def test_a_demonstration_is_a_rollout_whose_calls_carry_the_teachers_tokens(codec):
    async with LocalStore(None) as store:
        made = await demonstrate(
            Adder(), [Task("one", "1+2"), Task("two", "2+1")], teacher, store, codec=codec
        )
        rollouts = await store.query_rollouts(mode="demo")
        assert [rollout.rollout_id for rollout in rollouts] == list(made.rollout_ids)
        assert [(rollout.task_id, rollout.status) for rollout in rollouts] == [
            ("one", "succeeded"),
            ("two", "succeeded"),
        ]
        attempt = await store.get_latest_attempt(made.rollout_ids[0])
        spans = await store.query_spans(made.rollout_ids[0])
    trajectory = trajectory_from_spans(spans, rollout_id="x", attempt_id=attempt.attempt_id)
    first, second = trajectory.calls
    assert trajectory.total_reward == 1.0
    assert codec.tokenizer.decode(first.response_ids) == (
        '<tool_call>{"name": "add", "arguments": {"a": 2}}</tool_call><|im_end|>'
    )
    assert codec.tokenizer.decode(second.response_ids) == "3<|im_end|>"
    assert first.logprobs is None
    begin = np.concatenate([first.prompt_ids, first.response_ids])
    np.testing.assert_array_equal(second.prompt_ids[: len(begin)], begin)


async def test_the_teacher_may_be_async(codec):
    async def slow(task, request):
        return teacher(task, request)

    async with LocalStore(None) as store:
        tasks = [Task(str(number), "") for number in range(4)]
        made = await demonstrate(Adder(), tasks, slow, store, codec=codec, concurrency=4)
    assert made.errors == {}


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda task, request: 1 / 0, "the teacher failed: ZeroDivisionError"),
        (lambda task, request: ChatMessage("user", "x"), "the teacher failed: TemplateError"),
    ],
)
async def test_a_teacher_that_fails_fails_this_rollout_alone(codec, wrong, error):
    def sometimes(task, request):
        return wrong(task, request) if task.task_id == "bad" else teacher(task, request)

    async with LocalStore(None) as store:
        tasks = [Task("good", ""), Task("bad", ""), Task("fine", "")]
        made = await demonstrate(Adder(), tasks, sometimes, store, codec=codec)
        rollouts = await store.query_rollouts(mode="demo")
        attempt = await store.get_latest_attempt(made.rollout_ids[1])
    assert [rollout.status for rollout in rollouts] == ["succeeded", "failed", "succeeded"]
    assert list(made.errors) == [made.rollout_ids[1]]
    assert made.errors[made.rollout_ids[1]].startswith(error)
    assert attempt.metadata["origin"] == "policy"


@pytest.mark.parametrize("concurrency", [0, -1])
async def test_runs_cannot_be_made_none_at_a_time(codec, concurrency):
    async with LocalStore(None) as store:
        with pytest.raises(InvalidValue, match=rf"concurrency is {concurrency}; give 1 or more"):
            await demonstrate(Adder(), [Task("a", "")], teacher, store, codec=codec, concurrency=concurrency)
        assert await store.query_rollouts() == []

"""Calls that the policy does not take: answered by the agent's own model, recorded, never pending."""

from dataclasses import replace

import pytest
from scripted_runs import HELLO, finish, new_run, say

from raybolt.env.chat import ChatMessage
from raybolt.env.limits import RunLimits
from raybolt.env.policy import RunEnd
from raybolt.env.run import AgentRun
from raybolt.env.selection import check_trainable
from raybolt.store import names
from raybolt.store.errors import InvalidValue

WRITER = replace(HELLO, role="writer")
CRITIC = replace(HELLO, role="critic")


async def writes_then_criticises(task, policy):
    """An agent whose critic has a model of its own."""
    for request in (WRITER, CRITIC):
        if policy.takes(request):
            await policy.complete(request)
        else:
            with policy.observe(request) as call:
                call.reply(ChatMessage("assistant", "fine"), model="gpt", input_tokens=7, output_tokens=1)
    return 1.0


def chat_spans(run: AgentRun):
    return [span for span in run.recorder.spans if span.attributes.get(names.OPERATION) == names.CHAT]


async def test_calls_of_other_roles_are_recorded_and_not_pending():
    run = new_run(writes_then_criticises, trainable=["writer"])
    pending = await run.next()
    assert [call.role for call in pending] == ["writer"]
    run.answer("call-0", say("draft"))
    end = await run.next()
    assert end == RunEnd(result=1.0)
    writer, critic = run.trajectory.calls
    assert (writer.call_id, writer.trainable) == ("call-0", True)
    assert (critic.call_id, critic.trainable, critic.reply.content) == ("call-1", False, "fine")
    assert critic.parents == ("call-0",)
    assert not critic.has_tokens
    span = chat_spans(run)[1]
    assert span.attributes[names.REQUEST_MODEL] == "gpt"
    assert (span.attributes[names.INPUT_TOKENS], span.attributes[names.OUTPUT_TOKENS]) == (7, 1)
    assert span.parent_id == run.recorder.spans[0].span_id


async def test_a_call_that_is_not_taken_may_still_be_put_to_the_policy_and_is_marked():
    async def one_model_for_all(task, policy):
        await policy.complete(WRITER)
        await policy.complete(CRITIC)
        return 1.0

    run = new_run(one_model_for_all, trainable=["writer"])
    await finish(run)
    assert [call.trainable for call in run.trajectory.calls] == [True, False]
    assert [names.TRAINABLE in span.attributes for span in chat_spans(run)] == [False, True]


@pytest.mark.parametrize(
    ("trainable", "taken"),
    [
        (None, ["writer", "critic"]),
        (["*"], ["writer", "critic"]),
        (["wr*", "nobody"], ["writer"]),
        (["Writer"], []),
        (lambda request: request.role == "critic", ["critic"]),
    ],
)
async def test_patterns_or_a_function_say_which_calls_are_the_policys(trainable, taken):
    run = new_run(writes_then_criticises, trainable=trainable)
    asked = []
    while not isinstance(pending := await run.next(), RunEnd):
        for call in pending:
            asked.append(call.role)
            run.answer(call.call_id, say("x"))
    assert asked == taken


async def test_an_own_model_that_fails_fails_its_span_and_passes_the_error_on():
    async def agent(task, policy):
        with policy.observe(CRITIC):
            raise ConnectionError("no route")

    run = new_run(agent, trainable=["writer"])
    end = await finish(run)
    assert (end.error, end.origin) == ("ConnectionError: no route", "agent")
    (span,) = chat_spans(run)
    assert (span.status, span.status_message) == ("error", "ConnectionError: no route")
    assert run.trajectory.calls == ()


async def test_a_reply_that_was_never_told_leaves_an_error():
    async def agent(task, policy):
        with policy.observe(CRITIC):
            return 1.0

    run = new_run(agent, trainable=["writer"])
    await finish(run)
    (span,) = chat_spans(run)
    assert (span.status, span.status_message) == ("error", "the agent's own model gave no reply")


@pytest.mark.parametrize("blocking", [False, True])
async def test_observed_calls_count_towards_the_limit(blocking):
    def endless(task, policy):
        while True:
            with policy.observe(CRITIC) as call:
                call.reply(ChatMessage("assistant", "again"))

    async def endless_async(task, policy):
        endless(task, policy)

    run = new_run(
        endless if blocking else endless_async,
        blocking=blocking,
        trainable=["writer"],
        limits=RunLimits(max_calls=3),
    )
    end = await finish(run)
    assert (end.error, end.origin) == ("the agent made more than 3 LLM calls", "limit")
    assert len(run.trajectory.calls) == 3


@pytest.mark.parametrize("value", ["writer", [], [""], [3], 7])
def test_what_says_nothing_about_calls_is_refused(value):
    with pytest.raises(InvalidValue, match="expected a list of roles or patterns"):
        check_trainable(value)

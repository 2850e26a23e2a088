"""Recorded runs as chats, SFT examples and preference pairs."""

import json

import pytest
from scripted_runs import Program

from raybolt.env.chat import ChatMessage, ChatRequest, Completion, ToolCall, ToolSpec
from raybolt.env.exports import _object, chats, preference_pairs, recorded_runs, sft_examples, write_jsonl
from raybolt.env.policy import RunEnd
from raybolt.env.recorded import summary_of, task_metadata
from raybolt.env.recorder import SpanRecorder
from raybolt.env.rereward import re_reward
from raybolt.env.run import AgentRun
from raybolt.env.task import Task
from raybolt.env.tool_calls import MalformedToolCall, canonical_arguments, parse_reply
from raybolt.store import LocalStore

ADD = ToolSpec("add", "adds", {"type": "object", "properties": {"a": {"type": "integer"}}})
ADD_DICT = {
    "type": "function",
    "function": {"name": "add", "description": "adds", "parameters": ADD.parameters},
}
USER = {"role": "user", "content": "1+2"}


async def adding(task, policy):
    """Calls a tool until the model gives an answer; then a critic, without tools, says something."""
    messages = [ChatMessage("user", task.input)]
    while True:
        reply = (await policy.complete(ChatRequest(tuple(messages), (ADD,), role="adder"))).message
        messages.append(reply)
        if not reply.tool_calls:
            break
        total = json.loads(reply.tool_calls[0].arguments)["a"] + 1
        messages.append(ChatMessage("tool", str(total), tool_call_id=reply.tool_calls[0].id))
    await policy.complete(ChatRequest((ChatMessage("user", f"Is {reply.content} right?"),), role="critic"))
    return float(reply.content == "3")


def ask_tool(a):
    return ChatMessage("assistant", None, (ToolCall("c", "add", f'{{"a": {a}}}'),))


def say(text):
    return ChatMessage("assistant", text)


async def store_run(store, *replies, group_id="g"):
    started = await store.start_rollout(
        "1+2", task_id="t", group_id=group_id, metadata=task_metadata(Task("t", "1+2"))
    )
    recorder = SpanRecorder(started.rollout_id, started.attempt.attempt_id)
    run, answers = AgentRun(Program(adding), Task("t", "1+2"), recorder=recorder), iter(replies)
    while not isinstance(pending := await run.next(), RunEnd):
        for call in pending:
            run.answer(call.call_id, Completion(next(answers)))
    await store.add_many_spans(recorder.drain())
    status = "failed" if pending.failed else "succeeded"
    await store.update_attempt(
        started.rollout_id, "latest", status=status, metadata=summary_of(run.trajectory)
    )
    return started.rollout_id


async def test_a_failed_run_is_half_of_a_pair_once_it_is_judged():
    async with LocalStore(None) as store:
        await store_run(store, say("3"), say("yes"))
        failed = await store_run(store, ask_tool('"x"'), say("never said"))
        assert (await store.get_rollout_by_id(failed)).status == "failed"
        assert list(preference_pairs(await runs_of(store))) == []
        await re_reward(store, lambda task, result, run: -1 if run.failed else 1, include_failed=True)
        (pair,) = preference_pairs(await runs_of(store))
        assert (pair["score_chosen"], pair["score_rejected"]) == (1.0, -1.0)
        assert [message["role"] for message in pair["rejected"]] == ["assistant"]
        assert [row["messages"][-1] for row in sft_examples(await runs_of(store))] == [
            {"role": "assistant", "content": "3"},
            {"role": "assistant", "content": "yes"},
        ]


async def runs_of(store):
    return [run async for run in recorded_runs(store)]


def tool_turn(a, arguments):
    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": arguments}}
    return [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": str(a + 1), "tool_call_id": "c"},
    ]


async def test_an_example_is_a_whole_conversation_with_its_tools():
    async with LocalStore(None) as store:
        await store_run(store, ask_tool(2), say("3"), say("Yes."))
        examples = list(sft_examples(await runs_of(store)))
    assert examples == [
        {
            "messages": [USER, *tool_turn(2, {"a": 2}), {"role": "assistant", "content": "3"}],
            "tools": [ADD_DICT],
        },
        {"messages": [{"role": "user", "content": "Is 3 right?"}, {"role": "assistant", "content": "Yes."}]},
    ]


async def test_examples_can_be_chosen_by_reward_and_by_the_latest_of_them():
    async with LocalStore(None) as store:
        await store_run(store, say("3"), say("Yes."))
        await store_run(store, say("4"), say("No."))
        runs = await runs_of(store)
        assert [e["messages"][-1]["content"] for e in sft_examples(runs, min_reward=1)] == ["3", "Yes."]
        assert len(list(sft_examples(runs, keep=lambda rollout, trajectory: len(trajectory.calls) > 2))) == 0
        await re_reward(store, lambda task, result, trajectory: 1 - result)
        kept = sft_examples(await runs_of(store), min_reward=1)
        assert [e["messages"][-1]["content"] for e in kept] == ["4", "No."]


async def test_chats_are_openais_and_name_their_run_failed_ones_too(tmp_path):
    async with LocalStore(None) as store:
        rollout_id = await store_run(store, ask_tool(2), say("3"), say("Yes."))
        await store_run(store, ChatMessage("assistant", None, (ToolCall("c", "add", "{}"),)))
        runs = await runs_of(store)
    path = tmp_path / "chats.jsonl"
    assert write_jsonl(path, chats(runs)) == 3
    first, second, third = map(json.loads, path.read_text().splitlines())
    assert first["messages"] == [USER, *tool_turn(2, '{"a": 2}'), {"role": "assistant", "content": "3"}]
    assert (first["rollout_id"], first["task_id"], first["group_id"]) == (rollout_id, "t", "g")
    assert [(each["role"], each["status"], each["reward"]) for each in (first, second, third)] == [
        ("adder", "succeeded", 1.0),
        ("critic", "succeeded", 1.0),
        ("adder", "failed", None),
    ]


async def test_a_pair_is_the_best_against_the_worst_behind_what_they_share():
    async with LocalStore(None) as store:
        await store_run(store, ask_tool(2), say("5"), say("Yes."))
        await store_run(store, ask_tool(2), say("3"), say("Yes."))
        await store_run(store, say("4"), say("No."), group_id="other")
        await store_run(store, ask_tool(2), say("3"), say("Yes."), group_id="other")
        first, second = preference_pairs(await runs_of(store))
    assert first == {
        "prompt": [USER, *tool_turn(2, {"a": 2})],
        "chosen": [{"role": "assistant", "content": "3"}],
        "rejected": [{"role": "assistant", "content": "5"}],
        "score_chosen": 1.0,
        "score_rejected": 0.0,
        "tools": [ADD_DICT],
        "group_id": "g",
    }
    assert second["prompt"] == [USER]
    assert second["chosen"] == [*tool_turn(2, {"a": 2}), {"role": "assistant", "content": "3"}]
    assert second["rejected"] == [{"role": "assistant", "content": "4"}]


async def test_there_is_no_pair_where_rewards_are_equal_or_nothing_but_the_world_differs():
    async with LocalStore(None) as store:
        await store_run(store, say("3"), say("Yes."))
        await store_run(store, ask_tool(2), say("3"), say("Yes."))
        await store_run(store, say("3"), say("Yes."), group_id="margin")
        await store_run(store, say("4"), say("No."), group_id="margin")
        runs = await runs_of(store)
        assert [pair["group_id"] for pair in preference_pairs(runs)] == ["margin"]
        assert list(preference_pairs(runs, min_margin=1.0)) == []


async def test_conversations_that_no_reader_of_the_formats_takes_are_left_out():
    async with LocalStore(None) as store:
        await store_run(store, ask_tool("NaN"), say("3"), say("Yes."))
        await store_run(store, ask_tool(2), say("4"), say("No."))
        runs = await runs_of(store)
        assert [len(row["messages"]) for row in sft_examples(runs)] == [
            2,
            4,
            2,
        ]  # one critic's, and the other run
        assert [pair["prompt"][0]["content"] for pair in preference_pairs(runs)] == []
        assert len(list(chats(runs))) == 4


@pytest.mark.parametrize(
    ("arguments", "read"),
    [("", {}), ("{}", {}), ('{"a": [1]}', {"a": [1]}), ("[]", None), ("3", None), ("x", None),
     ('{"a": Infinity}', None), ("[" * 3000, None)],
)  # fmt: skip
def test_arguments_are_an_object_or_unreadable(arguments, read):
    assert _object(arguments) == read


def test_half_a_character_stops_no_export(tmp_path):
    assert write_jsonl(tmp_path / "chats.jsonl", [{"a": "\ud83d"}, {"a": "b"}]) == 2
    assert (tmp_path / "chats.jsonl").read_text().splitlines() == ['{"a": "?"}', '{"a": "b"}']


@pytest.mark.parametrize("odd", ['{"q": ' + "9" * 4400 + "}", "[" * 2000], ids=["digits", "brackets"])
def test_arguments_that_no_parser_stands_are_malformed_and_stay_text(odd):
    assert canonical_arguments(odd) == odd
    with pytest.raises(MalformedToolCall):
        parse_reply(f'<tool_call>{{"name": "look", "arguments": {odd}}}</tool_call>', "c")

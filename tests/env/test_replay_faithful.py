"""Hard cases of replays and forks: what failed then, what ran at the same time, and forks of forks."""

import asyncio
import itertools

import numpy as np
import pytest
from replayed_runs import Agent, record, same_call, team, tokens_of, trajectory
from scripted_runs import say

from raybolt.env.chat import ChatMessage, ChatRequest
from raybolt.env.emit import emit, operation
from raybolt.env.errors import ReplayDiverged
from raybolt.env.fork import fork
from raybolt.env.limits import RunLimits
from raybolt.env.policy import RunEnd
from raybolt.env.recorded_tools import RecordedTools
from raybolt.env.recorder import SpanRecorder
from raybolt.env.replay import replay
from raybolt.store import InvalidValue, LocalStore, names


def ask(text, role="agent"):
    return ChatRequest((ChatMessage("user", text),), role=role)


class Odd(Exception):
    """Holds what is no JSON."""

    def __init__(self, what):
        super().__init__(f"odd: {what}")
        self.what = what


class Closed(Exception):
    """A user's own exception, with a detail."""

    def __init__(self, shop, *, until):
        super().__init__(f"{shop} is closed")
        self.until = until


# Tools


async def test_a_function_that_raised_raises_the_same_again(codec):
    runs = []

    @operation
    def enter(shop):
        runs.append(shop)
        emit("tried", shop=shop)
        if shop == "file":
            raise FileNotFoundError(2, "No such file", f"{len(runs)}.txt")
        raise Closed(shop, until=[9, len(runs)])

    async def function(task, policy):
        said = []
        for shop in ("bakery", "file"):
            try:
                enter(shop)
            except Closed as error:
                said.append(f"{error} until {error.until}")
            except FileNotFoundError as error:
                said.append(f"{error.filename}: {error}")
        await policy.complete(ask("; ".join(said)))
        return 1

    async with LocalStore(None) as store:
        rollout_id = await record(store, function, codec)
        async with await replay(Agent(function), store, rollout_id) as at:
            (call,) = at.run.trajectory.calls
            assert call.input_messages[0]["content"] == (
                "bakery is closed until [9, 1]; 2.txt: [Errno 2] No such file: '2.txt'"
            )
            again = [span for span in at.run.recorder.spans if span.name == "enter"]
            assert [span.status_message for span in again] == [
                "Closed: bakery is closed",
                "FileNotFoundError: [Errno 2] No such file: '2.txt'",
            ]
            assert [span.name for span in at.run.recorder.spans if span.name == "tried"] == ["tried"] * 2
    assert runs == ["bakery", "file"]


@pytest.mark.parametrize("oddity", ["raised", "returned"])
async def test_a_function_that_gave_no_json_runs_again_and_a_difference_is_noticed(codec, oddity):
    runs = []

    @operation
    def odd():
        runs.append(None)
        if oddity == "raised":
            raise Odd({len(runs)})
        return {len(runs)}

    async def function(task, policy):
        try:
            what = odd()
        except Odd as error:
            what = error.what
        await policy.complete(ask(f"{sorted(what)}"))
        return 1

    async with LocalStore(None) as store:
        rollout_id = await record(store, function, codec)
        with pytest.raises(ReplayDiverged, match=r"message 0 differs: then user: '\[1\]'; now user: '\[2\]'"):
            await replay(Agent(function), store, rollout_id)


async def test_what_a_tool_gave_is_its_callers_to_change(codec):
    @operation
    def basket():
        return ["egg"]

    async def function(task, policy):
        mine = basket()
        mine.append("milk")
        await policy.complete(ask(f"{mine}"))
        return 1

    async with LocalStore(None) as store:
        rollout_id = await record(store, function, codec)
        made = await fork(
            Agent(function), store, rollout_id, 0, 3, answer=lambda prompt: say("x"), codec=codec
        )
    assert made.errors == {}


async def test_tools_that_run_at_the_same_time_may_do_so_in_any_order(codec):
    """In the record the tools end in the order b, a; in the replay they are asked for in the order b, a."""
    runs, first = [], ["a"]

    @operation
    async def look(word, ended=None):
        runs.append(word)
        return f"{word} #{len(runs)}"

    async def function(task, policy):
        words = ["a", "b", "a"] if first == ["a"] else ["b", "a", "a"]
        found = dict.fromkeys(words)
        answers = await asyncio.gather(*map(look, words))
        for word, answer in zip(words, answers, strict=True):
            found[word] = sorted({*(found[word] or ()), answer})
        await policy.complete(ask(str(sorted(found.items()))))
        return 1

    async with LocalStore(None) as store:
        rollout_id = await record(store, function, codec)
        first[0] = "b"
        async with await replay(Agent(function), store, rollout_id) as at:
            assert at.run.end.error is None
    assert runs == ["a", "b", "a"]


def test_equal_calls_get_the_answer_to_their_own_call_and_else_the_next_one():
    recorder = SpanRecorder("ro", "at")
    for call_id, result in [("x", 1), ("y", 2), (None, 3)]:
        told = {names.TOOL_CALL_ID: call_id} if call_id else {}
        known = {names.OPERATION: names.EXECUTE_TOOL, names.TOOL_NAME: "look", names.TOOL_ARGUMENTS: {}}
        recorder.record("execute_tool look", attributes={**known, **told, names.TOOL_RESULT: result})
    tools = RecordedTools(recorder.spans)
    assert [tools.take("look", {}, call_id).given() for call_id in ("y", None, "unknown")] == [2, 1, 3]
    assert tools.take("look", {}, "y") is None


async def test_a_decorated_function_answers_inside_a_block_that_looks_like_a_tool(codec):
    runs = []

    @operation
    def look(word):
        runs.append(word)
        return len(runs)

    async def function(task, policy):
        with operation("tool", **{names.OPERATION: names.EXECUTE_TOOL, names.TOOL_NAME: "look"}) as span:
            found = look("a")
            span.attributes |= {names.TOOL_ARGUMENTS: {"word": "a"}, names.TOOL_RESULT: found}
        await policy.complete(ask(str(found)))
        return 1

    async with LocalStore(None) as store:
        rollout_id = await record(store, function, codec)
        async with await replay(Agent(function), store, rollout_id) as at:
            assert at.run.end.error is None
    assert runs == ["a"]


# Calls


async def test_a_call_that_the_agent_gave_up_then_is_given_up_again(codec):
    """Two are asked at once, and the answer of the first to reply wins."""

    async def function(task, policy):
        asked = [asyncio.create_task(policy.complete(ask(word, word))) for word in ("slow", "fast")]
        done, late = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        for each in late:
            each.cancel()
        (winner,) = done
        await policy.complete(ask(f"{winner.result().message.content} won", "judge"))
        return 1

    async with LocalStore(None) as store:
        rollout_id = await record(store, function, codec, unanswered="slow")
        then = await trajectory(store, rollout_id)
        assert [call.role for call in then.calls] == ["fast", "judge"]
        async with await replay(Agent(function), store, rollout_id) as at:
            assert at.run.end.error is None
            assert [call.role for call in at.run.trajectory.calls] == ["fast", "judge"]
        async with await replay(Agent(function), store, rollout_id, until=1) as at:
            assert at.call.role == "judge"


@pytest.mark.parametrize("error", [TimeoutError("own model"), Odd({1})])
async def test_an_own_model_that_failed_fails_again_unasked(codec, error):
    asked = []

    async def function(task, policy):
        for attempt in range(2):
            request = ask("x", "own")
            try:
                if policy.takes(request):
                    await policy.complete(request)
                else:
                    with policy.observe(request) as call:
                        asked.append(attempt)
                        if attempt == 0:
                            raise error
                        call.reply(ChatMessage("assistant", "fine"))
            except (TimeoutError, Odd) as failure:
                await policy.complete(ask(f"failed: {failure}", "policy"))
        return 1

    agent = Agent(function, trainable=["policy"])
    async with LocalStore(None) as store:
        rollout_id = await record(store, function, codec, trainable=["policy"])
        assert asked == [0, 1]
        if isinstance(error, TimeoutError):
            async with await replay(agent, store, rollout_id) as at:
                assert at.run.end.error is None
            made = await fork(agent, store, rollout_id, 0, 1, answer=lambda prompt: say("x"), codec=codec)
            (child,) = made.rollout_ids
            spans = await store.query_spans(child, "latest")
            failed = [span for span in spans if span.name == "chat own" and span.status == "error"]
            assert [span.attributes[names.TRAINABLE] for span in failed] == [False]
            assert asked == [0, 1, 1]  # behind the fork it is asked
            again = await fork(agent, store, child, 0, 1, answer=lambda prompt: say("y"), codec=codec)
            assert again.errors == {}
        else:
            failed = r"\(role 'own'\) .* own model failed then \(Odd: odd: \{1\}\), which cannot be raised"
            with pytest.raises(ReplayDiverged, match=failed):
                await replay(agent, store, rollout_id)


async def test_several_roles_at_once_wait_where_the_replay_stops(codec):
    async def function(task, policy):
        async def work(role):
            talk = [ChatMessage("user", role)]
            for _ in range(2):
                reply = await policy.complete(ChatRequest(tuple(talk), role=role))
                talk += [reply.message, ChatMessage("user", "go on")]
            return talk[-2].content

        return float(len(await asyncio.gather(*map(work, ["cook", "waiter", "host"]))))

    async with LocalStore(None) as store:
        rollout_id = await record(store, function, codec)
        then = await trajectory(store, rollout_id)
        assert [call.role for call in then.calls] == ["cook", "waiter", "host"] * 2
        async with await replay(Agent(function), store, rollout_id, until=4, codec=codec) as at:
            assert at.call.role == "waiter"
            answered = [call.role for call in at.run.trajectory.calls]
            assert answered == ["cook", "waiter", "host", "cook"]
            while len(pending := await at.run.next()) < 2:
                await asyncio.sleep(0)
            assert {call.role for call in pending} == {"waiter", "host"}
        numbers = itertools.count()
        made = await fork(
            Agent(function), store, rollout_id, 4, 2,
            answer=lambda prompt: tokens_of(codec, f"new {next(numbers)}"), codec=codec,
        )  # fmt: skip
        for each in made.rollout_ids:
            calls = (await trajectory(store, each)).calls
            shared = [call for call in calls if call.reply.content.startswith("say")]
            assert [call.role for call in shared] == ["cook", "waiter", "host", "cook"]
            for one, two in zip(shared, then.calls, strict=False):
                same_call(one, two)


# Forks


@pytest.mark.parametrize("k", [0, 3])
async def test_forks_at_the_first_and_at_the_last_call(codec, k):
    function, count = team()
    async with LocalStore(None) as store:
        rollout_id = await record(store, function, codec)
        made = await fork(
            Agent(function), store, rollout_id, k, 2,
            answer=lambda prompt: tokens_of(codec, "new"), codec=codec,
        )  # fmt: skip
        for each in made.rollout_ids:
            calls = (await trajectory(store, each)).calls
            said = [call.reply.content for call in calls]
            assert said == (["new"] * 4 if k == 0 else ["say 0", "say 1", "say 2", "new"])
    assert count["look"] == (6 if k == 0 else 2)


@pytest.mark.parametrize("k", [-1, 4, 99])
async def test_a_fork_beyond_the_ends_names_k_and_the_number_of_calls(codec, k):
    function, _ = team()
    async with LocalStore(None) as store:
        rollout_id = await record(store, function, codec)
        with pytest.raises(
            InvalidValue,
            match=rf"k is {k}, .* is none of its calls; it has 4 answered calls, .* at are: 0, 1, 2, 3",
        ):
            await fork(Agent(function), store, rollout_id, k, 1, answer=lambda prompt: say("x"), codec=codec)
        assert len(await store.query_rollouts()) == 1


async def test_a_fork_of_a_fork_has_the_tokens_and_tools_of_both(codec):
    function, count = team()
    async with LocalStore(None) as store:
        first = await record(store, function, codec)
        last = first
        for k, word in [(1, "second"), (3, "third")]:
            made = await fork(
                Agent(function), store, last, k, 1,
                answer=lambda prompt, word=word: tokens_of(codec, word), codec=codec,
            )  # fmt: skip
            (last,) = made.rollout_ids
        rollout = await store.get_rollout_by_id(last)
        assert rollout.metadata["forked_at"] == 3
        grand, now = await trajectory(store, first), await trajectory(store, last)
        child = await trajectory(store, rollout.metadata["forked_from"])
    assert [call.reply.content for call in now.calls] == ["say 0", "second", "second", "third"]
    same_call(now.calls[0], grand.calls[0])
    for place in (0, 1, 2):
        same_call(now.calls[place], child.calls[place])
    assert (count["look"], now.total_reward) == (3, child.total_reward)


async def test_a_failed_run_is_forked_where_it_failed(codec):
    function, _ = team()
    numbers = itertools.count()

    def engine(prompt):
        if next(numbers) == 0:
            raise OSError("engine gone")
        return tokens_of(codec, "fine")

    async with LocalStore(None) as store:
        first = await record(store, function, codec)
        made = await fork(Agent(function), store, first, 2, 1, answer=engine, codec=codec)
        (failed,) = made.rollout_ids
        assert (await store.get_rollout_by_id(failed)).status == "failed"
        assert len((await trajectory(store, failed)).calls) == 2
        async with await replay(Agent(function), store, failed) as at:
            assert (at.run.end.error, at.run.end.origin) == ("OSError: engine gone", "engine")
        again = await fork(Agent(function), store, failed, 2, 1, answer=engine, codec=codec)
        assert again.errors == {}
        then, now = await trajectory(store, first), await trajectory(store, again.rollout_ids[0])
        assert [call.reply.content for call in now.calls] == ["say 0", "say 1", "fine", "fine"]
        np.testing.assert_array_equal(now.calls[2].prompt_ids, then.calls[2].prompt_ids)


async def test_a_run_stopped_by_its_limit_is_forked_under_a_wider_one(codec):
    function, _ = team()
    async with LocalStore(None) as store:
        rollout_id = await record(store, function, codec, limits=RunLimits(max_calls=3))
        wider = Agent(function, limits=RunLimits(max_calls=4, max_seconds=5))
        made = await fork(
            wider, store, rollout_id, 3, 1, answer=lambda prompt: tokens_of(codec, "x"), codec=codec
        )
        assert made.errors == {}
        narrow = Agent(function, limits=RunLimits(max_calls=3, max_seconds=5))
        with pytest.raises(ReplayDiverged, match=r"call 3 .* ended before it \(the agent made more than 3"):
            await fork(narrow, store, rollout_id, 3, 1, answer=lambda prompt: say("x"), codec=codec)


async def test_an_agent_that_streams_or_wants_a_schema_is_answered_as_then(codec):
    """Neither changes what a request says: the same messages are the same call."""

    async def function(task, policy):
        schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
        reply = await policy.complete(ChatRequest((ChatMessage("user", "x"),), response_format=schema))
        return float(reply.message.content == "say 0")

    async with LocalStore(None) as store:
        rollout_id = await record(store, function, codec)
        async with await replay(Agent(function), store, rollout_id) as at:
            assert isinstance(at.run.end, RunEnd)
            assert at.run.trajectory.total_reward == 1.0

"""Runs re-driven from what a store recorded of them, and continued otherwise."""

import asyncio
import itertools

import numpy as np
import pytest
from replayed_runs import Agent, record, same_call, team, tokens_of, trajectory
from scripted_runs import say

from raybolt.env.chat import ChatMessage, ChatRequest
from raybolt.env.emit import operation
from raybolt.env.errors import ReplayDiverged
from raybolt.env.fork import fork
from raybolt.env.limits import RunLimits
from raybolt.env.policy import RunEnd
from raybolt.env.replay import replay
from raybolt.store import InvalidValue, LocalStore


async def test_a_whole_replay_is_the_run_again_without_running_a_tool(codec):
    function, count = team()
    async with LocalStore(None) as store:
        rollout_id = await record(store, function, codec)
        then = await trajectory(store, rollout_id)
        assert count["look"] == 2
        async with await replay(Agent(function), store, rollout_id, codec=codec) as at:
            assert at.call is None
            assert at.run.end.error is None
            now = at.run.trajectory
    assert count["look"] == 2
    for one, two in zip(then.calls, now.calls, strict=True):
        same_call(one, two)
    assert [(r.value, r.final, r.call_id) for r in now.rewards] == [
        (r.value, r.final, r.call_id) for r in then.rewards
    ]
    assert now.total_reward == 1.5


async def test_it_stops_at_call_k_which_is_live(codec):
    function, count = team()
    async with LocalStore(None) as store:
        rollout_id = await record(store, function, codec)
        async with await replay(Agent(function), store, rollout_id, until=2) as at:
            assert (at.call.role, len(at.call.request.messages)) == ("writer", 5)
            assert at.call.request.messages[2].content == "say 0 #1"
            assert count["look"] == 2
            at.run.answer(at.call.call_id, say("another"))
            (critic,) = await at.run.next()
            assert count["look"] == 3
            assert critic.request.messages[-1].content == "another #3"


async def test_behind_call_k_a_tool_runs_though_it_is_asked_what_it_was_asked_then(codec):
    function, count = team()
    async with LocalStore(None) as store:
        rollout_id = await record(store, function, codec)
        async with await replay(Agent(function), store, rollout_id, until=0) as at:
            at.run.answer(at.call.call_id, say("say 0"))
            (critic,) = await at.run.next()
    assert critic.request.messages[-1].content == "say 0 #3"
    assert count["look"] == 3


async def test_a_tool_that_asks_the_model_runs_again_with_answers_from_the_store(codec):
    runs = []

    async def function(task, policy):
        @operation
        async def consult(word):
            runs.append(word)
            reply = await policy.complete(ChatRequest((ChatMessage("user", word),), role="expert"))
            return reply.message.content

        return await consult("why") == "say 0"

    async with LocalStore(None) as store:
        rollout_id = await record(store, function, codec)
        async with await replay(Agent(function), store, rollout_id) as at:
            assert at.run.end.result is True
    assert runs == ["why", "why"]


async def test_live_tools_run_for_real_and_a_divergence_says_where_what_and_why(codec):
    function, count = team()
    async with LocalStore(None) as store:
        rollout_id = await record(store, function, codec)
        with pytest.raises(ReplayDiverged) as diverged:
            await replay(Agent(function), store, rollout_id, live_tools=["loo*"])
    assert count["look"] == 3
    assert str(diverged.value).startswith(
        f"call 1 (role 'critic') of rollout '{rollout_id}': message 2 differs: then user: 'say 0 #1'; now "
        "user: 'say 0 #3'; usual causes: the time or chance"
    )


async def changed(by, codec):
    """The divergence of an agent whose code has changed since."""

    async def then(task, policy):
        for text in ("one", "two"):
            await policy.complete(ChatRequest((ChatMessage("user", text),)))
        return 1

    async with LocalStore(None) as store:
        rollout_id = await record(store, then, codec)
        with pytest.raises(ReplayDiverged) as diverged:
            await replay(Agent(by), store, rollout_id)
    return str(diverged.value).partition(": ")[2]


async def test_calls_that_are_missing_added_or_in_another_role_diverge(codec):
    async def fewer(task, policy):
        await policy.complete(ChatRequest((ChatMessage("user", "one"),)))
        return 1

    async def more(task, policy):
        for text in ("one", "two", "three"):
            await policy.complete(ChatRequest((ChatMessage("user", text),)))
        return 1

    async def other_role(task, policy):
        await policy.complete(ChatRequest((ChatMessage("user", "one"),), role="x"))

    async def raises(task, policy):
        raise RuntimeError("no")

    async def longer(task, policy):
        await policy.complete(ChatRequest((ChatMessage("user", "one"), ChatMessage("user", "more"))))

    assert (await changed(fewer, codec)).startswith("the agent ended before it;")
    assert (await changed(more, codec)).startswith("it was not made then (role 'agent');")
    assert (await changed(other_role, codec)).startswith("role 'x' makes it, then it was 'agent';")
    assert (await changed(raises, codec)).startswith("the agent ended before it (RuntimeError: no);")
    assert (await changed(longer, codec)).startswith(
        "message 1 differs: then there was none; now user: 'more'"
    )


async def test_calls_made_at_the_same_time_are_told_apart_by_what_they_say(codec):
    def asking(words):
        async def run(task, policy):
            async def ask(word):
                return await policy.complete(ChatRequest((ChatMessage("user", word),)))

            replies = await asyncio.gather(*map(ask, words))
            said = dict(zip(words, [reply.message.content for reply in replies], strict=True))
            return sorted(said.items()) == [("a", "say 0"), ("b", "say 1"), ("c", "say 2")]

        return run

    async with LocalStore(None) as store:
        rollout_id = await record(store, asking("abc"), codec)
        async with await replay(Agent(asking("cab")), store, rollout_id) as at:
            assert at.run.end.result is True
        async with await replay(Agent(asking("abc")), store, rollout_id, until=1) as at:
            assert at.call.request.messages[0].content == "b"


async def test_the_call_behind_the_last_is_what_a_failed_run_was_about_to_ask(codec):
    function, _ = team()
    async with LocalStore(None) as store:
        rollout_id = await record(store, function, codec, limits=RunLimits(max_calls=3))
        assert (await store.get_rollout_by_id(rollout_id)).status == "failed"
        async with await replay(Agent(function), store, rollout_id, until=3) as at:
            assert (at.call.call_id, at.call.role) == ("call-3", "critic")
        with pytest.raises(InvalidValue, match=r"until is 4; .* has 3 answered calls: .* from 0 to 3"):
            await replay(Agent(function), store, rollout_id, until=4)


async def test_answers_of_the_agents_own_models_come_from_the_store_too(codec):
    asked = []

    async def run(task, policy):
        for role in ("own", "policy", "own"):
            request = ChatRequest((ChatMessage("user", "x"),), role=role)
            if policy.takes(request):
                await policy.complete(request)
            else:
                with policy.observe(request) as call:
                    asked.append(role)
                    call.reply(ChatMessage("assistant", "own reply"))
        return 1

    async with LocalStore(None) as store:
        rollout_id = await record(store, run, codec, trainable=["policy"])
        async with await replay(
            Agent(run, trainable=["policy"]), store, rollout_id, until=1, codec=codec
        ) as at:
            assert len(asked) == 2
            assert [call.trainable for call in at.run.trajectory.calls] == [False]
            at.run.answer(at.call.call_id, say("hi"))
            assert isinstance(await at.run.next(), RunEnd)
            assert len(asked) == 3
        with pytest.raises(InvalidValue, match=r"k is 0, .* by the agent's own model; it has 3 .* at are: 1"):
            await fork(Agent(run), store, rollout_id, 0, 1, answer=lambda prompt: say("x"), codec=codec)


async def test_forks_share_the_recorded_tokens_and_go_on_live(codec):
    function, count = team()
    numbers = itertools.count()

    async def live(prompt):
        return tokens_of(codec, f"new {next(numbers)}", -2.0)

    async with LocalStore(None) as store:
        rollout_id = await record(store, function, codec)
        then = await trajectory(store, rollout_id)
        made = await fork(Agent(function), store, rollout_id, 2, 3, answer=live, codec=codec)
        rollouts = await store.query_rollouts(group_id_in=[made.group_id])
        assert [rollout.rollout_id for rollout in rollouts] == list(made.rollout_ids)
        assert [
            (r.status, r.task_id, r.mode, r.metadata["forked_from"], r.metadata["forked_at"])
            for r in rollouts
        ] == [("succeeded", "t1", "train", rollout_id, 2)] * 3
        (handle,) = await store.take_groups(1)
        assert (handle.num_rollouts, handle.num_succeeded) == (3, 3)
        forks = [await trajectory(store, each) for each in made.rollout_ids]
    assert count["look"] == 2 + 3
    assert made.errors == {}
    for each in forks:
        same_call(each.calls[0], then.calls[0])
        same_call(each.calls[1], then.calls[1])
        np.testing.assert_array_equal(each.calls[2].prompt_ids, then.calls[2].prompt_ids)
        np.testing.assert_array_equal(each.calls[2].logprobs, np.full(len(each.calls[2].response_ids), -2.0))
        assert each.calls[2].reply.content.startswith("new ")
        begin = np.concatenate([each.calls[2].prompt_ids, each.calls[2].response_ids])
        np.testing.assert_array_equal(each.calls[3].prompt_ids[: len(begin)], begin)
    assert len({each.calls[2].reply.content for each in forks}) == 3


async def test_forks_of_an_agent_that_cannot_be_replayed_are_refused(codec):
    numbers = itertools.count()

    async def chance(task, policy):
        for _ in range(2):
            await policy.complete(ChatRequest((ChatMessage("user", str(next(numbers))),)))
        return 1

    async with LocalStore(None) as store:
        rollout_id = await record(store, chance, codec)
        with pytest.raises(ReplayDiverged, match=r"call 0 .* then user: '0'; now user: '"):
            await fork(Agent(chance), store, rollout_id, 1, 2, answer=lambda prompt: say("x"), codec=codec)
        failed = await store.query_rollouts(status_in=["failed"])
        assert [rollout.metadata["forked_from"] for rollout in failed] == [rollout_id] * 2


async def test_an_answerer_that_fails_fails_its_continuation_alone(codec):
    function, _ = team()
    numbers = itertools.count()

    def sometimes(prompt):
        if next(numbers) == 0:
            raise OSError("engine gone")
        return tokens_of(codec, "fine")

    async with LocalStore(None) as store:
        rollout_id = await record(store, function, codec)
        made = await fork(Agent(function), store, rollout_id, 3, 2, answer=sometimes, codec=codec)
    assert list(made.errors.values()) == ["OSError: engine gone"]


async def test_a_fork_that_is_cancelled_ends_its_rollouts_and_keeps_what_they_did(codec):
    function, _ = team()
    asked = asyncio.Event()

    async def never(prompt):
        asked.set()
        await asyncio.Event().wait()

    async with LocalStore(None) as store:
        rollout_id = await record(store, function, codec)
        going_on = asyncio.ensure_future(
            fork(Agent(function), store, rollout_id, 2, 2, answer=never, codec=codec)
        )
        await asked.wait()
        going_on.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going_on
        (group,) = await store.query_groups()
        forks = await store.query_rollouts(group_id_in=[group.group_id])
        assert (group.status, group.num_ended, group.num_succeeded) == ("complete", 2, 0)
        for each in forks:
            assert (each.status, each.attempt.metadata["origin"]) == ("failed", "raybolt")
            assert each.attempt.metadata["error"] == "the fork was cancelled"
            assert len((await trajectory(store, each.rollout_id)).calls) == 2


@pytest.mark.parametrize(("k", "n"), [("2", 1), (None, 1), (True, 1), (2, "1"), (2, None), (2, 1.0)])
async def test_what_is_no_number_of_a_call_or_of_forks_is_refused(codec, k, n):
    function, _ = team()
    async with LocalStore(None) as store:
        rollout_id = await record(store, function, codec)
        with pytest.raises(InvalidValue, match=r"k is|n is"):
            await fork(Agent(function), store, rollout_id, k, n, answer=lambda prompt: say("x"), codec=codec)
        assert len(await store.query_rollouts()) == 1


async def test_another_models_codec_is_noticed(codec, make_codec, templates):
    function, _ = team()
    async with LocalStore(None) as store:
        rollout_id = await record(store, function, codec)
        with pytest.raises(ReplayDiverged, match="give the codec of the model that ran then"):
            await fork(
                Agent(function), store, rollout_id, 0, 1,
                answer=lambda prompt: say("x"), codec=make_codec(templates["llama2"]),
            )  # fmt: skip

"""Each way to have nothing to learn from, in stores that real runs of scripted agents left."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import view_agents as agents
from recorded_runs import record, sampled
from scripted_runs import Program, say

from raybolt.env.agent_env import AgentEnv
from raybolt.env.chat import ChatMessage, ChatRequest, ToolSpec
from raybolt.env.diagnosis import Diagnosis, diagnose
from raybolt.env.limits import RunLimits
from raybolt.store import names
from raybolt.store.local import LocalStore
from raybolt.store.peek import read_rollouts


async def numbered(task, policy):
    """Two calls; every run's reward is another."""
    await policy.complete(agents.asking("writer", task.input))
    await policy.complete(agents.asking("critic", task.input))
    return task.metadata["number"]


async def always_one(task, policy):
    await policy.complete(agents.asking("writer", task.input))
    return 1.0


def diagnosis_of(folder) -> Diagnosis:
    return diagnose(read_rollouts(folder))


def only(diagnosis: Diagnosis):
    (finding,) = diagnosis.findings
    return finding


def span_of(folder, finding):
    (span,) = [
        span
        for run in read_rollouts(folder)
        for span in run.spans
        if finding.span is not None and span.span_id == finding.span.span_id
    ]
    assert (span.rollout_id, span.name) == (finding.span.rollout_id, finding.span.name)
    return span


async def test_nothing_is_wrong_with_a_healthy_store_and_its_numbers_are_right(tmp_path, codec):
    await record(tmp_path, numbered, codec)
    diagnosis = diagnosis_of(tmp_path)
    assert diagnosis.findings == ()
    assert not diagnosis.fatal
    numbers = diagnosis.numbers
    assert numbers.rollouts == {"succeeded": 6}
    assert (numbers.calls, numbers.trainable_calls) == (12, 12)
    assert numbers.tokens == 12 * len(codec.tokenizer.encode("answer 0<|im_end|>"))
    assert (numbers.groups, numbers.groups_with_signal) == (2, 2)
    assert (numbers.reward_mean, numbers.reward_min, numbers.reward_max) == (2.5, 0.0, 5.0)


async def test_no_call_was_captured(tmp_path, codec):
    async def calls_elsewhere(task, policy):
        return 1.0

    rollout_ids = await record(tmp_path, calls_elsewhere, codec)
    finding = only(diagnosis_of(tmp_path))
    assert (finding.link, finding.fatal) == ("call", True)
    assert finding.summary == "6 of 6 runs made no LLM call that raybolt saw"
    assert finding.rollout_ids == tuple(rollout_ids)
    assert "have build(llm) use the model it is given" in finding.remedy
    assert span_of(tmp_path, finding).name == "invoke_agent scripted"
    assert str(finding) == (
        f"call: 6 of 6 runs made no LLM call that raybolt saw. For example 'invoke_agent scripted' "
        f"({finding.span.span_id}) in rollout {rollout_ids[0]}. {finding.remedy}"
    )


async def test_some_runs_made_no_call(tmp_path, codec):
    async def calls_sometimes(task, policy):
        if task.metadata["number"] > 0:
            await policy.complete(agents.asking("writer", task.input))
        return task.metadata["number"]

    rollout_ids = await record(tmp_path, calls_sometimes, codec)
    finding = only(diagnosis_of(tmp_path))
    assert (finding.link, finding.fatal, finding.rollout_ids) == ("call", False, (rollout_ids[0],))


async def test_there_is_no_reward(tmp_path, codec):
    async def gives_none(task, policy):
        await policy.complete(agents.asking("writer", task.input))
        return "an answer"

    await record(tmp_path, gives_none, codec)
    finding = only(diagnosis_of(tmp_path))
    assert (finding.link, finding.fatal) == ("reward", True)
    assert finding.summary == "6 of 6 runs have no reward"
    assert "wrap(agent, reward=…)" in finding.remedy
    assert span_of(tmp_path, finding).attributes[names.ERROR_TYPE] == "NoReward"


async def test_token_ids_are_missing(tmp_path, codec):
    await record(tmp_path, numbered, codec, answer=lambda env, agent_id, number: say("text alone"))
    finding = only(diagnosis_of(tmp_path))
    assert (finding.link, finding.fatal) == ("tokens", True)
    assert finding.summary.startswith("12 of 12 trainable calls have no token ids")
    assert span_of(tmp_path, finding).name == "chat writer"

    def text_for_the_critic(env, agent_id, number):
        return say("text") if agent_id == "critic" else sampled("answer {}<|im_end|>")(env, agent_id, number)

    await record(tmp_path / "some", numbered, codec, answer=text_for_the_critic)
    finding = only(diagnosis_of(tmp_path / "some"))
    assert (finding.link, finding.fatal) == ("tokens", False)
    assert finding.summary.startswith("6 of 12 trainable calls")
    assert span_of(tmp_path / "some", finding).name == "chat critic"


async def test_log_probabilities_are_missing(tmp_path, codec):
    answer = sampled("answer {}<|im_end|>", logprobs=False)
    await record(tmp_path, numbered, codec, answer=answer)
    finding = only(diagnosis_of(tmp_path))
    assert (finding.link, finding.fatal) == ("tokens", True)
    assert finding.summary.startswith("12 of 12 sampled calls have no log-probabilities")
    await record(tmp_path / "demo", numbered, codec, answer=answer, mode="demo")
    assert diagnosis_of(tmp_path / "demo").findings == ()  # imitation needs none


async def test_all_rewards_of_the_groups_are_equal(tmp_path, codec):
    rollout_ids = await record(tmp_path, always_one, codec)
    finding = only(diagnosis_of(tmp_path))
    assert (finding.link, finding.fatal, finding.rollout_ids) == ("signal", True, tuple(rollout_ids))
    assert finding.summary == (
        "in 2 of 2 groups all rewards are equal, though the runs said different things; rewards: '1' 6x"
    )
    assert "Look at what the reward function sees" in finding.remedy


async def test_rewards_are_equal_because_every_run_says_the_same(tmp_path, codec):
    await record(tmp_path, always_one, codec, answer=sampled("always this<|im_end|>"))
    finding = only(diagnosis_of(tmp_path))
    assert (finding.link, finding.fatal) == ("signal", True)
    assert finding.summary.endswith("in 2 of them every run said exactly the same")
    assert "Raise the temperature" in finding.remedy


async def test_equal_rewards_are_no_fault_in_half_the_groups_nor_in_evaluations(tmp_path, codec):
    async def first_task_is_easy(task, policy):
        await policy.complete(agents.asking("writer", task.input))
        return 1.0 if task.task_id == "t0" else task.metadata["number"]

    await record(tmp_path, first_task_is_easy, codec)
    assert diagnosis_of(tmp_path).findings == ()
    await record(tmp_path, always_one, codec, mode="val")
    assert diagnosis_of(tmp_path).findings == ()


async def test_a_group_of_which_one_run_was_rewarded_has_nothing_to_compare(tmp_path, codec):
    async def works_once(task, policy):
        await policy.complete(agents.asking("writer", task.input))
        if task.metadata["number"] % 3:
            raise KeyError("weather")
        return task.metadata["number"]

    await record(tmp_path, works_once, codec)
    diagnosis = diagnosis_of(tmp_path)
    assert [(finding.link, finding.fatal) for finding in diagnosis.findings] == [
        ("group", True),
        ("run", False),
    ]
    assert diagnosis.findings[0].summary.startswith("in 2 of 2 groups only one run has a reward")
    assert diagnosis.findings[1].summary.startswith("4 of 6 runs failed with the same error")


async def test_all_runs_failed_with_the_same_error(tmp_path, codec):
    attempts = itertools.count()

    async def loses_its_key(task, policy):
        await policy.complete(agents.asking("writer", task.input))
        raise PermissionError(f"request {next(attempts)}: no key")

    rollout_ids = await record(tmp_path, loses_its_key, codec)
    finding = only(diagnosis_of(tmp_path))
    assert (finding.link, finding.fatal, finding.rollout_ids) == ("run", True, tuple(rollout_ids))
    assert finding.summary == (
        "6 of 6 runs failed with the same error, because of the agent: PermissionError: request 0: no key"
    )
    assert "read the traceback in the span's event" in finding.remedy
    (event,) = span_of(tmp_path, finding).events
    assert "loses_its_key" in event.attributes["exception.stacktrace"]


async def test_different_errors_are_findings_of_their_own_and_limits_have_their_remedy(tmp_path, codec):
    async def fails_in_turn(task, policy):
        for _ in range(9 if task.metadata["number"] % 2 else 1):
            await policy.complete(agents.asking("writer", task.input))
        raise KeyError("weather")

    await record(tmp_path, fails_in_turn, codec, limits=RunLimits(max_calls=4))
    agent, limit = diagnosis_of(tmp_path).findings
    assert agent.fatal
    assert limit.fatal
    assert (
        agent.summary == "3 of 6 runs failed with the same error, because of the agent: KeyError: 'weather'"
    )
    assert limit.summary.endswith("because of the limit: the agent made more than 4 LLM calls")
    assert "RunLimits(max_calls=…" in limit.remedy


async def test_the_span_of_a_failure_is_the_one_in_which_it_happened(tmp_path, codec):
    async def engine_dies(task, policy):
        await policy.complete(agents.asking("writer", task.input))

    async with LocalStore(tmp_path) as store:
        taken = await store.start_rollout("x", task_id="t", group_id="g", mode="train")
        ids = (taken.rollout_id, taken.attempt.attempt_id)
        env = AgentEnv(Program(engine_dies), codec=codec, tasks=agents.TASKS)
        await env.areset(rollout_id=ids[0], attempt_id=ids[1])
        env.fail("writer", MemoryError("no room"))
        await env.astep({})
        await store.add_many_spans(env.spans)
        await store.update_attempt(*ids, status="failed")
    diagnosis = diagnosis_of(tmp_path)
    assert diagnosis.numbers.calls == 0  # it was never answered
    finding = only(diagnosis)
    assert finding.summary == "1 of 1 runs failed because of the engine: MemoryError: no room"
    assert finding.span.name == "chat writer"


async def test_a_reward_function_that_raises(tmp_path, codec):
    def reward(task, result, trajectory):
        return result["score"]

    await record(tmp_path, numbered, codec, reward=reward)
    finding = only(diagnosis_of(tmp_path))
    assert (finding.link, finding.fatal) == ("run", True)
    assert "because of the reward: TypeError" in finding.summary
    assert "call it on this run's result" in finding.remedy


async def test_calls_were_answered_by_the_agents_own_model(tmp_path, codec):
    async def own_models_only(task, policy):
        for role in ("writer", "critic"):
            request = agents.asking(role, task.input)
            assert not policy.takes(request)
            with policy.observe(request) as seen:
                seen.reply(ChatMessage("assistant", "from elsewhere"))
        return 1.0

    await record(tmp_path, own_models_only, codec, trainable=["editor"])
    finding = only(replace_signal(diagnosis_of(tmp_path)))
    assert (finding.link, finding.fatal) == ("trainable", True)
    assert "6 of 6 runs made only calls that are not trainable" in finding.summary
    assert finding.summary.endswith("'writer' 6x, 'critic' 6x")
    assert "wrap(…, trainable=[…])" in finding.remedy
    assert span_of(tmp_path, finding).attributes[names.TRAINABLE] is False


def replace_signal(diagnosis: Diagnosis) -> Diagnosis:
    """Without what follows from the fault at hand: equal rewards."""
    return replace(diagnosis, findings=tuple(f for f in diagnosis.findings if f.link != "signal"))


async def test_replies_hold_tool_calls_that_cannot_be_read(tmp_path, codec):
    async def with_a_tool(task, policy):
        request = ChatRequest((ChatMessage("user", task.input),), (ToolSpec("look_up"),), role="writer")
        await policy.complete(request)
        return task.metadata["number"]

    await record(tmp_path, with_a_tool, codec, answer=sampled("<tool_call>{{broken {}</tool_call><|im_end|>"))
    finding = only(diagnosis_of(tmp_path))
    assert (finding.link, finding.fatal) == ("reply", False)
    assert finding.summary.startswith("6 of 6 replies hold a tool call that cannot be read: no JSON in")
    assert names.PARSE_ERROR in span_of(tmp_path, finding).attributes


async def test_prompts_drift(tmp_path, codec):
    async def rewrites_history(task, policy):
        reply = await policy.complete(agents.asking("writer", task.input))
        messages = (ChatMessage("user", "another question"), reply.message, ChatMessage("user", "go on"))
        await policy.complete(ChatRequest(messages, role="writer"))
        return task.metadata["number"]

    await record(tmp_path, rewrites_history, codec)
    finding = only(diagnosis_of(tmp_path))
    assert (finding.link, finding.fatal) == ("reply", False)
    assert finding.summary.startswith(
        "in 6 of 12 calls the prompt does not go on from the tokens sampled before"
    )
    assert names.DRIFT in span_of(tmp_path, finding).attributes


async def test_most_replies_were_cut_off(tmp_path, codec):
    await record(tmp_path, numbered, codec, answer=sampled("answer {} without an end"))
    finding = only(diagnosis_of(tmp_path))
    assert (finding.link, finding.fatal) == ("reply", False)
    assert finding.summary == "12 of 12 replies were cut off by the length limit"
    assert "Raise max_new_tokens" in finding.remedy


async def test_nobody_ran_what_was_queued_and_an_empty_store(tmp_path):
    async with LocalStore(tmp_path) as store:
        assert only(diagnosis_of(tmp_path)).summary == "the store holds no rollout"
        rollout = await store.enqueue_rollout("question", mode="train")
        finding = only(diagnosis_of(tmp_path))
    assert (finding.link, finding.fatal, finding.span) == ("run", True, None)
    assert finding.summary == "1 of 1 runs never ran: nobody took them"
    assert finding.rollout_ids == (rollout.rollout_id,)


async def test_the_modes_of_a_store_are_looked_at_by_themselves(tmp_path, codec):
    await record(tmp_path, numbered, codec, mode="demo")
    await record(tmp_path, agents.fails_at_once, codec)
    diagnosis = diagnosis_of(tmp_path)
    assert only(diagnosis).fatal  # the demonstrations do not make up for it
    assert diagnosis.numbers.rollouts == {"succeeded": 6, "failed": 6}


async def test_what_a_failed_run_emitted_is_no_reward(tmp_path, codec):
    await record(tmp_path, agents.fails_late, codec)
    assert diagnosis_of(tmp_path).numbers.reward_mean is None


@pytest.mark.parametrize("what", ["folder", "journal"])
async def test_a_store_is_read_while_another_has_it_open_and_is_left_as_it_is(tmp_path, codec, what):
    await record(tmp_path, numbered, codec, num_groups=1)
    async with LocalStore(tmp_path) as store:
        taken = await store.start_rollout("in flight", mode="train")
        found = list(read_rollouts(tmp_path if what == "folder" else tmp_path / "journal.db"))
        assert [run.rollout.status for run in found] == ["succeeded"] * 3 + ["preparing"]
        assert [len(run.spans) for run in found] == [4, 4, 4, 0]
        (attempt,) = await store.query_attempts(taken.rollout_id)
        assert attempt.status == "preparing"

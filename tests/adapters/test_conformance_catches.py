"""Adapters with one thing wrong each: the conformance checks name what is wrong."""

import pytest
import toy_mutants as mutants
from toy_kit import ToyKit

from raybolt.adapters.check import CHECKS, NotOffered, drive, footprint, many, run_checks

CAUGHT = [
    (mutants.WrongFramework, "detects", "wrap() to choose 'toy'"),
    (mutants.OneRoleForAll, "reply", "calls of the roles ['writer']"),
    (mutants.OneRoleForAll, "roles", "calls of the roles ['writer', 'critic']"),
    (mutants.CutsReplies, "reply", "a result that says"),
    (mutants.ShowsOnlyTheFirstMessage, "tool_add", "a second call that shows"),
    (mutants.LosesArguments, "tool_add", "the tools called once each"),
    (mutants.ParsesArgumentsItself, "malformed_arguments", "raised by the adapter"),
    (mutants.ChokesOnUnreadableReplies, "unreadable_reply", "raised by the adapter"),
    (mutants.HidesUnknownTools, "unknown_tool", "a next call that shows 'no_such_tool'"),
    (mutants.MixesUpCallIds, "parallel_tools", "the id of the call that it answers"),
    (mutants.RecordsNoTools, "tool_add", "one span of the tool 'add'"),
    (mutants.RecordsNoToolResult, "tool_subtract", "names.TOOL_RESULT"),
    (mutants.LeavesToolsWhereTheyWere, "tool_subtract", "what the tool emits, once and below"),
    (mutants.CallsFailedToolsSuccesses, "failing_tool", "the tool's span ended as an error"),
    (mutants.NeverEndsSpans, "roles", "every span ended by what began it"),
    (mutants.InventsParents, "roles", "every span's parent among the run's"),
    (mutants.NamesTheWrongAgent, "roles", "below the span of agent 'critic'"),
    (mutants.ForgetsHandOvers, "hand_off", "one span of kind 'handoff'"),
    (mutants.TurnsHandOversRound, "hand_off", "source 'writer' and target 'critic'"),
    (mutants.ReturnsTheJson, "structured", "Verdict(score=7"),
    (mutants.StreamsHalf, "streaming", "a result that says"),
    (mutants.OneCallAtATime, "parallel", "three calls pending together"),
    (mutants.OneRunAtATime, "all_wait_together", "32 calls pending together"),
    (mutants.OverlooksLateModels, "late_model", "a run that succeeds"),
    (mutants.CachesReplies, "runs_at_once", "a result that says"),
    (mutants.OneConversationForAllRuns, "runs_at_once", "nothing of other runs in a request"),
    (mutants.OneConversationForAllRuns, "teams_at_once", "a result that says"),
    (mutants.OneConversationForAllRuns, "no_memory", "nothing of other runs in a request"),
    (mutants.OneConversationForAllRuns, "no_memory_of_aborted", "nothing of other runs in a request"),
    (mutants.LooksAtTheWrongRun, "runs_at_once", "one tool span and one emitted span"),
    (mutants.CannotTravel, "pickles", "cannot pickle"),
    (mutants.AnswersEverything, "frozen_model", "a result that says 'own reply 1'"),
    (mutants.StreamsHalf, "frozen_stream", "a result that says 'own reply 1'"),
    (mutants.TellsNoReply, "frozen_stream", "one chat span with the whole reply"),
    (mutants.EntersNoAgents, "roles", "below the span of agent 'writer'"),
    (mutants.AnswersEverything, "own_models", "a result that says 'own reply 1'"),
    (mutants.ObservesNothing, "own_models", "two chat spans"),
    (mutants.ObservesTwice, "own_models", "two chat spans"),
    (mutants.ForgetsUsage, "frozen_model", "the usage that the model reported"),
    (mutants.TellsNoReply, "own_models", "the own model's reply in the critic's span"),
    (mutants.FailsWithoutFrozen, "policy_stands_in", "a run that succeeds"),
    (mutants.CatchesEverybody, "outsiders", "at the outsider's own model"),
    (mutants.SwallowsTheEnd, "call_limit", "as if nothing had happened"),
    (mutants.SwallowsTheEnd, "given_up", "as if nothing had happened"),
    (mutants.SwallowsTheEnd, "engine_fails", "as if nothing had happened"),
    (mutants.TranslatesTheEnd, "given_up_in_parallel", "the agent left by the PolicyAbort"),
    (mutants.TriesAgain, "call_limit", "an agent that is told 1 times"),
    (mutants.LosesPatience, "thinking_is_free", "a run that succeeds"),
    (mutants.NeverGivesUp, "time_limit", "no task, busy thread or patched class"),
    (mutants.NeverGivesUp, "time_limit_async", "no task, busy thread or patched class"),
    (mutants.LeavesATask, "leaves_nothing", "left by the adapter"),
    (mutants.LeavesAThread, "leaves_nothing", "thread left by the adapter"),
    (mutants.LeavesAPatch, "leaves_nothing", "patch Model.stream"),
]


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(footprint, "SETTLE_SECONDS", 0.3)
    monkeypatch.setattr(drive, "AT_ONCE_SECONDS", 0.3)
    monkeypatch.setattr(many, "TOGETHER_SECONDS", 0.3)
    mutants.LeavesAThread.over.clear()
    yield
    mutants.LeavesAPatch.left.close()
    mutants.LeavesAThread.over.set()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("broken", "name", "seen"), [pytest.param(*case, id=f"{case[0].__name__}-{case[1]}") for case in CAUGHT]
)
async def test_an_adapter_with_one_thing_wrong_is_caught(broken, name, seen):
    (check,) = [check for check in CHECKS if check.name == name]

    class Kit(ToyKit):
        adapter = broken()

    found = (await run_checks(Kit(), [check])).broken
    assert found
    assert all(seen in outcome.detail for outcome in found), found


def test_every_check_catches_something():
    assert {check.name for check in CHECKS} - {name for _, name, _ in CAUGHT} == set()


async def test_an_adapter_that_keeps_every_rule_passes_them_all():
    report = await run_checks(ToyKit())
    assert report.broken == ()
    assert {outcome.status for outcome in report.outcomes} == {"kept"}


async def test_what_a_framework_lacks_is_reported_with_its_reason():
    class Kit(ToyKit):
        def hand_off(self, way):
            raise NotOffered("toys keep what they have")

    (check,) = [check for check in CHECKS if check.name == "hand_off"]
    report = await run_checks(Kit(), [check])
    assert [(outcome.status, outcome.detail) for outcome in report.outcomes] == [
        ("not offered", "toys keep what they have")
    ] * 2
    assert "not offered  hand_off (factory)" in str(report)


async def test_a_report_names_the_rule_what_was_expected_and_what_to_do():
    class Kit(ToyKit):
        adapter = mutants.OneRoleForAll()

    (check,) = [check for check in CHECKS if check.name == "reply"]
    text = str(await run_checks(Kit(), [check]))
    assert "toy: 0 of 2 kept" in text
    assert "broken  reply (built): the policy gets the agent's question" in text
    assert "seen: ['agent']" in text
    assert "to do: set ChatRequest.role" in text

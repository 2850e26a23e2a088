"""The conformance check passes on good agents and environments, and finds each planted fault."""

from __future__ import annotations

import itertools
import pickle
import random
from typing import Any

import faulty_envs as faulty
import pytest
import view_agents as agents
from scripted_runs import Program, say

import raybolt
from raybolt.env.agent_env import AgentEnv
from raybolt.env.chat import Completion
from raybolt.env.check import RULES, EnvCheckFailed, check_env
from raybolt.env.context import current_run
from raybolt.env.limits import RunLimits
from raybolt.store.errors import InvalidValue

TASKS = agents.TASKS[:3]


@pytest.fixture
def make_env(codec):
    def make(function: Any = agents.writer_and_critic, kind: type[AgentEnv] = AgentEnv) -> AgentEnv:
        return kind(Program(function), codec=codec, tasks=TASKS, limits=RunLimits(max_calls=8))

    return make


def broken(rule: str) -> Any:
    return pytest.raises(EnvCheckFailed, match=f"rule '{rule}' is broken: expected .*; seen: ")


@pytest.mark.parametrize(
    "function",
    [agents.writer_and_critic, agents.three_at_once, agents.only_the_critic],
    ids=lambda function: function.__name__,
)
def test_good_environments_pass(make_env, function):
    assert check_env(make_env(function)) == tuple(name for name in RULES if name != "isolation")


@pytest.mark.usefixtures("openai_client")
def test_a_good_wrapped_agent_passes_every_rule():
    agent = raybolt.wrap(agents.duo, reward=lambda task, result, trajectory: 1.0)
    assert check_env(agent, TASKS) == tuple(RULES)


def test_replies_of_ones_own_are_used_where_random_tokens_will_not_do(make_env):
    async def picky(task, policy):
        reply = await policy.complete(agents.asking("writer", task.input))
        return float(int(reply.message.content))

    with pytest.raises(EnvCheckFailed, match=r"expected a success on at least one task.*ValueError"):
        check_env(make_env(picky))
    assert "seeds" in check_env(make_env(picky), reply=lambda request: say("7"))


def test_what_cannot_be_checked_is_an_error(make_env):
    with pytest.raises(InvalidValue, match="there is no task to check with"):
        check_env(raybolt.wrap(agents.duo))
    with pytest.raises(InvalidValue, match=r"expected what raybolt\.wrap returned, or an AgentEnv"):
        check_env(agents.duo, TASKS)  # type: ignore[arg-type]


def test_the_error_survives_pickling_and_has_its_parts():
    error = EnvCheckFailed("seeds", "one", "two", "Do this.")
    again = pickle.loads(pickle.dumps(error))
    assert (again.rule, again.expected, again.seen, again.remedy) == ("seeds", "one", "two", "Do this.")
    assert str(again) == "rule 'seeds' is broken: expected one; seen: two. Do this."


# Faults of agents

_counter = itertools.count()
_noted: list[str] = []


async def remembers_earlier_runs(task, policy):
    await policy.complete(agents.asking("writer", f"{task.input} for the {next(_counter)}th time"))
    return 1.0


async def rolls_dice(task, policy):
    await policy.complete(agents.asking("writer", task.input))
    return random.random()


async def keeps_its_notes_where_all_runs_do(task, policy):
    _noted.clear()
    for _ in range(2):
        _noted.append(task.task_id)
        await policy.complete(agents.asking("writer", " ".join(_noted)))
    return 1.0


def leaves_a_span_open(text):
    run = current_run.get()
    run.run.recorder.begin("background work", parent_id=run.span_id)
    return agents.duo(text)


def has_a_span_without_parent(text):
    current_run.get().run.recorder.record("lost", parent_id="0000000000000000")
    return agents.duo(text)


def has_two_roots(text):
    current_run.get().run.recorder.record("second root")
    return agents.duo(text)


async def never_asks(task, policy):
    return 1.0


@pytest.mark.parametrize(
    ("function", "rule"),
    [
        (remembers_earlier_runs, "seeds"),
        (rolls_dice, "seeds"),
        (never_asks, "episodes"),
        (agents.fails_at_once, "episodes"),
        (agents.fails_late, "episodes"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_faults_of_an_agent_are_found(make_env, function, rule):
    with broken(rule):
        check_env(make_env(function))


@pytest.mark.parametrize("agent", [leaves_a_span_open, has_a_span_without_parent, has_two_roots])
@pytest.mark.usefixtures("openai_client")
def test_faults_in_an_agents_spans_are_found(agent):
    with broken("spans"):
        check_env(raybolt.wrap(agent, reward=lambda task, result, trajectory: 1.0), TASKS)


def test_runs_that_share_what_they_should_not_are_found(codec):
    class Agent:
        program = None

        def env(self, model, **options):
            return AgentEnv(Program(keeps_its_notes_where_all_runs_do), codec=codec, **options)

    Agent.program = lambda self: None
    with broken("isolation"):
        check_env(Agent(), TASKS)  # type: ignore[arg-type]


FAULTS = [
    (faulty.ResetWithoutInfos, "reset"),
    (faulty.ResetRaises, "reset"),
    (faulty.StepRaises, "step"),
    (faulty.OldStep, "step"),
    (faulty.WideTokens, "spaces"),
    (faulty.FreshSpaces, "spaces"),
    (faulty.NoDrift, "infos"),
    (faulty.InfosMissing, "infos"),
    (faulty.AgentsWithoutRoles, "infos"),
    (faulty.OneCallId, "infos"),
    (faulty.InfiniteReward, "rewards"),
    (faulty.TextReward, "rewards"),
    (faulty.RewardForNobody, "rewards"),
    (faulty.BothEnds, "ends"),
    (faulty.NoAll, "ends"),
    (faulty.EarlyFlag, "ends"),
    (faulty.FlagForNobody, "ends"),
    (faulty.LastObservationAgain, "ends"),
    (faulty.MoreCallsThanAllowed, "ends"),
    (faulty.SpansWithoutCalls, "spans"),
    (faulty.SpansOutOfTime, "spans"),
    (faulty.AnswersForThem, "missing actions"),
    (faulty.EncodesAnew, "missing actions"),
    (faulty.IgnoresStrangers, "unknown agents"),
    (faulty.KeyErrorForStrangers, "unknown agents"),
    (faulty.AnswersBeforeItChecks, "unknown agents"),
    (faulty.TakesText, "wrong actions"),
    (faulty.StepsOn, "after the end"),
    (faulty.WrongErrorAfterTheEnd, "after the end"),
    (faulty.ClosesOnce, "closing"),
    (faulty.ClosesNothing, "closing"),
]


@pytest.mark.parametrize(("kind", "rule"), FAULTS, ids=lambda value: getattr(value, "__name__", value))
def test_faults_of_an_environment_are_found(make_env, kind, rule):
    with broken(rule):
        check_env(make_env(kind=kind))


@pytest.mark.parametrize(
    ("kind", "rule"), [(faulty.AnswersAllIfOne, "missing actions"), (faulty.AnswersOneByOne, "wrong actions")]
)
def test_faults_that_show_with_several_agents_at_once_are_found(make_env, kind, rule):
    with broken(rule):
        check_env(make_env(agents.three_at_once, kind))


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        (faulty.SilentFailure, "infos"),
        (faulty.RewardedFailure, "rewards"),
        (faulty.TerminatedFailure, "ends"),
    ],
)
def test_failures_that_are_reported_wrongly_are_found(make_env, kind, rule):
    with broken(rule):
        check_env(make_env(agents.fails_late, kind))


def test_a_completion_is_an_action_like_any_other(make_env):
    asked = []

    def reply(request) -> Completion:
        asked.append(request.role)
        return say("fine")

    check_env(make_env(), reply=reply)
    assert set(asked) == {"writer", "critic"}

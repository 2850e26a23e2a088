"""The PettingZoo view, and the roles it has to know beforehand."""

import importlib.util

import pytest
import view_agents as agents
from scripted_runs import Program, say

import raybolt
from raybolt.env.agent_env import AgentEnv
from raybolt.env.errors import RunOver
from raybolt.env.padded_env import PaddedAgentEnv
from raybolt.store.errors import InvalidValue

pettingzoo_test = pytest.importorskip("pettingzoo.test", reason="the view needs the extra pettingzoo")
parallel_view = pytest.importorskip("raybolt.env.parallel_view")
ROLES = ["writer", "critic"]


@pytest.fixture
def make_view(make_codec):
    views = []

    def make(function=agents.writer_and_critic, possible_agents=ROLES):
        env = AgentEnv(Program(function), codec=make_codec(max_context=400), tasks=agents.TASKS)
        views.append(parallel_view.ParallelView(PaddedAgentEnv(env, possible_agents, max_new_tokens=8)))
        return views[-1]

    yield make
    for view in views:
        view.close()


@pytest.mark.parametrize(
    "function",
    [agents.writer_and_critic, agents.three_at_once, agents.fails_late, agents.fails_at_once],
    ids=lambda function: function.__name__,
)
def test_pettingzoos_own_checks_pass(make_view, function):
    pettingzoo_test.parallel_api_test(make_view(function), num_cycles=20)
    pettingzoo_test.parallel_seed_test(lambda: make_view(function), num_cycles=5)


def test_everybody_lives_to_the_end_and_who_is_not_asked_sees_nothing(make_view):
    view = make_view()
    assert view.agents == []
    observations, infos = view.reset(seed=1, options={"task": agents.TASKS[3]})
    assert view.agents == ["writer", "critic"]
    assert (observations["writer"]["length"] > 0, observations["critic"]["length"]) == (True, 0)
    assert (infos["writer"]["call_id"], infos["critic"]) == ("call-0", {})

    observations, rewards, terminations, truncations, _ = view.step(dict.fromkeys(ROLES, say("ok")))
    assert (observations["writer"]["length"], observations["critic"]["length"] > 0) == (0, True)
    assert rewards == {"writer": 0.5, "critic": 0.0}
    assert terminations == truncations == {"writer": False, "critic": False}

    observations, rewards, terminations, _, _ = view.step({"critic": say("ok")})
    assert [observations[role]["length"] for role in ROLES] == [0, 0]
    assert rewards == {"writer": 1.0, "critic": 1.0}
    assert terminations == {"writer": True, "critic": True}
    assert view.agents == []
    with pytest.raises(RunOver, match="call reset"):
        view.step({})


def test_what_an_agent_does_unasked_is_ignored_and_one_that_does_nothing_is_asked_again(make_view):
    view = make_view()
    first, infos = view.reset(seed=1)
    for actions in ({}, {"critic": view.action_space("critic").sample()}):
        again, rewards, _, _, infos = view.step(actions)
        assert again["writer"]["tokens"].tolist() == first["writer"]["tokens"].tolist()
        assert rewards == {"writer": 0.0, "critic": 0.0}
        assert infos["writer"]["call_id"] == "call-0"
    with pytest.raises(InvalidValue, match="no agent is called 'editor'; expected writer, critic"):
        view.step({"editor": say("ok")})
    assert view.step({"writer": say("ok")})[0]["critic"]["length"] > 0


def test_calls_of_one_role_at_the_same_time_come_one_after_another(make_view):
    view = make_view(agents.three_at_once)
    _, infos = view.reset(seed=1)
    shown = []
    while view.agents:
        shown.append({role: info["call_id"] for role, info in infos.items() if info})
        _, rewards, _, _, infos = view.step(dict.fromkeys(view.agents, say("ok")))
    assert shown == [{"writer": "call-0", "critic": "call-1"}, {"writer": "call-2"}]
    assert rewards == {"writer": 3.0, "critic": 3.0}


def test_a_failed_run_ends_truncated_and_every_info_says_why(make_view):
    view = make_view(agents.fails_late)
    view.reset(seed=1)
    _, rewards, terminations, truncations, infos = view.step({"writer": say("ok")})
    assert rewards == {"writer": 0.0, "critic": 0.0}
    assert (terminations["writer"], truncations["critic"]) == (False, True)
    assert {info["error"] for info in infos.values()} == {"RuntimeError: boom"}


def test_a_role_that_was_not_named_is_an_error_that_names_it(make_view):
    view = make_view(possible_agents=["writer"])
    view.reset(seed=1)
    with pytest.raises(InvalidValue, match=r"role 'critic', but the environment was made for writer; name"):
        view.step({"writer": say("ok")})
    assert view.env.end.failed
    for wrong in ([], "writer", ["writer", "writer"]):
        with pytest.raises(InvalidValue, match="expected a list of distinct roles"):
            make_view(possible_agents=wrong)


def test_a_dry_run_finds_the_roles_of_a_wrapped_agent():
    agent = raybolt.wrap(agents.duo, reward=lambda task, result, trajectory: 1.0)
    view = agent.parallel_env(tasks=agents.TASKS, max_tokens=300, max_new_tokens=6)
    assert view.possible_agents == ["writer", "critic"]
    assert view.observation_space("critic")["tokens"].shape == (300,)
    observations, _ = view.reset(seed=1)
    assert observations["writer"] in view.observation_space("writer")
    view.close()
    view.close()
    assert agent.parallel_env(["critic", "writer"]).possible_agents == ["critic", "writer"]


def test_without_tasks_or_calls_a_dry_run_asks_for_the_roles():
    def idle(text):
        return 1

    with pytest.raises(InvalidValue, match=r"give possible_agents=\[…\], or tasks=\[…\] for a dry run"):
        raybolt.wrap(agents.duo).parallel_env()
    with pytest.raises(InvalidValue, match="the dry run made no call of the policy"):
        raybolt.wrap(idle).parallel_env(tasks=agents.TASKS)


def test_without_pettingzoo_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InvalidValue, match=r"pip install 'raybolt\[pettingzoo\]'"):
        raybolt.wrap(agents.duo).parallel_env(["writer"])

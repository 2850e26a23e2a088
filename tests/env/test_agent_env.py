"""The RLlib environment over a run."""

import asyncio

import numpy as np
import pytest
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from scripted_runs import TASK, Program, say

from raybolt.env.agent_env import AgentEnv
from raybolt.env.chat import ChatMessage, ChatRequest, Completion, ToolSpec
from raybolt.env.emit import emit_reward
from raybolt.env.errors import RunOver
from raybolt.env.limits import RunLimits
from raybolt.env.policy import Sampled
from raybolt.store import names
from raybolt.store.errors import InvalidValue


def asking(role="agent", *texts):
    return ChatRequest(tuple(ChatMessage("user", text) for text in texts or ("hello",)), role=role)


async def writer_and_critic(task, policy):
    draft = await policy.complete(asking("writer"))
    emit_reward(0.5)
    await policy.complete(asking("critic", draft.message.content))
    return 1


@pytest.fixture
def make_env(codec):
    envs = []

    def make(function=writer_and_critic, **options):
        envs.append(AgentEnv(Program(function), **{"codec": codec, **options}))
        return envs[-1]

    yield make
    for env in envs:
        env.close()


def reply(env, text="ok<|im_end|>"):
    return np.array(env.codec.tokenizer.encode(text), dtype=np.int32)


def test_an_episode_step_by_step(make_env):
    env = make_env()
    assert isinstance(env, MultiAgentEnv)
    observations, infos = env.reset(options={"task": TASK})
    prompt = env.codec.tokenizer.decode(observations["writer"])
    assert prompt == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    assert observations["writer"] in env.get_observation_space("writer")
    assert infos["writer"]["call_id"] == "call-0"
    assert infos["writer"]["request"].role == "writer"

    observations, rewards, terminateds, truncateds, _ = env.step({"writer": reply(env)})
    assert list(observations) == ["critic"]
    assert rewards == {"writer": 0.5}
    assert (terminateds, truncateds) == ({"__all__": False}, {"__all__": False})

    action = Sampled(reply(env), np.full(len(reply(env)), -1.0, dtype=np.float32), 4, 0.7)
    observations, rewards, terminateds, truncateds, infos = env.step({"critic": action})
    assert (observations, infos) == ({}, {})
    assert rewards == {"writer": 1.0, "critic": 1.0}
    assert terminateds == {"writer": True, "critic": True, "__all__": True}
    assert truncateds == {"__all__": False}

    assert env.trajectory.total_reward == 1.5
    call = env.trajectory.calls[1]
    assert (call.role, call.weights_version, call.temperature) == ("critic", 4, 0.7)
    assert env.possible_agents == ["writer", "critic"]


def test_calls_of_one_role_at_once_are_numbered_and_stay_until_answered(make_env):
    async def agent(task, policy):
        await asyncio.gather(policy.complete(asking()), policy.complete(asking("agent", "other")))
        return 1

    env = make_env(agent)
    observations, infos = env.reset(options={"task": TASK})
    assert list(observations) == ["agent", "agent#1"]
    observations, *_, infos = env.step({"agent": reply(env)})
    assert list(observations) == ["agent#1"]
    assert infos["agent#1"]["call_id"] == "call-1"
    assert list(env.step({})[0]) == ["agent#1"]
    assert env.step({"agent#1": reply(env)})[2]["__all__"]


def test_an_external_llm_may_answer(make_env):
    env = make_env()
    env.reset(options={"task": {"task_id": "a", "input": 1}})
    observations, *_ = env.step({"writer": say("from elsewhere")})
    assert "from elsewhere" in env.codec.tokenizer.decode(observations["critic"])
    env.step({"critic": Completion(ChatMessage("assistant", "x"), response_ids=reply(env))})
    first, second = env.trajectory.calls
    assert not first.has_tokens
    np.testing.assert_array_equal(second.prompt_ids, observations["critic"])


def test_a_failed_run_ends_truncated_and_without_reward(make_env):
    async def agent(task, policy):
        await policy.complete(asking())
        emit_reward(1)
        raise RuntimeError("boom")

    env = make_env(agent)
    env.reset(options={"task": TASK})
    observations, rewards, terminateds, truncateds, infos = env.step({"agent": reply(env)})
    assert (observations, rewards) == ({}, {})
    assert terminateds == {"__all__": False}
    assert truncateds == {"agent": True, "__all__": True}
    assert infos["__common__"]["error"] == "RuntimeError: boom"
    assert infos["__common__"]["origin"] == "agent"
    assert env.trajectory.failed


def test_a_run_without_a_call_ends_in_reset(make_env):
    async def agent(task, policy):
        return 1

    env = make_env(agent)
    observations, infos = env.reset(options={"task": TASK})
    assert observations == {}
    assert "made no LLM call" in infos["__common__"]["error"]
    with pytest.raises(RunOver, match="the episode has ended; call reset"):
        env.step({})


def test_a_prompt_longer_than_the_context_fails_the_run_with_both_numbers(make_env, make_codec):
    env = make_env(codec=make_codec(max_context=8))
    _, infos = env.reset(options={"task": TASK})
    assert infos["__common__"]["origin"] == "limit"
    assert "tokens, the model takes 8 with its answer" in infos["__common__"]["error"]


def test_a_malformed_tool_call_is_recorded_and_the_agent_goes_on(make_env):
    async def agent(task, policy):
        answer = await policy.complete(ChatRequest((ChatMessage("user", "x"),), (ToolSpec("f"),)))
        return float(answer.message.tool_calls == ())

    env = make_env(agent)
    env.reset(options={"task": TASK})
    env.step({"agent": reply(env, "<tool_call>{broken</tool_call><|im_end|>")})
    (call,) = env.trajectory.calls
    assert "no JSON in <tool_call>" in call.parse_error
    assert env.trajectory.total_reward == 1.0


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ({"nobody": [1]}, "no call of agent 'nobody' is pending; pending: writer"),
        ({"writer": []}, "expected token ids"),
        ({"writer": "text"}, "expected token ids"),
        ({"writer": [0.5]}, "expected token ids"),
        ({"writer": [[1], [2, 3]]}, "expected token ids"),
        ({"writer": [10**6]}, "the action holds token id 1000000; expected ids from 0 to"),
        ({"writer": Sampled(np.array([1, 2]), np.zeros(1, np.float32))}, "1 logprobs for 2 response tokens"),
        ({"writer": Completion(ChatMessage("user", "x"))}, "role 'user'; expected assistant"),
    ],
)
def test_a_wrong_action_is_an_error_and_the_call_stays_pending(make_env, actions, message):
    env = make_env()
    env.reset(options={"task": TASK})
    with pytest.raises(InvalidValue, match=message):
        env.step(actions)
    assert list(env.step({"writer": reply(env)})[0]) == ["critic"]


def test_stepping_before_reset_and_resetting_without_a_task_are_errors(make_env):
    env = make_env()
    with pytest.raises(RunOver, match="there is no episode yet; call reset"):
        env.step({})
    with pytest.raises(InvalidValue, match="there is no task"):
        env.reset()


def test_tasks_are_drawn_reproducibly_from_the_seed(make_env):
    drawn = []

    async def agent(task, policy):
        drawn.append(task.task_id)
        await policy.complete(asking())

    env = make_env(agent, tasks=[type(TASK)(str(number), "") for number in range(50)])
    for seed in (1, None, 1, None):
        env.reset(seed=seed)
    assert drawn[:2] == drawn[2:]


def test_reset_and_close_abort_a_run_that_goes_on(make_env):
    env = make_env()
    env.reset(options={"task": TASK})
    first = env.recorder
    env.reset(options={"task": TASK})
    assert first.spans[0].attributes[names.ERROR_ORIGIN] == "raybolt"
    env.close()
    env.close()
    assert env.end.error == "the environment was closed or reset"


async def test_many_environments_share_one_loop(make_env):
    env_list = [make_env(limits=RunLimits(max_calls=4)) for _ in range(32)]

    async def episode(env):
        observations, _ = await env.areset(TASK, rollout_id="ro-7", attempt_id="at-7", group_id="g")
        while env.end is None:
            observations, *_ = await env.astep({agent: reply(env) for agent in observations})
        return env.trajectory

    trajectories = await asyncio.gather(*(episode(env) for env in env_list))
    assert [trajectory.total_reward for trajectory in trajectories] == [1.5] * 32
    assert (trajectories[0].rollout_id, trajectories[0].attempt_id) == ("ro-7", "at-7")
    assert (trajectories[0].group_id, trajectories[0].task_id) == ("g", "t1")


async def test_it_works_synchronously_inside_a_running_loop(make_env):
    env = make_env()
    observations, _ = env.reset(options={"task": TASK})
    assert list(observations) == ["writer"]


def test_samples_of_the_space_are_in_it(make_env):
    space = make_env().space
    space.seed(3)
    sample = space.sample()
    assert sample in space
    assert np.array([0], dtype=np.int64) not in space
    assert np.array([], dtype=np.int32) not in space
    assert np.array([space.vocab_size], dtype=np.int32) not in space

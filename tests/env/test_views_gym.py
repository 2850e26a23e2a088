"""The single-agent Gymnasium view."""

import asyncio
import threading

import gymnasium as gym
import numpy as np
import pytest
import view_agents as agents
from gymnasium.utils.env_checker import check_env
from scripted_runs import Program, say

import raybolt
from raybolt.env.agent_env import AgentEnv
from raybolt.env.errors import RunOver
from raybolt.env.gym_view import GymView
from raybolt.env.policy import Sampled
from raybolt.store.errors import InvalidValue


@pytest.fixture
def make_view(make_codec):
    views = []

    def make(function=agents.writer_and_critic, *, max_context=400, trainable=None, **options):
        env = AgentEnv(
            Program(function),
            codec=make_codec(max_context=max_context),
            tasks=agents.TASKS,
            trainable=trainable,
        )
        views.append(GymView(env, **{"max_new_tokens": 8, **options}))
        return views[-1]

    yield make
    for view in views:
        view.close()


def text_of(view, observation):
    return view.env.codec.tokenizer.decode(observation["tokens"][: observation["length"]])


def action(view, text="ok<|im_end|>"):
    ids = view.env.codec.tokenizer.encode(text)
    return np.array(ids + [5] * (8 - len(ids)), dtype=np.int32)


def test_gymnasiums_own_check_passes(make_view):
    gym.register("raybolt/TwoRoles-v0", entry_point=make_view)
    try:
        view = gym.make("raybolt/TwoRoles-v0").unwrapped
        check_env(view)
    finally:
        del gym.registry["raybolt/TwoRoles-v0"]


def test_every_call_is_a_step_whoever_makes_it(make_view):
    view = make_view()
    observation, info = view.reset(seed=1, options={"task": agents.TASKS[7]})
    assert text_of(view, observation) == "<|im_start|>user\nSay 7.<|im_end|>\n<|im_start|>assistant\n"
    assert observation in view.observation_space
    assert (info["role"], info["call_id"]) == ("writer", "call-0")

    observation, reward, terminated, truncated, info = view.step(action(view, "done<|im_end|>"))
    assert text_of(view, observation) == "<|im_start|>user\ndone<|im_end|>\n<|im_start|>assistant\n"
    assert (reward, terminated, truncated, info["role"]) == (0.5, False, False, "critic")

    observation, reward, terminated, truncated, info = view.step(action(view))
    assert (reward, terminated, truncated, info) == (1.0, True, False, {})
    assert observation["length"] == 0
    assert observation in view.observation_space
    assert view.trajectory.total_reward == 1.5

    view.reset(seed=1)
    assert view.step(action(view))[1] == 0.5  # the next episode's rewards are its own


def test_a_reply_ends_at_its_first_end_of_turn_token(make_view):
    view = make_view()
    view.reset(seed=1)
    view.step(action(view))
    (call,) = view.trajectory.calls
    assert call.reply.content == "ok"
    assert call.response_ids.tolist() == view.env.codec.tokenizer.encode("ok<|im_end|>")


def test_what_the_environment_of_rllib_takes_as_an_action_is_taken(make_view):
    view = make_view()
    view.reset(seed=1)
    ids = action(view)[:3]
    view.step(Sampled(ids, np.full(3, -1.0, np.float32), weights_version=4))
    view.step(say("from elsewhere"))
    first, second = view.trajectory.calls
    assert first.weights_version == 4
    assert second.reply.content == "from elsewhere"


def test_calls_made_at_the_same_time_come_one_after_another(make_view):
    view = make_view(agents.three_at_once)
    _, info = view.reset(seed=1)
    seen = [info["call_id"]]
    rewards = []
    terminated = False
    while not terminated:
        _, reward, terminated, _, info = view.step(action(view))
        seen += [info["call_id"]] if info else []
        rewards.append(reward)
    assert seen == ["call-0", "call-1", "call-2"]
    assert rewards == [0.0, 0.0, 3.0]


@pytest.mark.parametrize("is_async", [False, True])
def test_the_calls_of_other_roles_are_answered_by_a_function(make_view, is_async):
    asked = []

    def answer(request):
        asked.append((request.role, request.messages[0].content))
        return say("from the critic")

    async def answer_async(request):
        await asyncio.sleep(0)
        return answer(request)

    view = make_view(role="writer", others=answer_async if is_async else answer)
    _, info = view.reset(seed=1, options={"task": agents.TASKS[0]})
    assert info["role"] == "writer"
    _, reward, terminated, _, _ = view.step(action(view, "my draft<|im_end|>"))
    assert (reward, terminated) == (1.5, True)
    assert asked == [("critic", "my draft")]
    assert [call.reply.content for call in view.trajectory.calls] == ["my draft", "from the critic"]


def test_others_run_in_a_thread_and_may_block(make_view):
    met = threading.Barrier(2, timeout=30)

    def answer(request):
        met.wait()  # both writers are asked at the same time
        return say("ok")

    view = make_view(agents.three_at_once, role="critic", others=answer)
    _, info = view.reset(seed=1)
    assert info["role"] == "critic"
    assert view.step(action(view))[2]


def test_the_agents_own_model_answers_where_it_has_one(make_view):
    view = make_view(agents.critic_of_its_own, role="writer", trainable=["writer"])
    view.reset(seed=1)
    _, reward, terminated, _, _ = view.step(action(view, "my draft<|im_end|>"))
    assert (reward, terminated) == (1.0, True)
    assert [call.reply.content for call in view.trajectory.calls] == ["my draft", "my own view of my draft"]


def test_a_call_that_nobody_answers_is_an_error_that_says_what_to_give(make_view):
    view = make_view(role="writer")
    view.reset(seed=1)
    with pytest.raises(
        InvalidValue, match=r"role 'critic', which is no decision of gym_env\(role='writer'\)"
    ):
        view.step(action(view))
    assert view.end.failed


def test_a_function_for_others_that_raises_fails_the_run_and_one_that_returns_text_is_an_error(make_view):
    def broken(request):
        raise TimeoutError("no answer")

    view = make_view(role="writer", others=broken)
    view.reset(seed=1)
    _, reward, terminated, truncated, info = view.step(action(view))
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert (info["error"], info["origin"]) == ("TimeoutError: no answer", "engine")

    view = make_view(role="writer", others=lambda request: "text")
    view.reset(seed=1)
    with pytest.raises(InvalidValue, match="returned 'text'; expected a Completion"):
        view.step(action(view))


def test_a_failed_run_ends_truncated_and_without_reward(make_view):
    view = make_view(agents.fails_late)
    view.reset(seed=1)
    observation, reward, terminated, truncated, info = view.step(action(view))
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert info == {"error": "RuntimeError: boom", "error_type": "RuntimeError", "origin": "agent"}
    assert observation["length"] == 0


def test_a_run_that_ends_before_its_first_decision_is_one_empty_step(make_view):
    view = make_view(agents.fails_at_once)
    observation, info = view.reset(seed=1)
    assert observation["length"] == 0
    assert info["error"] == "RuntimeError: no key"
    assert view.step(view.action_space.sample())[1:4] == (0.0, False, True)

    view = make_view(agents.only_the_critic, role="writer", others=lambda request: say("ok"))
    view.reset(seed=1)
    assert view.step(view.action_space.sample())[1:4] == (2.0, True, False)


def test_stepping_outside_an_episode_and_closing_twice(make_view):
    view = make_view()
    for misuse in (lambda: None, view.close, view.close):
        misuse()
        with pytest.raises(RunOver, match="call reset"):
            view.step(action(view))
    view.reset(seed=1)
    view.step(action(view))
    view.step(action(view))
    with pytest.raises(RunOver, match="call reset"):
        view.step(action(view))
    view.reset(seed=1)
    view.close()
    assert view.end.error == "the environment was closed or reset"


def test_a_wrong_action_is_an_error_and_the_call_stays_pending(make_view):
    view = make_view()
    view.reset(seed=1)
    for wrong in ("text", [0.5], np.array([10**6] * 8), None):
        with pytest.raises(InvalidValue, match="the action"):
            view.step(wrong)
    assert view.step(action(view))[4]["role"] == "critic"


def test_a_prompt_that_cannot_be_padded_fails_the_run(make_view):
    view = make_view(max_context=12)
    _, info = view.reset(seed=1)
    assert info["origin"] == "limit"
    assert view.observation_space["tokens"].shape == (11,)


def test_seeds_repeat_the_tasks_drawn_before_and_after(make_view):
    def drawn(view):
        prompts = []
        for seed in (3, None, None):
            observation, _ = view.reset(seed=seed)
            prompts.append(text_of(view, observation))
        return prompts

    view = make_view()
    assert drawn(view) == drawn(view) == drawn(make_view())
    assert len(set(drawn(view))) > 1


@pytest.mark.usefixtures("openai_client")
def test_a_wrapped_agent_gives_the_view():
    agent = raybolt.wrap(agents.duo, reward=lambda task, result, trajectory: float(len(trajectory.calls)))
    asked = []

    def answer(request):
        asked.append(request.messages[0].content)
        return say("fine")

    view = agent.gym_env("writer", others=answer, max_tokens=300, max_new_tokens=6, tasks=agents.TASKS)
    assert view.observation_space["tokens"].shape == (300,)
    assert view.action_space.shape == (6,)
    _, info = view.reset(seed=2)
    assert info["role"] == "writer"
    _, reward, terminated, _, _ = view.step(view.action_space.sample())
    assert (reward, terminated, len(asked)) == (2.0, True, 1)
    view.close()
    with pytest.raises(InvalidValue, match=r"say which, gym_env\(role=…\)"):
        agent.gym_env(others=answer)
    with pytest.raises(InvalidValue, match="max_tokens is 0"):
        agent.gym_env(max_tokens=0)
    with pytest.raises(InvalidValue, match="max_new_tokens is 0"):
        agent.gym_env(max_new_tokens=0)

"""The padded environment under RLlib's stock `MultiAgentEnvRunner`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import view_agents as agents
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.tune.registry import register_env
from scripted_runs import Program, say
from transformers import AutoModelForCausalLM

import raybolt
from raybolt.env.agent_env import AgentEnv
from raybolt.env.codec import codec_for
from raybolt.env.errors import RunOver
from raybolt.env.models import resolve_model
from raybolt.env.padded_env import PaddedAgentEnv
from raybolt.store.errors import InvalidValue

pytestmark = pytest.mark.filterwarnings(
    # RLlib registers its environment under the same name for every runner of a process.
    "ignore:.*Overriding environment rllib-multi-agent-env-v0:UserWarning"
)

ROLES = ["writer", "critic"]
MAX_NEW_TOKENS = 6


class TinyLLM(TorchRLModule):
    """The tiny language model, greedy: a row of observations in, a row of new tokens out."""

    def setup(self) -> None:
        self.llm = AutoModelForCausalLM.from_pretrained(resolve_model("tiny").path, dtype=torch.float32)

    @torch.no_grad()
    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        seen = batch[Columns.OBS]
        prompts = zip(seen["tokens"].long(), seen["length"].reshape(-1).tolist(), strict=True)
        return {Columns.ACTIONS: torch.stack([self._reply(*prompt) for prompt in prompts])}

    def _reply(self, tokens: torch.Tensor, length: int) -> torch.Tensor:
        ids = tokens[: max(1, length)]  # an empty observation, the last of an episode, gets a reply too
        for _ in range(MAX_NEW_TOKENS):
            ids = torch.cat([ids, self.llm(ids[None]).logits[0, -1].argmax()[None]])
        return ids[-MAX_NEW_TOKENS:]


def creator(env_config: dict[str, Any]) -> PaddedAgentEnv:
    program = Program(getattr(agents, env_config["agent"]))
    env = AgentEnv(program, codec=codec_for("tiny", context=200), tasks=agents.TASKS)
    return PaddedAgentEnv(env, ROLES, max_new_tokens=MAX_NEW_TOKENS)


def sample(
    agent: str, num_envs: int = 1, *, num_episodes: int = 4, random_actions: bool = False
) -> list[Any]:
    register_env("raybolt-padded", creator)
    module = RLModuleSpec(module_class=TinyLLM)
    config = (
        PPOConfig()
        .environment("raybolt-padded", env_config={"agent": agent})
        .env_runners(num_env_runners=0, num_envs_per_env_runner=num_envs)
        .multi_agent(policies={"shared"}, policy_mapping_fn=lambda agent_id, episode, **kwargs: "shared")
        .rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs={"shared": module}))
        .debugging(seed=3)
    )
    runner = MultiAgentEnvRunner(config=config)
    try:
        return runner.sample(num_episodes=num_episodes, random_actions=random_actions)
    finally:
        runner.stop()


def lengths(episode: Any, role: str) -> list[int]:
    return [int(length) for length in episode.agent_episodes[role].get_observations()["length"]]


@pytest.fixture
def make_env(make_codec):
    envs = []

    def make(function=agents.writer_and_critic, **options):
        env = AgentEnv(Program(function), codec=make_codec(max_context=400), tasks=agents.TASKS)
        envs.append(PaddedAgentEnv(env, ROLES, **{"max_new_tokens": 8, **options}))
        return envs[-1]

    yield make
    for env in envs:
        env.close()


@pytest.mark.parametrize("num_envs", [1, 2])
@pytest.mark.parametrize("random_actions", [False, True])
def test_complete_episodes_of_two_roles_are_sampled(num_envs, random_actions):
    episodes = sample("writer_and_critic", num_envs, random_actions=random_actions)
    assert len(episodes) == 4
    for episode in episodes:
        assert (episode.is_terminated, episode.is_truncated) == (True, False)
        assert sorted(episode.agent_episodes) == ["critic", "writer"]
        for role in ROLES:
            asked, at_the_end = lengths(episode, role)
            assert asked > 0
            assert at_the_end == 0
            actions = episode.agent_episodes[role].get_actions()
            assert actions.shape == (1, MAX_NEW_TOKENS)
        assert episode.agent_episodes["writer"].get_rewards().tolist() == [1.5]
        assert episode.agent_episodes["critic"].get_rewards().tolist() == [1.0]


def test_the_critic_sees_what_the_tiny_model_sampled_for_the_writer():
    codec = codec_for("tiny")
    for episode in sample("writer_and_critic", num_episodes=2):
        said = codec.tokenizer.decode(episode.agent_episodes["writer"].get_actions()[0])
        seen = episode.agent_episodes["critic"].get_observations()
        prompt = codec.tokenizer.decode(seen["tokens"][0][: seen["length"][0]])
        assert said.split("<|im_end|>")[0].strip() in prompt


def test_calls_of_one_role_at_the_same_time_become_steps_one_after_another():
    for episode in sample("three_at_once", 2):
        assert len(episode.agent_episodes["writer"]) == 2
        assert len(episode.agent_episodes["critic"]) == 1
        assert episode.agent_episodes["writer"].get_rewards().sum() == 3.0


def test_a_failed_run_is_a_truncated_episode_without_reward():
    for episode in sample("fails_late"):
        assert (episode.is_terminated, episode.is_truncated) == (False, True)
        assert episode.get_return() == 0.0


def test_a_run_that_fails_before_its_first_call_ends_instead_of_resetting_for_ever():
    for episode in sample("fails_at_once"):
        assert episode.is_truncated
        assert lengths(episode, "writer") == [0, 0]


def test_the_environment_step_by_step(make_env):
    env = make_env()
    observations, infos = env.reset(seed=1, options={"task": agents.TASKS[0]})
    assert list(observations) == ["writer"]
    assert observations["writer"] in env.get_observation_space("writer")
    assert env.get_observation_space("writer") is env.get_observation_space("writer")
    assert infos["writer"]["call_id"] == "call-0"
    observations, rewards, terminateds, truncateds, _ = env.step({"writer": say("a")})
    assert (list(observations), rewards) == (["critic"], {"writer": 0.5})
    assert (terminateds, truncateds) == ({"__all__": False}, {"__all__": False})
    observations, rewards, terminateds, _, _ = env.step({"critic": say("b")})
    assert [observations[role]["length"] for role in ROLES] == [0, 0]
    assert (rewards, terminateds) == ({"critic": 1.0, "writer": 1.0}, {"__all__": True})
    assert env.trajectory.total_reward == 1.5
    assert [span.name for span in env.spans][-1] == "reward"


def test_an_agent_that_acts_gets_a_reward_even_if_none_came(make_env):
    env = make_env(agents.three_at_once)
    env.reset(seed=1)
    assert env.step({"critic": say("b")})[1] == {"critic": 0.0}
    assert env.step({"writer": say("a")})[1] == {"writer": 0.0}


def test_misuse_is_an_error_and_answers_nothing(make_env):
    env = make_env()
    with pytest.raises(RunOver, match="call reset"):
        env.step({})
    env.reset(seed=1)
    with pytest.raises(InvalidValue, match="agent 'critic' is not asked; those that are: writer"):
        env.step({"critic": say("b")})
    with pytest.raises(InvalidValue, match="expected token ids"):
        env.step({"writer": np.array([0.5])})
    assert list(env.step({})[0]) == ["writer"]
    env.close()
    env.close()
    with pytest.raises(RunOver, match="call reset"):
        env.step({})


def test_a_wrapped_agent_creates_the_padded_environment_for_rllib():
    agent = raybolt.wrap(agents.duo, reward=lambda task, result, trajectory: 1.0)
    env = agent({"padded": True, "possible_agents": ROLES, "max_tokens": 300, "tasks": agents.TASKS})
    assert isinstance(env, PaddedAgentEnv)
    assert env.get_observation_space("critic")["tokens"].shape == (300,)
    assert env.get_action_space("writer").shape == (64,)
    observations, _ = env.reset(seed=1)
    assert observations["writer"] in env.get_observation_space("writer")
    env.close()

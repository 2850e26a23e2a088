"""Updates of several policies on one learner, in this process: no runner, no cluster."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from scripted_runs import Program

from raybolt.env.agent_env import AgentEnv
from raybolt.env.chat import ChatMessage, ChatRequest
from raybolt.env.codec import codec_for
from raybolt.env.policy import PolicyPort, RunEnd, Sampled
from raybolt.env.task import Task
from raybolt.rl.config import LightningRLConfig, RunnerLayout
from raybolt.rl.learner import LightningRLLearner
from raybolt.rl.plan import plan_rl
from raybolt.rl.policies import PolicySpec
from raybolt.rl.recipes import LightningRL
from raybolt.rl.training_data import GroupRefs
from raybolt.store import LocalStore

RECIPE = LightningRL(
    policies={"writer": PolicySpec(roles=["writer"]), "critic": PolicySpec(roles=["critic"])}, num_epochs=2
)
Weights = dict[str, np.ndarray]


class Tables(GroupRefs):
    """Groups that are at hand."""

    def solve_refs(self) -> None:
        """There are none."""


async def one_call_each(task: Task, policy: PolicyPort) -> float:
    for role in ("writer", "critic"):
        await policy.complete(ChatRequest((ChatMessage("user", "hello"),), role=role))
    return float(task.input)


async def sampled_group(trainable: Any) -> Tables:
    """A group of two rollouts, one rewarded and one not, whose replies differ."""
    codec = codec_for("tiny")
    async with LocalStore() as store:
        await store.declare_group("group", 2)
        for reward in (0, 1):
            started = await store.start_rollout(reward, group_id="group")
            rollout_id, attempt_id = started.rollout_id, started.attempt.attempt_id
            env = AgentEnv(Program(one_call_each), codec=codec, trainable=trainable)
            prompts, infos = await env.areset(
                Task("t", reward), rollout_id=rollout_id, attempt_id=attempt_id, group_id="group"
            )
            while prompts:
                ids = np.array([40 + reward, 50 + len(env.possible_agents)], np.int32)
                answer = {
                    agent_id: Sampled(ids, np.full(2, -3.0, np.float32), policy=infos[agent_id]["role"])
                    for agent_id in prompts
                }
                prompts, *_, infos = await env.astep(answer)
            assert env.end == RunEnd(result=float(reward))
            await store.add_many_spans(env.spans)
            await store.update_attempt(rollout_id, attempt_id, status="succeeded")
        (handle,) = await store.take_groups(1)
        return Tables(episodes=[handle.ref], num_tokens=[handle.num_tokens])


class Watched(LightningRLLearner):
    """Notes the norm of the gradients that reach its optimizers."""

    norms: ClassVar[list[float]] = []

    def apply_gradients(self, gradients_dict: dict[Any, torch.Tensor]) -> None:
        self.norms.append(float(torch.nn.utils.get_total_norm(list(gradients_dict.values()))))
        super().apply_gradients(gradients_dict)


def updated(
    group: Tables, recipe: LightningRL = RECIPE, learner_class: type[LightningRLLearner] = LightningRLLearner
) -> tuple[dict[str, Weights], Any]:
    """Each policy's weights after one update, and the learner's metrics."""
    config = LightningRLConfig().lightning(recipe=recipe, layout=RunnerLayout(num_runners=1))
    learner = learner_class(config=config, module_spec=config.get_multi_rl_module_spec())
    learner.build()
    metrics = learner.update(training_data=group, plan=plan_rl(recipe, seed=0, fresh_optimizer=True))
    return learner.module.get_state(), metrics


def same(a: Weights, b: Weights) -> bool:
    return all(np.array_equal(a[name], b[name]) for name in a)


async def test_a_policys_update_is_the_same_whether_or_not_another_learns_beside_it() -> None:
    both, numbers = updated(await sampled_group(None))
    alone, _ = updated(await sampled_group(["writer"]))
    neither, _ = updated(await sampled_group(["judge"]))

    assert same(both["writer"], alone["writer"])
    assert not same(both["writer"], neither["writer"])
    assert not same(both["critic"], neither["critic"])
    # Nothing was learned from the critic's calls, or from any: their policies are bit for bit as they were.
    assert same(alone["critic"], neither["critic"])
    assert same(neither["writer"], neither["critic"])
    assert {name: float(numbers[name]["tokens_trained"].peek()) for name in ("writer", "critic")} == {
        "writer": 4.0,
        "critic": 4.0,
    }


@pytest.mark.parametrize(("grad_clip", "clipped"), [(1e-7, True), (1e6, False)])
async def test_no_gradient_larger_than_the_recipe_allows_reaches_an_optimizer(grad_clip, clipped) -> None:
    Watched.norms = []
    _, numbers = updated(await sampled_group(None), replace(RECIPE, grad_clip=grad_clip), Watched)
    assert len(Watched.norms) == 4  # two policies, two epochs
    found = float(numbers["writer"]["grad_norm"].peek())
    assert found > 1e-7
    assert (max(Watched.norms) <= grad_clip * 1.001) if clipped else (found in Watched.norms)

"""Training several policies at once, each behind some roles: Ray actors, real models, real learning."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import training_agents as agents

from raybolt.adapters.wrap import wrap
from raybolt.env.chat import ChatMessage, ChatRequest
from raybolt.env.demonstrate import demonstrate
from raybolt.env.models import resolve_model
from raybolt.env.task import Task
from raybolt.env.trajectory import Call, trajectory_from_spans
from raybolt.rl.policies import Policies, PolicySpec
from raybolt.rl.recipes import SFT, LightningRL
from raybolt.rl.results import FitResult
from raybolt.rl.run_folder import RunFolder
from raybolt.rl.trainer import Trainer
from raybolt.store.local import LocalStore

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.slow]

TASKS = [Task(f"task-{index}", f"Say something about {index}.") for index in range(8)]
POLICIES = {"writer": PolicySpec(roles=("writer*",)), "critic": PolicySpec(roles=("critic",), lr=1e-4)}
Weights = dict[str, np.ndarray]


def train(folder: Path, agent: Any, *, resume: bool = False, learners: int = 1, **settings: Any) -> FitResult:
    recipe = {
        "policies": POLICIES,
        "lr": 1e-3,
        "tasks_per_iteration": 4,
        "rollouts_per_task": 4,
        "max_new_tokens": 12,
        "checkpoint_every": 1,
    }
    with Trainer(
        agent,
        algorithm=LightningRL(**{**recipe, **settings}),
        store=folder,
        num_runners=1,
        num_learners=learners,
    ) as trainer:
        return trainer.fit(TASKS, resume=resume)


def weights(folder: Path | str) -> Weights:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    return {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}


def distance(a: Weights, b: Weights) -> float:
    """Mean absolute difference over all parameters."""
    assert a.keys() == b.keys()
    return float(np.mean(np.concatenate([np.abs(a[name] - b[name]).ravel() for name in a])))


def calls(folder: Path, mode: str = "train") -> list[Call]:
    """All calls of the run's rollouts."""

    async def run() -> list[Call]:
        async with LocalStore(folder) as store:
            found: list[Call] = []
            for rollout in await store.query_rollouts(mode=mode):
                spans = await store.query_spans(rollout.rollout_id, "latest")
                found += trajectory_from_spans(spans, rollout_id=rollout.rollout_id, attempt_id="").calls
            return found

    return asyncio.run(run())


@pytest.fixture(scope="module")
def untrained() -> Weights:
    return weights(resolve_model("tiny").path)


TALKERS = wrap(agents.writer_and_critic, reward=agents.evenness)
"""Only the writer can influence this reward."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> FitResult:
    """A run of eight iterations."""
    return train(tmp_path_factory.mktemp("policies") / "run", TALKERS, iterations=8)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> FitResult:
    """The same run after its first iteration."""
    return train(tmp_path_factory.mktemp("policies") / "run", TALKERS, iterations=1)


def test_each_policy_learns_in_its_own_weights_from_the_calls_of_its_roles(trained, untrained) -> None:
    first, last = np.mean(trained.reward_curve[:2]), np.mean(trained.reward_curve[-2:])
    assert last > first + 0.15, trained.reward_curve

    writer, critic = (weights(trained.paths["model"] / name) for name in ("writer", "critic"))
    moved = {name: distance(of, untrained) for name, of in (("writer", writer), ("critic", critic))}
    assert moved["writer"] > 3 * moved["critic"] > 0, moved  # its learning rate is a tenth
    assert distance(writer, critic) > 0

    by_role = {(call.role, call.policy) for call in calls(trained.paths["store"])}
    assert by_role == {("writer-1", "writer"), ("critic", "critic")}


def test_numbers_of_the_run_are_there_for_each_policy(trained) -> None:
    lines = [json.loads(line) for line in (trained.paths["log"] / "progress.jsonl").read_text().splitlines()]
    assert [sorted(line["losses"]) for line in lines] == [["critic", "writer"]] * 8
    assert all(line["tokens"]["trained"] > 0 for line in lines)


def test_a_resumed_run_gives_the_numbers_of_an_uninterrupted_one(trained, begun, tmp_path: Path) -> None:
    folder = shutil.copytree(begun.paths["store"], tmp_path / "run")
    resumed = train(folder, TALKERS, iterations=3, resume=True)

    # The third iteration's rewards stand on the second's update, and so on the restored optimizers, too.
    assert resumed.reward_curve == pytest.approx(trained.reward_curve[:3], abs=1e-6)


def test_calls_that_are_not_trainable_leave_their_policy_untouched(tmp_path: Path, untrained) -> None:
    agent = wrap(agents.writer_and_own_critic, reward=agents.evenness, trainable=["writer*"])
    result = train(tmp_path / "run", agent, iterations=2)

    assert distance(weights(result.paths["model"] / "critic"), untrained) == 0.0
    assert distance(weights(result.paths["model"] / "writer"), untrained) > 0
    by_role = {(c.role, c.policy, c.trainable, c.has_tokens) for c in calls(tmp_path / "run")}
    assert by_role == {("writer-1", "writer", True, True), ("critic", None, False, False)}


def test_two_learners_learn_the_same_as_one(begun, tmp_path: Path, untrained) -> None:
    two = train(tmp_path / "two", TALKERS, iterations=1, learners=2)

    for name in POLICIES:
        model = weights(begun.paths["model"] / name)
        assert distance(weights(two.paths["model"] / name), model) < 0.05 * distance(model, untrained)


def test_each_policy_imitates_its_own_roles_in_the_demonstrations(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    policies = {name: PolicySpec(roles=spec.roles) for name, spec in POLICIES.items()}
    recipe = SFT(lr=3e-3, epochs=3, tokens_per_step=64, policies=policies)
    said = {"writer-1": "Done.", "critic": "Show it."}

    def teacher(task: Task, request: ChatRequest) -> ChatMessage:
        return ChatMessage("assistant", said[request.role])

    async def record() -> None:
        async with LocalStore(folder) as store:
            await demonstrate(TALKERS, TASKS * 6, teacher, store, codec=Policies.of(recipe).codec_of)

    asyncio.run(record())
    with Trainer(TALKERS, algorithm=recipe, store=folder, num_runners=1) as trainer:
        trainer.fit(TASKS)
        trainer.evaluate([Task("unseen", "Say something about 99.")])

    assert {c.role: c.reply.content for c in calls(folder, "val")} == said
    assert {c.policy for c in calls(folder, "demo")} == {None}
    assert RunFolder(folder).trained(LightningRL()).policies == {
        "writer": PolicySpec(roles=("writer*",), model=str(folder / "model" / "writer")),
        "critic": PolicySpec(roles=("critic",), model=str(folder / "model" / "critic")),
    }

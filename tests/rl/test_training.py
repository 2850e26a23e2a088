"""Training, whole: Ray actors, a real model that really generates and really learns."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import training_agents as agents

from raybolt.adapters.wrap import wrap
from raybolt.env.chat import ChatMessage, ChatRequest
from raybolt.env.codec import codec_for
from raybolt.env.demonstrate import demonstrate
from raybolt.env.task import Task
from raybolt.rl.errors import TrainingError
from raybolt.rl.recipes import SFT, LightningRL
from raybolt.rl.results import FitResult, Progress
from raybolt.rl.trainer import Trainer
from raybolt.store.local import LocalStore

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.slow]

TASKS = [Task(f"task-{index}", f"Say something about {index}.") for index in range(8)]
TALKER = wrap(agents.short_talker, reward=agents.evenness)
RECIPE = {"tasks_per_iteration": 4, "rollouts_per_task": 4, "max_new_tokens": 12, "checkpoint_every": 1}


def train(
    folder: Path, agent: Any = TALKER, *, resume: bool = False, tasks: list[Task] = TASKS, **settings: Any
):
    trainer_settings = {
        name: settings.pop(name)
        for name in ("num_learners", "num_runners", "on_progress")
        if name in settings
    }
    recipe = LightningRL(**{**RECIPE, **settings})
    with Trainer(
        agent, algorithm=recipe, store=folder, **{"num_runners": 1, "concurrency": 16, **trainer_settings}
    ) as trainer:
        return trainer.fit(tasks, resume=resume)


def weights(result: FitResult) -> dict[str, np.ndarray]:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(result.paths["model"])
    return {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}


def distance(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    """Mean absolute difference over all parameters."""
    assert a.keys() == b.keys()
    return float(np.mean(np.concatenate([np.abs(a[name] - b[name]).ravel() for name in a])))


def initial_weights() -> dict[str, np.ndarray]:
    from transformers import AutoModelForCausalLM

    from raybolt.env.models import resolve_model

    model = AutoModelForCausalLM.from_pretrained(resolve_model("tiny").path)
    return {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}


def query(folder: Path, **filters: Any) -> Any:
    async def run() -> Any:
        async with LocalStore(folder) as store:
            rollouts = await store.query_rollouts(**filters)
            return rollouts, await store.get_latest_attempts([r.rollout_id for r in rollouts])

    return asyncio.run(run())


def test_the_policy_learns_what_is_rewarded(tmp_path: Path) -> None:
    result = train(tmp_path / "run", lr=1e-3, iterations=12)

    first, last = np.mean(result.reward_curve[:2]), np.mean(result.reward_curve[-2:])
    assert 1 - last < (1 - first) / 2, result.reward_curve
    assert result.tokens["trained"] > 0
    assert (result.paths["log"] / "progress.jsonl").read_text().count("\n") == 12


def test_learning_rate_zero_changes_no_weight(tmp_path: Path) -> None:
    result = train(tmp_path / "run", lr=0.0, iterations=1)

    assert distance(weights(result), initial_weights()) == 0.0


def test_a_resumed_run_gives_the_numbers_of_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", lr=1e-3, iterations=3)
    train(tmp_path / "parts", lr=1e-3, iterations=2)
    resumed = train(tmp_path / "parts", lr=1e-3, iterations=3, resume=True)

    assert resumed.reward_curve == pytest.approx(whole.reward_curve, abs=1e-6)
    moved = distance(weights(whole), initial_weights())
    assert distance(weights(resumed), weights(whole)) < 0.02 * moved


def test_two_learners_learn_the_same_as_one(tmp_path: Path) -> None:
    one = train(tmp_path / "one", lr=1e-3, iterations=2)
    two = train(tmp_path / "two", lr=1e-3, iterations=2, num_learners=2)

    moved = distance(weights(one), initial_weights())
    assert distance(weights(two), weights(one)) < 0.05 * moved


def test_every_span_names_the_version_of_the_weights_that_spoke(tmp_path: Path) -> None:
    train(tmp_path / "run", iterations=3)

    async def versions() -> list[set[int]]:
        async with LocalStore(tmp_path / "run") as store:
            found = []
            for iteration in range(3):
                rollouts = await store.query_rollouts(mode="train")
                ours = [r for r in rollouts if f"iteration-{iteration:05d}" in str(r.group_id)]
                spans = [span for r in ours for span in await store.query_spans(r.rollout_id, "latest")]
                found.append(
                    {
                        s.attributes["raybolt.weights_version"]
                        for s in spans
                        if "raybolt.weights_version" in s.attributes
                    }
                )
            return found

    assert asyncio.run(versions()) == [{0}, {1}, {2}]


def test_a_dead_runner_costs_only_the_work_in_flight(tmp_path: Path) -> None:
    marker = tmp_path / "died"
    tasks = [Task("killer", f"kill@{marker}"), *(Task(f"task-{i}", f"live@{i}") for i in range(3))]
    agent = wrap(agents.kills_its_process_once, reward=agents.evenness)

    result = train(tmp_path / "run", agent, tasks=tasks, iterations=2, num_runners=2)

    assert marker.exists()
    rollouts, attempts = query(tmp_path / "run", mode="train")
    assert {rollout.status for rollout in rollouts} == {"succeeded"}
    assert len(rollouts) == 32
    assert max(attempt.sequence_id for attempt in attempts) == 2
    assert result.iterations == 2


def test_failed_rollouts_spare_their_siblings_and_are_no_zero_rewards(tmp_path: Path) -> None:
    seen: list[Progress] = []
    tasks = [Task("good", "Say it."), Task("bad", "Please fail.")]
    agent = wrap(agents.sometimes_fails, reward=agents.evenness)

    train(tmp_path / "run", agent, tasks=tasks, tasks_per_iteration=2, iterations=1, on_progress=seen.append)

    assert (seen[0].rollouts_failed, seen[0].groups_held_back) == (4, 1)
    rollouts, attempts = query(tmp_path / "run", mode="train")
    outcome = {
        r.task_id: (r.status, a.metadata.get("reward"), a.metadata.get("error"))
        for r, a in zip(rollouts, attempts, strict=True)
    }
    assert outcome["good"][0] == "succeeded"
    assert outcome["bad"] == ("failed", None, "ValueError: this task is cursed")


def test_an_iteration_in_which_all_fail_says_why(tmp_path: Path) -> None:
    agent = wrap(agents.never_works, reward=agents.evenness)

    with pytest.raises(TrainingError, match=r"All 16 rollouts .* because of the agent: KeyError: 'weather'"):
        train(tmp_path / "run", agent, iterations=1)


def test_fine_tuning_imitates_the_demonstrations_in_the_store(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def teacher(task: Task, request: ChatRequest) -> ChatMessage:
        return ChatMessage("assistant", "Done.")

    async def record() -> None:
        async with LocalStore(folder) as store:
            await demonstrate(TALKER, TASKS * 8, teacher, store, codec=codec_for("tiny"))

    asyncio.run(record())
    recipe = SFT(lr=3e-3, epochs=3, tokens_per_step=32)
    with Trainer(TALKER, algorithm=recipe, store=folder, num_runners=1) as trainer:
        result = trainer.fit(TASKS, TASKS[:2])
        trained = trainer.evaluate([Task("unseen", "Say something about 99.")])

    async def last_reply() -> str:
        async with LocalStore(folder) as store:
            spans = await store.query_spans(trained.rollout_ids["unseen"][0], "latest")
            chat = next(s for s in spans if s.attributes.get("gen_ai.operation.name") == "chat")
            return codec_for("tiny").tokenizer.decode(
                chat.attributes["raybolt.response_ids"], skip_special_tokens=True
            )

    assert asyncio.run(last_reply()).strip() == "Done."
    assert list(result.evaluations) == ["before", "sft"]
    assert result.reward_curve == []


def test_fine_tuning_without_demonstrations_says_how_to_record_them(tmp_path: Path) -> None:
    with (
        Trainer(TALKER, algorithm=SFT(), store=tmp_path / "run", num_runners=1) as trainer,
        pytest.raises(TrainingError, match=r"raybolt\.demonstrate"),
    ):
        trainer.fit(TASKS)

"""What the trainer says of an iteration that teaches nothing."""

from __future__ import annotations

import logging

import pytest
import training_agents as agents
from typer.testing import CliRunner

from raybolt.adapters.wrap import wrap
from raybolt.cli import app
from raybolt.env.task import Task
from raybolt.rl.errors import TrainingError
from raybolt.rl.recipes import LightningRL
from raybolt.rl.trainer import Trainer

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.slow]

TASKS = [Task(f"task-{index}", f"Say something about {index}.") for index in range(2)]


def train(folder, agent):
    recipe = LightningRL(
        model="tiny", warmup=None, iterations=1, tasks_per_iteration=2, rollouts_per_task=3, max_new_tokens=12
    )
    with Trainer(agent, algorithm=recipe, store=folder, num_runners=1) as trainer:
        return trainer.fit(TASKS)


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "raybolt.rl.algorithm"]


def test_equal_rewards_are_logged_with_a_rollout_and_doctor_says_the_same(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "raybolt.rl.algorithm"):
        train(tmp_path, wrap(agents.short_talker, reward=lambda task, result, trajectory: 0.0))
    (text,) = [text for text in warnings(caplog) if "signal:" in text]
    assert text.startswith("Iteration 1 teaches nothing. signal: in 2 of 2 groups all rewards are equal")
    assert "Look at what the reward function sees" in text

    result = CliRunner().invoke(app, ["doctor", str(tmp_path)], env={"COLUMNS": "200"})
    assert result.exit_code == 1
    assert "in 2 of 2 groups all rewards are equal" in result.output
    rollout_id = text.split("in rollout ")[1].split(".")[0]
    assert rollout_id in result.output


def test_an_iteration_that_teaches_is_not_remarked_on(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "raybolt.rl.algorithm"):
        train(tmp_path, wrap(agents.short_talker, reward=agents.evenness))
    assert warnings(caplog) == []


def test_when_all_failed_the_error_names_a_rollout_and_what_to_do(tmp_path):
    with pytest.raises(
        TrainingError, match=r"KeyError: 'weather' run: .* in rollout ro-.* read the traceback"
    ):
        train(tmp_path, wrap(agents.never_works, reward=agents.evenness))

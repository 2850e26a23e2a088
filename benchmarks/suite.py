"""`raybolt bench`: train a model in one way, or not at all, and score it on a suite's held-out questions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raybolt.adapters.wrap import wrap
from raybolt.benchmarks.demonstrations import record_demonstrations
from raybolt.benchmarks.report import versions
from raybolt.benchmarks.sql.agent import build_agent
from raybolt.benchmarks.sql.demos import teacher
from raybolt.benchmarks.sql.generate import generate
from raybolt.benchmarks.sql.reward import score
from raybolt.benchmarks.sql.spider import load_spider
from raybolt.env.task import Task
from raybolt.rl.recipes import SFT, LightningRL, Recipe, recipe_to_dict
from raybolt.rl.results import EvalResult, FitResult, Progress
from raybolt.rl.trainer import Trainer

GENERATED = "generated"

OnStage = Callable[[str], None]
OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """A benchmark's outcome.

    Attributes:
        suite, data, model, algorithm, seed: what was run; `algorithm` is the recipe, None without training.
        accuracy: right answers / questions; a failed rollout is no right answer.
        evaluation: the score over rollouts that did not fail, with its confidence interval and the failures.
        reward_curve: mean training reward of each iteration.
        seconds, tokens: as in `FitResult`; empty if nothing was trained.
        versions: of what the numbers depend on.
    """

    suite: str
    data: str
    model: str
    algorithm: dict[str, Any] | None
    seed: int
    accuracy: float
    evaluation: EvalResult
    reward_curve: list[float]
    seconds: dict[str, float]
    tokens: dict[str, int]
    versions: dict[str, str]


def run_suite(
    *,
    data: str,
    model: str,
    recipe: Recipe | None,
    limit: int | None,
    seed: int,
    out: Path,
    on_stage: OnStage,
    on_progress: OnProgress,
) -> BenchResult:
    """Score the SQL agent with `model`, after training by `recipe` if there is one, into the folder `out`.

    Args:
        data: "generated", or the path of Spider's folder.
        model: what `raybolt.LightningRL(model=...)` takes.
        recipe: its `model` is the one to train; None scores the model as it is. Supervised fine-tuning is on
            demonstrations of the training questions.
        limit: number of held-out questions; None means all.
        seed: of data, training and sampling.
        out: folder of the run.
        on_stage, on_progress: told what is going on.

    Raises:
        InvalidValue: there is no such data, or `out` holds another run.
    """
    on_stage("Reading the questions")
    train, test = _tasks(data, seed, out, with_train=recipe is not None)
    test = test[:limit]
    agent = wrap(build_agent, reward=score, name="sql")
    if isinstance(recipe, SFT):
        on_stage("Demonstrations")
        record_demonstrations(agent, train, teacher, folder=out, recipe=recipe)
    algorithm = recipe or LightningRL(model=model)
    fit: FitResult | None = None
    with Trainer(agent, algorithm=algorithm, store=out, seed=seed, on_progress=on_progress) as trainer:
        if recipe:
            on_stage("Training")
            fit = trainer.fit(train)
        on_stage("Scoring")
        evaluation = trainer.evaluate(test)
    return BenchResult(
        suite="sql",
        data=data,
        model=model,
        algorithm=recipe_to_dict(recipe) if recipe else None,
        seed=seed,
        accuracy=accuracy(evaluation),
        evaluation=evaluation,
        reward_curve=fit.reward_curve if fit else [],
        seconds=dict(fit.seconds) if fit else {},
        tokens=dict(fit.tokens) if fit else {},
        versions=versions(),
    )


def accuracy(evaluation: EvalResult) -> float:
    """The share of all questions that were answered right; a failed rollout is no right answer."""
    right = sum(reward == 1.0 for reward in evaluation.rewards.values())
    return right / evaluation.num_tasks


def _tasks(data: str, seed: int, out: Path, *, with_train: bool) -> tuple[list[Task], list[Task]]:
    """The tasks to train on (none unless `with_train`) and those to score on."""
    if data == GENERATED:
        tasks = generate(seed, out / "databases")
        return tasks.train, tasks.held_out
    return load_spider(data, split="train") if with_train else [], load_spider(data, split="dev")

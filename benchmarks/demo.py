"""`raybolt demo`: a LangChain SQL agent learns, on this machine, to query databases it has never seen.

A world of databases and questions is generated; a weak teacher demonstrates how to use the tool; the shipped
tiny model is fine-tuned on the demonstrations and then trained by LightningRL on execution reward. Before,
between and after, the agent answers the same questions on held-out databases, greedily.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raybolt.adapters.wrap import wrap
from raybolt.benchmarks.demonstrations import record_demonstrations
from raybolt.benchmarks.report import pick_examples, plot_rewards, trajectory_text, versions, write_json
from raybolt.benchmarks.sql.agent import build_agent
from raybolt.benchmarks.sql.demos import teacher
from raybolt.benchmarks.sql.generate import generate
from raybolt.benchmarks.sql.reward import score
from raybolt.benchmarks.suite import accuracy
from raybolt.env.task import Task
from raybolt.env.trajectory import Trajectory, trajectory_from_spans
from raybolt.rl.recipes import SFT, LightningRL
from raybolt.rl.results import FitResult, Progress
from raybolt.rl.trainer import Trainer
from raybolt.store.local import LocalStore

CONCURRENCY = 48
"""Agent runs at once in each runner: so small a model decodes 48 replies nearly as fast as 16."""

OnStage = Callable[[str], None]
OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, kw_only=True)
class DemoSize:
    """How much of everything the demo does.

    Attributes:
        num_train, num_held_out: questions to train on, and to score on.
        num_demonstrations: training questions that the teacher demonstrates.
        recipe: warm-up and reinforcement learning.
    """

    num_train: int = 1200
    num_held_out: int = 240
    num_demonstrations: int = 800
    recipe: LightningRL = field(
        default_factory=lambda: LightningRL(
            warmup=SFT(lr=1.5e-3, tokens_per_step=320),
            lr=5e-4,
            iterations=28,
            tasks_per_iteration=24,
            rollouts_per_task=8,
            steps_per_epoch=4,
            max_new_tokens=64,
        )
    )


FULL = DemoSize()
SHORT = DemoSize(
    num_train=64,
    num_held_out=24,
    num_demonstrations=32,
    recipe=dataclasses.replace(FULL.recipe, iterations=2, tasks_per_iteration=4, rollouts_per_task=4),
)


@dataclass(frozen=True)
class DemoResult:
    """The demo's report (JSON-able) and its example trajectories as text."""

    report: dict[str, Any]
    examples: list[str]

    def write(self, path: Path) -> None:
        """Write the report as JSON."""
        write_json(path, self.report)


def run_demo(
    *, out: Path, seed: int, control: bool, short: bool, on_stage: OnStage, on_progress: OnProgress
) -> DemoResult:
    """Run the demo into the folder `out` and return what it showed.

    `control` repeats the whole run with learning rate 0 in the reinforcement-learning part; `short` does a
    minute's worth of everything, which proves nothing but that it runs.
    """
    started = time.perf_counter()
    size = SHORT if short else FULL
    on_stage("Generating databases and questions")
    tasks = generate(
        seed, out / "databases", num_train=size.num_train, num_val=0, num_held_out=size.num_held_out
    )
    agent = wrap(build_agent, reward=score, name="sql")

    def run(recipe: LightningRL, folder: Path, name: str) -> FitResult:
        on_stage(f"{name}: demonstrations")
        demonstrated = tasks.train[: size.num_demonstrations]
        record_demonstrations(agent, demonstrated, teacher, folder=folder, recipe=recipe)
        on_stage(name)
        with Trainer(
            agent,
            algorithm=recipe,
            store=folder,
            seed=seed,
            concurrency=CONCURRENCY,
            on_progress=on_progress,
        ) as trainer:
            return trainer.fit(tasks.train, tasks.held_out)

    main = run(size.recipe, out, "Training")
    controlled = (
        run(dataclasses.replace(size.recipe, lr=0.0), out / "control", "Control") if control else None
    )

    plot = out / "reward_curve.png"
    report = _report(main, controlled, tasks.held_out, plot, seed)
    report["seconds"]["total"] = round(time.perf_counter() - started, 1)
    _plot(plot, main, controlled, report)
    return DemoResult(report, asyncio.run(_examples(out, main, tasks.held_out)))


def _report(
    main: FitResult, control: FitResult | None, held_out: Sequence[Task], plot: Path, seed: int
) -> dict[str, Any]:
    scores: dict[str, Any] = {
        "questions": len(held_out),
        "databases": len({task.reference["database"] for task in held_out}),
        **{phase: accuracy(evaluation) for phase, evaluation in main.evaluations.items()},
    }
    if control:
        scores["control"] = accuracy(control.evaluations["rl"])
    paths = {name: str(main.paths[name]) for name in ("checkpoint", "model", "store", "log")}
    return {
        "held_out": scores,
        "failed_rollouts": {phase: result.num_failed for phase, result in main.evaluations.items()},
        "seconds": {name: round(value, 1) for name, value in main.seconds.items()},
        "reward_curve": [round(reward, 4) for reward in main.reward_curve],
        "tokens": dict(main.tokens),
        "paths": {**paths, "plot": str(plot)},
        "versions": versions(),
        "seed": seed,
    }


def _plot(path: Path, main: FitResult, control: FitResult | None, report: dict[str, Any]) -> None:
    curves = {"LightningRL": main.reward_curve}
    if control:
        curves["control: learning rate 0"] = control.reward_curve
    names = {
        "before": "held out, before",
        "sft": "held out, after warm-up",
        "rl": "held out, after LightningRL",
    }
    lines = {name: report["held_out"][key] for key, name in names.items() if key in report["held_out"]}
    plot_rewards(
        path, curves, lines, title=f"A LangChain SQL agent with the tiny model, seed {report['seed']}"
    )


async def _examples(folder: Path, result: FitResult, held_out: Sequence[Task]) -> list[str]:
    """Three questions with the agent's run before training and its run after, as text."""
    before, after = result.evaluations["before"], result.evaluations["rl"]
    questions = {task.task_id: task for task in held_out}
    texts = []
    async with LocalStore(folder) as store:
        for task_id in pick_examples(before.rewards, after.rewards):
            *schema, question = questions[task_id].input["messages"][-1]["content"].splitlines()
            parts = [question, *(f"  {line}" for line in schema)]
            for heading, evaluation in (("before", before), ("after", after)):
                reward = evaluation.rewards[task_id]
                trajectory = await _trajectory(store, evaluation.rollout_ids[task_id][0])
                parts.append(
                    trajectory_text(heading, trajectory, right=None if reward is None else reward == 1.0)
                )
            texts.append("\n".join(parts))
    return texts


async def _trajectory(store: LocalStore, rollout_id: str) -> Trajectory:
    spans = await store.query_spans(rollout_id, "latest")
    attempt_id = spans[0].attempt_id if spans else ""
    return trajectory_from_spans(spans, rollout_id=rollout_id, attempt_id=attempt_id)

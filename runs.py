"""What `raybolt train` and `raybolt eval` do, once their settings are known."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raybolt.adapters.command.agents import command
from raybolt.adapters.wrap import WrappedAgent, wrap
from raybolt.benchmarks.demonstrations import record_demonstrations
from raybolt.env.limits import RunLimits
from raybolt.env.task import Task, load_tasks
from raybolt.objects import load_object
from raybolt.rl.results import EvalResult, FitResult, Progress
from raybolt.rl.run_folder import RunFolder
from raybolt.rl.trainer import Trainer
from raybolt.settings import RunSettings, check_keys
from raybolt.store.errors import InvalidValue

OnProgress = Callable[[Progress], None]
OnStage = Callable[[str], None]


def train_run(settings: RunSettings, *, on_stage: OnStage, on_progress: OnProgress) -> FitResult:
    """Train as `settings` say, into the folder `settings.out`. Raises `InvalidValue` if that is missing."""
    if settings.out is None:
        raise InvalidValue("out is missing: give --out, or 'out:' in a --config file; the run is kept there.")
    agent, train, val = _load(settings)
    if settings.teacher and not settings.resume:
        on_stage("Demonstrations")
        _demonstrate(settings, agent, train)
    on_stage("Training")
    with _trainer(settings, agent, settings.out, on_progress) as trainer:
        return trainer.fit(train, val, resume=settings.resume)


def evaluate_run(settings: RunSettings, *, temperature: float, rollouts_per_task: int) -> EvalResult:
    """The score on the `val` tasks, or on `tasks` if there are none; nothing is trained.

    With `out`, the evaluation's rollouts stay in its next free `eval-N` folder; without, nowhere. `resume`
    scores the model that training left in `out`.
    """
    if settings.resume:
        if settings.out is None:
            raise InvalidValue("resume asks for the model that a run left in its folder: give --out as well.")
        trained = RunFolder(settings.out).trained(settings.algorithm)
        settings = dataclasses.replace(settings, algorithm=trained)
    agent, train, val = _load(settings)
    with _evaluation_folder(settings.out) as folder, _trainer(settings, agent, folder, None) as trainer:
        return trainer.evaluate(val or train, temperature=temperature, rollouts_per_task=rollouts_per_task)


def _load(settings: RunSettings) -> tuple[WrappedAgent, list[Task], list[Task]]:
    reward = load_object(settings.reward, option="reward") if settings.reward else None
    limits = RunLimits(max_calls=settings.max_calls, max_seconds=settings.max_seconds)
    agent = wrap(_agent(settings.agent), reward=reward, limits=limits)
    return agent, load_tasks(settings.tasks), load_tasks(settings.val) if settings.val else []


def _agent(given: str | dict[str, Any]) -> Any:
    """What the `agent` setting names: an object, or the command in a table."""
    if isinstance(given, str):
        return load_object(given, option="agent")
    check_keys(given, {"command", "env", "cwd"}, where="agent")
    if "command" not in given:
        raise InvalidValue("agent is a table without command; write agent: {command: [node, agent.js]}")
    options = {name: given[name] for name in ("env", "cwd") if name in given}
    return command(given["command"], **options)


def _trainer(
    settings: RunSettings, agent: WrappedAgent, folder: Path, on_progress: OnProgress | None
) -> Trainer:
    return Trainer(
        agent,
        algorithm=settings.algorithm,
        store=folder,
        seed=settings.seed,
        num_runners=settings.num_runners,
        concurrency=settings.concurrency,
        on_progress=on_progress,
    )


def _demonstrate(settings: RunSettings, agent: WrappedAgent, tasks: list[Task]) -> None:
    assert settings.teacher is not None
    assert settings.out is not None
    teacher = load_object(settings.teacher, option="teacher")
    record_demonstrations(agent, tasks, teacher, folder=settings.out, recipe=settings.algorithm)


@contextmanager
def _evaluation_folder(out: Path | None) -> Iterator[Path]:
    if out is None:
        with tempfile.TemporaryDirectory(prefix="raybolt-eval-") as temporary:
            yield Path(temporary)
        return
    number = 1
    while (folder := out / f"eval-{number}").exists():
        number += 1
    yield folder

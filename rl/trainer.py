"""The front door: an agent, a recipe and a folder in; a trained model, its log and its store out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from raybolt.env.models import resolve_model
from raybolt.env.task import Task, write_tasks
from raybolt.rl.policies import SHARED, Policies
from raybolt.rl.recipes import SFT, LightningRL, Recipe
from raybolt.rl.results import EvalResult, FitResult, Progress
from raybolt.rl.run_folder import RunFolder
from raybolt.rl.run_store import RunStore
from raybolt.store.errors import InvalidValue

if TYPE_CHECKING:
    from raybolt.env.agent import Agent
    from raybolt.rl.algorithm import LightningRLAlgorithm
    from raybolt.store import HttpStore, RayStore

__all__ = ["EvalResult", "FitResult", "Progress", "Trainer"]


class Trainer:
    """Trains the policy behind an agent, or several, one for some roles each.

    A context manager: leaving it stops the runners and learners, and Ray too if the trainer started it.

    Args:
        agent: what `raybolt.wrap` returned.
        algorithm: the recipe, `LightningRL(...)` or `SFT(...)`.
        store: the run's folder; everything the run leaves is below it. Or a store that runs elsewhere: the
            address of a server (`raybolt store serve`), an `HttpStore`, a `RayStore`. The run works off its
            whole queue, so give each run that trains at the same time a store of its own.
        folder: where checkpoint, model and log go; by default the store's folder or, when the store runs
            elsewhere, `runs/` and its name below the working directory.
        seed: of sampling, of the order of tasks, of all that is random.
        num_runners: env runner processes; by default one for each core, at most 8.
        concurrency: agent runs in flight at once in each runner.
        num_learners: learner processes.
        on_progress: called after every iteration.

    Raises:
        InvalidValue: the model, or another setting, is none; a store that only this process reaches.
    """

    def __init__(
        self,
        agent: Agent,
        *,
        algorithm: Recipe,
        store: str | Path | HttpStore | RayStore,
        folder: str | Path | None = None,
        seed: int = 0,
        num_runners: int | None = None,
        concurrency: int = 16,
        num_learners: int = 1,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        from raybolt.rl.config import RunnerLayout

        if not isinstance(algorithm, LightningRL | SFT):
            raise InvalidValue(
                f"algorithm is {algorithm!r}; give a recipe, raybolt.LightningRL(...) or raybolt.SFT(...)."
            )
        self._layout = RunnerLayout.for_cluster(
            num_runners=num_runners, concurrency=concurrency, num_learners=num_learners
        )
        self._agent = agent
        self._recipe = algorithm
        models = Policies.of(algorithm).models.items()
        self._sources = {policy_id: resolve_model(model) for policy_id, model in models}
        self._store = RunStore(store)
        self._folder = RunFolder(self._store.default_folder if folder is None else Path(folder).resolve())
        self._seed = seed
        self._on_progress = on_progress
        self._algorithm: LightningRLAlgorithm | None = None
        self._owns_ray = False

    def fit(
        self, train: Sequence[Task], val: Sequence[Task] | None = None, *, resume: bool = False
    ) -> FitResult:
        """Trains on `train`, from the model's weights or, with `resume`, from the folder's checkpoint.

        With `val`, the agent is evaluated greedily before training, after the warm-up and at the end.

        Raises:
            InvalidValue: no tasks; the folder holds another run (or, to resume, none or a different one).
            TrainingError: no demonstrations to fine-tune on; every rollout of an iteration failed.
        """
        if not train:
            raise InvalidValue("train is empty; give at least one task.")
        started = time.perf_counter()
        self._folder.begin(recipe=self._recipe, seed=self._seed, num_tasks=len(train), resume=resume)
        write_tasks(self._folder.tasks, train)
        algorithm = self._start()
        algorithm.use_tasks(train)
        if resume and self._folder.checkpoint.exists():
            algorithm.restore_from_path(self._folder.checkpoint)
        run = _Run(self._folder, algorithm.num_done)
        self._train(algorithm, run, val)
        self._save(algorithm, with_model=True)
        return run.result(self._folder, self._store.folder, seconds_now=time.perf_counter() - started)

    def evaluate(
        self, tasks: Sequence[Task], *, temperature: float = 0.0, rollouts_per_task: int = 1
    ) -> EvalResult:
        """The agent's score on `tasks` with the policy as it is now; greedy unless told otherwise."""
        from raybolt.rl.rollouts import SamplingParams

        if not tasks:
            raise InvalidValue("tasks is empty; give at least one task.")
        collected = self._start().evaluate_tasks(
            tasks,
            sampling=SamplingParams(temperature, self._max_new_tokens),
            rollouts_per_task=rollouts_per_task,
            seed=self._seed,
        )
        return EvalResult.of(collected)

    def close(self) -> None:
        """Stops runners, learners and the run's own store, and Ray if the trainer started it."""
        if self._algorithm is not None:
            self._algorithm.stop()
            self._algorithm = None
        self._store.close()
        if self._owns_ray:
            import ray

            ray.shutdown()
            self._owns_ray = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _max_new_tokens(self) -> int:
        recipe = self._recipe if isinstance(self._recipe, LightningRL) else LightningRL()
        return recipe.max_new_tokens

    def _start(self) -> LightningRLAlgorithm:
        """The running algorithm; starts Ray, the store, the runners and the learners when there is none."""
        if self._algorithm is None:
            from raybolt.rl.cluster import check_agent_loads, ensure_ray
            from raybolt.rl.config import build_config

            self._owns_ray = ensure_ray()
            config = build_config(
                agent=self._agent,
                recipe=self._recipe,
                store=self._store.open(),
                layout=self._layout,
                seed=self._seed,
            )
            try:
                self._algorithm = config.build_algo()
            except Exception:
                # RLlib only logs why no runner could start, and then stumbles over having none.
                check_agent_loads(self._agent)
                raise
        return self._algorithm

    def _train(self, algorithm: LightningRLAlgorithm, run: _Run, val: Sequence[Task] | None) -> None:
        with _TensorBoard(self._folder.log) as board:
            if val and algorithm.num_done == 0:
                run.add_evaluation("before", self.evaluate(val))
            while algorithm.num_done < algorithm.num_iterations:
                metrics = algorithm.train()
                progress = _progress(algorithm, metrics)
                board.write(progress.iteration, metrics)
                run.add(progress)
                if self._on_progress:
                    self._on_progress(progress)
                if self._checkpoint_due(algorithm):
                    self._save(algorithm)
                if val and algorithm.num_done == algorithm.num_sft_iterations:
                    run.add_evaluation("sft", self.evaluate(val))
            if val and algorithm.num_iterations > algorithm.num_sft_iterations:
                run.add_evaluation("rl", self.evaluate(val))

    def _checkpoint_due(self, algorithm: LightningRLAlgorithm) -> bool:
        # After the warm-up too: it is what all that follows stands on.
        every = self._recipe.checkpoint_every if isinstance(self._recipe, LightningRL) else 1
        rl_done = algorithm.num_done - algorithm.num_sft_iterations
        return rl_done == 0 or (rl_done > 0 and rl_done % every == 0)

    def _save(self, algorithm: LightningRLAlgorithm, *, with_model: bool = False) -> None:
        from raybolt.rl.checkpoint import replace_folder, save_model_folder

        fresh = self._folder.root / "checkpoint.new"
        algorithm.save_to_path(fresh)
        replace_folder(fresh, self._folder.checkpoint)
        if with_model:
            for policy_id, folder in self._folder.model_folders(self._sources).items():
                source = self._sources[policy_id].path
                save_model_folder(algorithm.model_state(policy_id), source=source, folder=folder)


class _Run:
    """What a run has done so far, mirrored in its folder after every step."""

    def __init__(self, folder: RunFolder, num_done: int) -> None:
        self._folder = folder
        self._history = folder.load_progress(num_done)
        self._seconds_before = sum(progress.seconds["total"] for progress in self._history)
        self._evaluations = folder.load_evaluations() if num_done else {}

    def add(self, progress: Progress) -> None:
        self._history.append(progress)
        self._folder.append_progress(progress)

    def add_evaluation(self, phase: str, result: EvalResult) -> None:
        self._evaluations[phase] = result
        self._folder.save_evaluations(self._evaluations)

    def result(self, folder: RunFolder, store: Path | None, *, seconds_now: float) -> FitResult:
        seconds, tokens = Counter[str](), Counter[str]()
        for progress in self._history:
            seconds.update(progress.seconds)
            tokens.update(progress.tokens)
        return FitResult(
            iterations=len(self._history),
            reward_curve=[p.reward_mean for p in self._history if p.reward_mean is not None],
            seconds={**seconds, "total": self._seconds_before + seconds_now},
            tokens=dict(tokens),
            paths={
                "checkpoint": folder.checkpoint,
                "model": folder.model,
                "log": folder.log,
                **({} if store is None else {"store": store}),
            },
            evaluations=dict(self._evaluations),
        )


class _TensorBoard:
    """Scalars of every iteration, as TensorBoard reads them."""

    def __init__(self, folder: Path) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def write(self, iteration: int, metrics: Mapping[str, Any]) -> None:
        from raybolt.rl.algorithm import learner_metrics, own_metrics

        for name, value in own_metrics(metrics).items():
            self._writer.add_scalar(f"raybolt/{name}", value, iteration)
        for policy_id, numbers in learner_metrics(metrics).items():
            prefix = "learner" if policy_id == SHARED else f"learner/{policy_id}"
            for name, value in numbers.items():
                self._writer.add_scalar(f"{prefix}/{name}", value, iteration)
        self._writer.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()


def _progress(algorithm: LightningRLAlgorithm, metrics: Mapping[str, Any]) -> Progress:
    from raybolt.rl.algorithm import learner_metrics, own_metrics

    ours, learner = own_metrics(metrics), learner_metrics(metrics)
    supervised = algorithm.num_done <= algorithm.num_sft_iterations
    return Progress(
        phase="sft" if supervised else "rl",
        iteration=algorithm.num_done,
        iterations=algorithm.num_iterations,
        reward_mean=None if supervised else ours["reward_mean"],
        loss=_mean_loss(learner),
        losses={policy_id: of["loss"] for policy_id, of in learner.items() if "loss" in of}
        if SHARED not in learner
        else {},
        seconds={
            "total": float(metrics["time_this_iter_s"]),
            **{name: ours[f"seconds_{name}"] for name in ("rollouts", "learning", "sync")},
        },
        tokens={
            "sampled": 0 if supervised else int(ours["tokens_sampled"]),
            "trained": int(sum(of.get("tokens_trained", 0) for of in learner.values())),
        },
        rollouts_failed=0 if supervised else int(ours["rollouts_failed"]),
        groups_held_back=0 if supervised else int(ours["groups_held_back"]),
    )


def _mean_loss(learner: Mapping[str, Mapping[str, float]]) -> float | None:
    """The mean over the tokens of all policies; None if none learned."""
    learned = [of for of in learner.values() if "loss" in of]
    if len(learned) == 1:  # exactly, without rounding
        return learned[0]["loss"]
    num_tokens = sum(of["tokens_trained"] for of in learned)
    return sum(of["loss"] * of["tokens_trained"] for of in learned) / num_tokens if num_tokens else None

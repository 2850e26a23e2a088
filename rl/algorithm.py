"""LightningRL as an RLlib algorithm: run the agent, learn from whole groups, send the weights."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import ray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import ALL_MODULES, COMPONENT_LEARNER, COMPONENT_RL_MODULE
from ray.rllib.utils.annotations import override
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, LEARNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME

from raybolt.env.task import Task, load_tasks
from raybolt.rl.collect import Collector
from raybolt.rl.config import LightningRLConfig
from raybolt.rl.diagnosis import what_is_wrong
from raybolt.rl.errors import TrainingError
from raybolt.rl.outcomes import Collected
from raybolt.rl.plan import UpdatePlan, plan_rl, plan_sft
from raybolt.rl.recipes import SFT, LightningRL
from raybolt.rl.rollouts import SamplingParams
from raybolt.rl.schedule import demonstrations_by_iteration, num_rl_iterations, tasks_of_iteration
from raybolt.rl.training_data import GroupRefs
from raybolt.store.blocking import blocking
from raybolt.store.client import StoreClient
from raybolt.store.errors import InvalidValue
from raybolt.store.http_store import without_tokens
from raybolt.store.types import GroupHandle

log = logging.getLogger(__name__)

RAYBOLT = "raybolt"
"""Key of our own numbers in RLlib's results, and of our state in its checkpoints."""


class LightningRLAlgorithm(Algorithm):
    """One `train()` is one iteration: of supervised fine-tuning first, if the recipe has it, then of RL.

    All it has to remember besides RLlib's own state is `num_done`, the iterations behind it: tasks, seeds
    and demonstrations follow from that, so a restored algorithm goes on as if it had never stopped.
    """

    config: LightningRLConfig

    @classmethod
    @override(Algorithm)
    def get_default_config(cls) -> LightningRLConfig:
        return LightningRLConfig()

    @override(Algorithm)
    def setup(self, config: LightningRLConfig) -> None:
        self.num_done = 0
        self._tasks = load_tasks(config.tasks) if config.tasks else []
        self._collector = Collector(self._store, self._work_queue, self._on_lost)
        super().setup(config)

    def use_tasks(self, tasks: Sequence[Task]) -> None:
        """Sets the training tasks, for an algorithm that was built without."""
        self._tasks = list(tasks)

    @cached_property
    def _demonstrations(self) -> list[list[str]]:
        # Looked up when training starts and not before: they may be recorded after the algorithm is built.
        recipe = self.config.warmup
        return _demonstrations(self._store, recipe, self.config.seed) if recipe else []

    @property
    def num_sft_iterations(self) -> int:
        """Iterations of supervised fine-tuning, which come first."""
        return len(self._demonstrations)

    @property
    def num_iterations(self) -> int:
        """All iterations of the recipe."""
        recipe = self.config.reinforcement
        return self.num_sft_iterations + (num_rl_iterations(recipe, len(self._tasks)) if recipe else 0)

    @override(Algorithm)
    def training_step(self) -> None:
        if self.num_done < self.num_sft_iterations:
            self._fine_tune(self.num_done)
        else:
            self._reinforce(self.num_done - self.num_sft_iterations)
        self.num_done += 1

    def _fine_tune(self, iteration: int) -> None:
        recipe = self.config.warmup
        assert isinstance(recipe, SFT)
        with self._timed("rollouts"):
            handles = [blocking(self._store.get_group(g)) for g in self._demonstrations[iteration]]
        plan = plan_sft(
            recipe,
            num_tokens=sum(handle.num_tokens for handle in handles),
            seed=self._seed(iteration),
            fresh_optimizer=iteration == 0,
        )
        self._learn(handles, plan)
        # Nobody generates before the warm-up ends, except when it is all there is.
        with self._timed("sync"):
            if iteration == self.num_sft_iterations - 1:
                self._sync()

    def _reinforce(self, iteration: int) -> None:
        recipe = self.config.reinforcement
        assert isinstance(recipe, LightningRL)
        picked = tasks_of_iteration(
            iteration,
            num_tasks=len(self._tasks),
            tasks_per_iteration=recipe.tasks_per_iteration,
            seed=self.config.seed,
        )
        with self._timed("rollouts"):
            collected = self._collector.collect(
                [self._tasks[index] for index in picked],
                mode="train",
                rollouts_per_task=recipe.rollouts_per_task,
                sampling=SamplingParams(recipe.temperature, recipe.max_new_tokens),
                seed=self._seed(iteration),
                label=f"iteration-{iteration:05d}",
            )
            handles = self._comparable_groups(collected)
        self._log_outcomes(collected, num_learned=len(handles))
        if handles:
            fresh = iteration == 0
            self._learn(handles, plan_rl(recipe, seed=self._seed(iteration), fresh_optimizer=fresh))
        with self._timed("sync"):
            self._sync()

    def evaluate_tasks(
        self, tasks: Sequence[Task], *, sampling: SamplingParams, rollouts_per_task: int, seed: int
    ) -> Collected:
        """Runs the tasks with the runners' current weights; nothing is learned from it."""
        return self._collector.collect(
            tasks,
            mode="val",
            rollouts_per_task=rollouts_per_task,
            sampling=sampling,
            seed=seed,
            label=f"evaluation-{self.num_done:05d}",
        )

    @property
    def _store(self) -> StoreClient:
        if self.config.store is None:
            raise InvalidValue("store is missing: call config.lightning(store=RayStore.create(folder)).")
        return self.config.store

    def _seed(self, iteration: int) -> int:
        return int(np.random.SeedSequence((self.config.seed, iteration)).generate_state(1)[0])

    def _comparable_groups(self, collected: Collected) -> list[GroupHandle]:
        """The groups of which at least two rollouts succeeded; one alone has nothing to be compared with."""
        comparable = {
            group_id
            for group_id, outcomes in collected.groups.items()
            if sum(not outcome.failed for outcome in outcomes) >= 2
        }
        first = self.num_done == self.num_sft_iterations
        findings = what_is_wrong(self._store, collected, first=first)
        if not collected.rewards:
            raise TrainingError(" ".join([_all_failed(collected), *map(str, findings)]))
        for finding in findings:
            log.warning("Iteration %d teaches nothing. %s", self.num_done + 1, finding)
        return [handle for handle in self._take(collected.groups) if handle.group_id in comparable]

    def _take(self, group_ids: Collection[str]) -> list[GroupHandle]:
        """Handles of the groups that are complete; StoreFull if they do not all have room at once."""
        handles: list[GroupHandle] = []
        while len(handles) < len(group_ids):
            left = len(group_ids) - len(handles)
            more = blocking(self._store.take_groups(left, group_id_in=group_ids))
            if not more:
                break
            handles += more
        return handles

    def _learn(self, handles: Sequence[GroupHandle], plan: UpdatePlan) -> None:
        with self._timed("learning"):
            # The order in which groups completed is chance; the one in which they were asked for is not.
            ordered = sorted(handles, key=lambda handle: _natural(handle.group_id))
            results = self.learner_group.update(
                training_data=GroupRefs.of(ordered),
                plan=plan,
                timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: self.num_done},
            )
        self.metrics.aggregate(results, key=LEARNER_RESULTS)

    def _sync(self) -> None:
        # None waits for earlier pushes and sends this one; Ray's ordering makes the next sample see it.
        self.env_runner_group.sync_weights(
            from_worker_or_learner_group=self.learner_group, inference_only=True, timeout_seconds=None
        )

    def _work_queue(self) -> None:
        results = self.env_runner_group.foreach_env_runner(
            lambda runner: (runner.sample(), runner.get_metrics())[1], local_env_runner=False
        )
        self.metrics.aggregate(results, key=ENV_RUNNER_RESULTS)

    def _on_lost(self, num_rollouts: int) -> None:
        self._log("rollouts_lost", num_rollouts)
        self.restore_env_runners(self.env_runner_group)
        self._broadcast_weights()

    def _broadcast_weights(self) -> None:
        """Gives every runner the learner's weights and waits until they have them.

        `sync_weights` drops a push to a runner that still has one in flight, as all have after a restore.
        """
        component = f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}"
        state = self.learner_group.get_state(components=component, inference_only=True)[COMPONENT_LEARNER]
        ref = ray.put(state)
        self.env_runner_group.foreach_env_runner(
            lambda runner: runner.set_state(ray.get(ref)), local_env_runner=False
        )

    @override(Algorithm)
    def save_to_path(self, *args: Any, **kwargs: Any) -> str:
        with without_tokens():  # RLlib saves the configuration, too, in which the store is
            path: str = super().save_to_path(*args, **kwargs)
        return path

    @override(Algorithm)
    def restore_from_path(self, path: Any, *args: Any, **kwargs: Any) -> None:
        super().restore_from_path(path, *args, **kwargs)
        self._broadcast_weights()

    @override(Algorithm)
    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        state = super().get_state(components, not_components=not_components, **kwargs)
        return {**state, RAYBOLT: {"num_done": self.num_done}}

    @override(Algorithm)
    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        if RAYBOLT in state:
            self.num_done = state[RAYBOLT]["num_done"]

    def model_state(self, policy_id: str) -> dict[str, np.ndarray]:
        """The learner's weights of a policy, by parameter name."""
        state: dict[str, np.ndarray] = self.learner_group.get_weights([policy_id])[policy_id]
        return state

    def _log(self, name: str, value: float) -> None:
        self.metrics.log_value((RAYBOLT, name), value, window=1)

    def _log_outcomes(self, collected: Collected, num_learned: int) -> None:
        outcomes, rewards = collected.outcomes, collected.rewards
        self._log("reward_mean", float(np.mean(rewards)))
        self._log("reward_std", float(np.std(rewards)))
        self._log("rollouts_failed", sum(outcome.failed for outcome in outcomes))
        self._log("groups_held_back", len(collected.groups) - num_learned)
        self._log("calls_per_rollout", float(np.mean([outcome.num_calls for outcome in outcomes])))
        self._log("tokens_sampled", sum(outcome.num_tokens for outcome in outcomes))

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._log(f"seconds_{name}", time.perf_counter() - start)


def _demonstrations(store: StoreClient, recipe: SFT, seed: int) -> list[list[str]]:
    rollouts = blocking(store.query_rollouts(mode="demo", status_in=("succeeded",)))
    group_ids = list(dict.fromkeys(rollout.group_id for rollout in rollouts if rollout.group_id))
    if not group_ids:
        raise TrainingError(
            "Supervised fine-tuning found no demonstrations in the store. Record some first with "
            "raybolt.demonstrate(agent, tasks, teacher, store, codec=...), or give raybolt train a --teacher."
        )
    return demonstrations_by_iteration(group_ids, recipe, seed)


def _all_failed(collected: Collected) -> str:
    errors = Counter((outcome.origin, outcome.error) for outcome in collected.outcomes)
    (origin, error), count = errors.most_common(1)[0]
    return (
        f"All {len(collected.outcomes)} rollouts of this iteration failed: there is nothing to learn from. "
        f"{count} of them, because of the {origin}: {error}"
    )


def _natural(group_id: str) -> tuple[str, int]:
    label, _, index = group_id.rpartition("/")
    return label, int(index) if index.isdigit() else 0


def own_metrics(result: Mapping[str, Any]) -> dict[str, float]:
    """Our own numbers in what `train()` returned."""
    return _numbers(result[RAYBOLT])


def learner_metrics(result: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Each policy's scalar numbers from the learner; empty for an iteration that did not learn."""
    modules = {name: of for name, of in result.get(LEARNER_RESULTS, {}).items() if isinstance(of, Mapping)}
    return {name: _numbers(of) for name, of in modules.items() if name != ALL_MODULES}


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    # RLlib gives NaN for what an iteration did not log, and nests its throughputs.
    return {
        name: float(value)
        for name, value in metrics.items()
        if isinstance(value, int | float | np.number) and np.isfinite(value)
    }

"""Recipes in RLlib's vocabulary: the one place where the two meet."""

from __future__ import annotations

import dataclasses
import logging
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from raybolt.env.codec import codec_for
from raybolt.env.models import resolve_model
from raybolt.env.roles import role_of
from raybolt.env.spaces import Tokens
from raybolt.rl.policies import Policies
from raybolt.rl.recipes import SFT, LightningRL, Recipe
from raybolt.store.errors import InvalidValue

if TYPE_CHECKING:
    from raybolt.env.agent import Agent
    from raybolt.store.client import StoreClient


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunnerLayout:
    """Who gets which part of the machine.

    Rollouts and learning alternate, so runners and learner may each use all cores in their turn; the Ray
    resources only have to add up to what the cluster has, or actors would wait for ever.

    Attributes:
        num_runners: env runner processes.
        concurrency: agent runs in flight at once in each of them.
        num_learners: learner processes; the driver never is one, so that it never holds token data.
        learner_threads: torch threads of a learner.
        cpus_per_runner, cpus_per_learner: Ray's logical CPUs.
    """

    num_runners: int
    concurrency: int = 16
    num_learners: int = 1
    learner_threads: int = 1
    cpus_per_runner: float = 0.5
    cpus_per_learner: float = 0.5

    def __post_init__(self) -> None:
        for name in ("num_runners", "concurrency", "num_learners"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise InvalidValue(f"{name} is {value!r}; give a whole number, 1 or more.")

    @classmethod
    def for_cluster(
        cls, *, num_runners: int | None = None, concurrency: int = 16, num_learners: int = 1
    ) -> RunnerLayout:
        """One runner for each core of this machine (at most 8) unless told otherwise."""
        cores = os.cpu_count() or 1
        return cls(
            num_runners=min(cores, 8) if num_runners is None else num_runners,
            concurrency=concurrency,
            num_learners=num_learners,
            learner_threads=max(1, cores // num_learners),
        )


class LightningRLConfig(AlgorithmConfig):
    """Configuration of `LightningRLAlgorithm`; `lightning(...)` holds all that RLlib has no word for.

    Example:
        >>> config = LightningRLConfig().lightning(agent=agent, recipe=recipe, tasks="train.jsonl", store=s)
        >>> algorithm = config.build_algo()
    """

    def __init__(self, algo_class: type | None = None) -> None:
        if algo_class is None:
            from raybolt.rl.algorithm import LightningRLAlgorithm as algo_class
        super().__init__(algo_class=algo_class)
        self.agent: Agent | None = None
        self.recipe: Recipe = LightningRL()
        self.tasks: str | None = None
        self.store: StoreClient | None = None
        self.layout: RunnerLayout = RunnerLayout(num_runners=1)
        self._set_rllib_defaults()

    def lightning(
        self,
        *,
        agent: Agent = NotProvided,
        recipe: Recipe = NotProvided,
        tasks: str | Path = NotProvided,
        store: StoreClient = NotProvided,
        layout: RunnerLayout = NotProvided,
    ) -> LightningRLConfig:
        """Sets what is trained, how, on which tasks (a JSONL file) and through which store."""
        for name, value in (("agent", agent), ("recipe", recipe), ("store", store), ("layout", layout)):
            if value is not NotProvided:
                setattr(self, name, value)
        if tasks is not NotProvided:
            self.tasks = str(tasks)
        if layout is not NotProvided:
            self._apply_layout(layout)
        if recipe is not NotProvided:
            self._apply_recipe(recipe)
        return self

    @property
    def warmup(self) -> SFT | None:
        """The supervised phase, if the recipe has one."""
        return self.recipe if isinstance(self.recipe, SFT) else self.recipe.warmup

    @property
    def policies_of_recipe(self) -> Policies:
        """The recipe's policies; the ids are those of RLlib's modules."""
        return Policies.of(self.recipe)

    @property
    def reinforcement(self) -> LightningRL | None:
        """The reinforcement-learning phase, if the recipe has one."""
        return self.recipe if isinstance(self.recipe, LightningRL) else None

    def get_default_learner_class(self) -> type:
        from raybolt.rl.learner import LightningRLLearner

        return LightningRLLearner

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return _module_spec(self.recipe.model)

    def _apply_layout(self, layout: RunnerLayout) -> None:
        self.env_runners(num_env_runners=layout.num_runners, num_cpus_per_env_runner=layout.cpus_per_runner)
        self.learners(num_learners=layout.num_learners, num_cpus_per_learner=layout.cpus_per_learner)

    def _apply_recipe(self, recipe: Recipe) -> None:
        # Only the first learning rate: each update carries its own in its plan.
        self.training(lr=float(recipe.lr))
        policies = self.policies_of_recipe
        # RLlib asks for spaces of the environment, too; nothing reads them where modules have their own.
        tokens = _tokens(next(iter(policies.models.values())))
        self.environment(observation_space=tokens, action_space=tokens)
        self.multi_agent(policy_mapping_fn=partial(_policy_of_agent, policies))
        if not policies.shared:
            specs = {policy_id: _module_spec(model) for policy_id, model in policies.models.items()}
            self.multi_agent(policies=list(specs))
            self.rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs=specs))

    def _set_rllib_defaults(self) -> None:
        from raybolt.rl.connectors import learner_connectors
        from raybolt.rl.env_runner import AgentEnvRunner

        self.framework("torch")
        self.environment(
            disable_env_checking=True,
            normalize_actions=False,
            clip_actions=False,
        )
        self.env_runners(
            env_runner_cls=AgentEnvRunner,
            # A local runner would be one more copy of the model, in the driver.
            create_local_env_runner=False,
            add_default_connectors_to_env_to_module_pipeline=False,
            add_default_connectors_to_module_to_env_pipeline=False,
            # Rollouts take as long as they take: their limits are the agent's own.
            sample_timeout_s=None,
        )
        self.learners(learner_connector=learner_connectors, add_default_connectors_to_learner_pipeline=False)
        self.fault_tolerance(
            restart_failed_env_runners=True,
            # RLlib's default of a minute is for environments that crash; ours catch their own errors, so
            # a dead runner is a dead process, and waiting would only lose time.
            delay_between_env_runner_restarts_s=0.0,
        )
        self.reporting(min_time_s_per_iteration=0, min_train_timesteps_per_iteration=0)


def _tokens(model: str) -> Tokens:
    codec = codec_for(model)
    return Tokens(codec.vocab_size, codec.max_context)


def _module_spec(model: str) -> RLModuleSpec:
    from raybolt.rl.module import LLMModule

    tokens = _tokens(model)
    return RLModuleSpec(
        module_class=LLMModule,
        observation_space=tokens,
        action_space=tokens,
        model_config={"model": resolve_model(model).path},
    )


def _policy_of_agent(policies: Policies, agent_id: str, episode: Any = None, **kwargs: Any) -> str:
    """RLlib's `policy_mapping_fn`."""
    return policies.of_role(role_of(agent_id))


def build_config(
    *, agent: Agent, recipe: Recipe, store: StoreClient, layout: RunnerLayout, seed: int
) -> LightningRLConfig:
    """The RLlib configuration of one training run."""
    config = LightningRLConfig().lightning(agent=agent, recipe=recipe, store=store, layout=layout)
    # It tells at every start that its new API stack, which all of this is made for, is the new API stack.
    logging.getLogger("ray.rllib.algorithms.algorithm_config").setLevel(logging.ERROR)
    return config.debugging(seed=seed, log_level="ERROR")

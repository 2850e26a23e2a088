"""The env runner: one process that drives many agent runs at once with one engine."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Collection, Coroutine
from typing import Any

import gymnasium as gym
import ray
import torch
from ray.rllib.core import COMPONENT_RL_MODULE
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.utils.annotations import override
from ray.rllib.utils.checkpoints import Checkpointable
from ray.rllib.utils.metrics import (
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_EPISODES,
    NUM_EPISODES_LIFETIME,
    WEIGHTS_SEQ_NO,
)

from raybolt.env.codec import ChatCodec, codec_for
from raybolt.rl.engines.transformers import TransformersEngine
from raybolt.rl.rollouts import RolloutCrew, Speaker


class AgentEnvRunner(EnvRunner, Checkpointable):
    """Runs the rollouts that the store has queued, with the weights it was last given.

    `sample` returns nothing: what happened is in the store. Every policy has an engine, which generates with
    the RLModule's own model, so new weights are in use as soon as `set_state` has copied them.
    """

    def __init__(self, *, config: Any, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        # Runners share the cores; more threads than one each would only contend.
        torch.set_num_threads(1)
        self._weights_seq_no = 0
        self._loop = _LoopThread(f"raybolt-runner-{self.worker_index}")
        self.make_module()
        self._crew = self._make_crew()

    @override(EnvRunner)
    def make_module(self) -> None:
        spec = self.config.get_multi_rl_module_spec(spaces=self.get_spaces(), inference_only=True)
        self.module = spec.build()
        for policy_id in self.module.keys():  # noqa: SIM118 (a MultiRLModule is no mapping)
            self.module[policy_id].eval()

    def _make_crew(self) -> RolloutCrew:
        config, policies = self.config, self.config.policies_of_recipe
        self._codecs = {policy_id: codec_for(model) for policy_id, model in policies.models.items()}
        self._speakers = {
            policy_id: Speaker(
                engine=TransformersEngine(self.module[policy_id].llm, max_batch=config.layout.concurrency),
                stop_ids=codec.stop_ids,
                policy=None if policies.shared else policy_id,
            )
            for policy_id, codec in self._codecs.items()
        }
        return RolloutCrew(
            make_env=lambda: config.agent.env(codec=self._codec_of),
            store=config.store,
            speaker_of=self._speaker_of,
            concurrency=config.layout.concurrency,
            worker_id=f"runner-{self.worker_index}",
        )

    def _speaker_of(self, role: str) -> Speaker:
        return self._speakers[self.config.policy_mapping_fn(role, None)]

    def _codec_of(self, role: str) -> ChatCodec:
        return self._codecs[self.config.policy_mapping_fn(role, None)]

    @override(EnvRunner)
    def sample(self, **kwargs: Any) -> None:
        """Runs every rollout that the store has queued, and those queued again meanwhile."""
        crew = self._crew
        finished, calls = crew.num_finished, crew.num_calls
        self._loop.run(crew.drain())
        self.metrics.log_value(NUM_EPISODES, crew.num_finished - finished, reduce="sum")
        self.metrics.log_value(NUM_EPISODES_LIFETIME, crew.num_finished - finished, reduce="lifetime_sum")
        self.metrics.log_value(NUM_ENV_STEPS_SAMPLED, crew.num_calls - calls, reduce="sum")
        self.metrics.log_value(NUM_ENV_STEPS_SAMPLED_LIFETIME, crew.num_calls - calls, reduce="lifetime_sum")
        self.metrics.log_value(WEIGHTS_SEQ_NO, self._weights_seq_no, window=1)

    @override(EnvRunner)
    def get_metrics(self) -> dict[str, Any]:
        return self.metrics.reduce()

    @override(EnvRunner)
    def get_spaces(self) -> dict[str, tuple[gym.Space, gym.Space]]:
        # Those of the modules are in their specs.
        spaces = (self.config.observation_space, self.config.action_space)
        return dict.fromkeys((INPUT_ENV_SPACES, INPUT_ENV_SINGLE_SPACES), spaces)

    @override(EnvRunner)
    def assert_healthy(self) -> None:
        assert self.module is not None

    @override(Checkpointable)
    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        state: dict[str, Any] = {WEIGHTS_SEQ_NO: self._weights_seq_no}
        if self._check_component(COMPONENT_RL_MODULE, components, not_components):
            state[COMPONENT_RL_MODULE] = self.module.get_state(
                components=self._get_subcomponents(COMPONENT_RL_MODULE, components),
                not_components=self._get_subcomponents(COMPONENT_RL_MODULE, not_components),
                **kwargs,
            )
        return state

    @override(Checkpointable)
    def set_state(self, state: Any) -> None:
        """Takes new weights, unless it has them already; sequence number 0 (or none) always takes them."""
        if isinstance(state, ray.ObjectRef):
            state = ray.get(state)
        if COMPONENT_RL_MODULE not in state:
            return
        version = state.get(WEIGHTS_SEQ_NO, 0)
        if version and version == self._weights_seq_no:
            return
        module_state = state[COMPONENT_RL_MODULE]
        if isinstance(module_state, ray.ObjectRef):
            module_state = ray.get(module_state)
        self.module.set_state(module_state)
        self._weights_seq_no = version
        for speaker in self._speakers.values():
            speaker.engine.set_weights_version(version)

    @override(Checkpointable)
    def get_ctor_args_and_kwargs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (), {"config": self.config}

    @override(Checkpointable)
    def get_checkpointable_components(self) -> list[tuple[str, Any]]:
        return [(COMPONENT_RL_MODULE, self.module)]

    @override(EnvRunner)
    def stop(self) -> None:
        for speaker in self._speakers.values():
            speaker.engine.close()
        self._loop.close()


class _LoopThread:
    """An event loop in a thread of its own, which outlives the calls: engine and clients are bound to it."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """The coroutine's result; an interrupt (Ctrl-C, `ray.cancel`) cancels it."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):  # closed already
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)

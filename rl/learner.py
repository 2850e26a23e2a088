"""The learner: optimizer steps of accumulated micro-batches, in step across all learners."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchDDPRLModule
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.annotations import override

from raybolt.rl.batching import MicroBatch, empty_micro_batch
from raybolt.rl.losses import LossOutput, nll_loss, policy_gradient_loss
from raybolt.rl.plan import UpdatePlan
from raybolt.rl.training_data import GroupRefs
from raybolt.store.http_store import without_tokens


@dataclass(frozen=True, slots=True)
class StepPosition:
    """Where in its optimizer step a micro-batch stands.

    Attributes:
        policy_id: whose step it is; every policy has an optimizer of its own.
        first: it starts from zero gradients.
        last: the optimizer steps after it.
        learns: any learner has tokens in this step; without, the optimizer must not move (Adam would, by
            its momentum).
        weight_scale: turns a sum over this learner's tokens into a share of the mean over all learners'.
    """

    policy_id: str
    first: bool
    last: bool
    learns: bool
    weight_scale: float


class LightningRLLearner(TorchLearner):
    """Updates language models from whole groups, as the `UpdatePlan` of each update says.

    Policies take their steps one after the other, each from its own calls alone.

    With several learners every rank holds other groups. Three things keep them together: the number of
    steps comes from the plan, the number of micro-batches of a step is the largest of any rank's (the
    others fill up with empty ones), and a step's mean is over the tokens of all ranks.
    """

    @override(TorchLearner)
    def build(self) -> None:
        # Ray gives an actor one torch thread for each of its logical CPUs; learners and runners take
        # turns, so a learner may use more cores than it reserves.
        torch.set_num_threads(self.config.layout.learner_threads)
        super().build()

    @override(TorchLearner)
    def save_to_path(self, *args: Any, **kwargs: Any) -> str:
        with without_tokens():  # as in the algorithm: this is another process
            path: str = super().save_to_path(*args, **kwargs)
        return path

    @override(TorchLearner)
    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        params = self.get_parameters(self.module[module_id])
        optimizer = torch.optim.AdamW(params, lr=float(config.lr), weight_decay=0.0)
        self.register_optimizer(
            module_id=module_id, optimizer=optimizer, params=params, lr_or_lr_schedule=float(config.lr)
        )

    @override(TorchLearner)
    def _create_iterator_if_necessary(
        self, *, training_data: GroupRefs, plan: UpdatePlan, **kwargs: Any
    ) -> Iterator[MultiAgentBatch]:
        """The micro-batches of all steps of all epochs; keeps `_plan` and `_position` for `_update`."""
        self._plan = plan
        self._prepare_optimizers(plan)
        shared_data: dict[str, Any] = {"plan": plan, "policy_of": self._policy_of}
        self._learner_connector(
            rl_module=self.module,
            batch={},
            episodes=training_data.episodes,
            shared_data=shared_data,
            metrics=self.metrics,
        )
        for _ in range(plan.num_epochs):
            for step in shared_data["steps"]:
                for policy_id, micro_batches in step.items():
                    yield from self._micro_batches(policy_id, micro_batches)

    def _policy_of(self, role: str) -> str:
        policy_id: str = self.config.policy_mapping_fn(role, None)
        return policy_id

    def _micro_batches(self, policy_id: str, step: list[MicroBatch]) -> Iterator[MultiAgentBatch]:
        num_tokens, num_micro_batches = self._across_learners(sum(mb.num_entries for mb in step), len(step))
        # RLlib expects at least one batch of an update, also of one in which no learner found anything.
        fillers = [empty_micro_batch()] * (max(1, num_micro_batches) - len(step))
        micro_batches = step + fillers
        for index, micro_batch in enumerate(micro_batches):
            self._position = StepPosition(
                policy_id=policy_id,
                first=index == 0,
                last=index == len(micro_batches) - 1,
                learns=num_tokens > 0,
                # DDP averages gradients over the learners; times their number makes that a sum.
                weight_scale=max(1, self.config.num_learners) / max(1, num_tokens),
            )
            yield self._to_batch(micro_batch)

    def _across_learners(self, num_tokens: int, num_micro_batches: int) -> tuple[int, int]:
        """The tokens of all learners together, and the most micro-batches that any of them has."""
        if self.config.num_learners < 2:
            return num_tokens, num_micro_batches
        total = torch.tensor(num_tokens, device=self._device)
        most = torch.tensor(num_micro_batches, device=self._device)
        dist.all_reduce(total, op=dist.ReduceOp.SUM)
        dist.all_reduce(most, op=dist.ReduceOp.MAX)
        return int(total), int(most)

    def _to_batch(self, micro_batch: MicroBatch) -> MultiAgentBatch:
        columns = {name: tensor.to(self._device) for name, tensor in micro_batch.tensors().items()}
        columns["weight"] = columns["weight"] * self._position.weight_scale
        columns["temperature"] = torch.tensor([self._plan.temperature])
        batches = {self._position.policy_id: SampleBatch(columns)}
        return MultiAgentBatch(batches, env_steps=micro_batch.num_entries)

    @override(TorchLearner)
    def _update(self, batch: Mapping[str, Any], **kwargs: Any) -> tuple[Any, Any, Any]:
        """Adds one micro-batch's gradients, and steps the optimizer after the last of its step."""
        position = self._position
        if position.first:
            for optimizer in self._optimizer_parameters:
                optimizer.zero_grad(set_to_none=True)
        with self._gradient_exchange(position.last):
            forward_out = self.module.forward_train(batch)
            losses = self.compute_losses(fwd_out=forward_out, batch=batch)
            sum(losses.values()).backward()
        if position.last and position.learns:
            # Only this policy has any: the others' were cleared when its step began, and they stay put.
            learned = {ref: param for ref, param in self._params.items() if param.grad is not None}
            norm = torch.nn.utils.clip_grad_norm_(learned.values(), self._plan.grad_clip)
            self.metrics.log_value((position.policy_id, "grad_norm"), norm.item(), window=1)
            gradients = {ref: param.grad for ref, param in learned.items()}
            self.apply_gradients(self.postprocess_gradients(gradients))
        return forward_out, losses, {}

    @contextlib.contextmanager
    def _gradient_exchange(self, exchange: bool) -> Iterator[None]:
        """Learners exchange gradients once a step, in the backward pass of its last micro-batch."""
        with contextlib.ExitStack() as stack:
            for module in self.module.values():
                if isinstance(module, TorchDDPRLModule) and not exchange:
                    stack.enter_context(module.no_sync())
            yield

    @override(TorchLearner)
    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: Mapping[str, Any], fwd_out: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        output = self._loss(batch, fwd_out)
        self._log_loss(module_id, output, fwd_out["entropy"], batch["weight"])
        return output.loss

    def _loss(self, batch: Mapping[str, Any], fwd_out: Mapping[str, torch.Tensor]) -> LossOutput:
        plan = self._plan
        if plan.loss == "nll":
            return nll_loss(fwd_out["logps"], weight=batch["weight"])
        return policy_gradient_loss(
            fwd_out["logps"],
            old_logps=batch["old_logps"],
            advantages=batch["advantages"],
            weight=batch["weight"],
            clip_low=plan.clip_low,
            clip_high=plan.clip_high,
        )

    def _log_loss(
        self, module_id: str, output: LossOutput, entropy: torch.Tensor, weight: torch.Tensor
    ) -> None:
        """Logs this micro-batch's share of the step's means; RLlib sums the shares over the update.

        With several steps or epochs in an update, the sums are divided by their number beforehand.
        """
        if not self._position.learns:
            return
        with torch.no_grad():
            shares = {**output.metrics, "loss": output.loss, "entropy": (weight * entropy).sum()}
        num_steps = self._plan.num_steps * self._plan.num_epochs
        for name, share in shares.items():
            self.metrics.log_value((module_id, name), share.item() / num_steps, reduce="sum")

    def _prepare_optimizers(self, plan: UpdatePlan) -> None:
        for module_id in self.module.keys():  # noqa: SIM118 (a MultiRLModule is no mapping)
            for _, optimizer in self.get_optimizers_for_module(module_id):
                if plan.fresh_optimizer:
                    optimizer.state.clear()
                for group in optimizer.param_groups:
                    group["lr"] = plan.lr_of(module_id)

"""The policy network as an RLModule: a Hugging Face causal language model."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.utils.annotations import override

from raybolt.rl.checkpoint import load_causal_lm
from raybolt.rl.token_logps import forward_logps
from raybolt.store.errors import RayboltError

# NumPy has no bfloat16, and RLlib's own conversion fails on it: such tensors travel as their bits.
_BITS = {torch.bfloat16: torch.int16}


class LLMModule(TorchRLModule, InferenceOnlyAPI):
    """A causal language model that RLlib can train, checkpoint and hand to its env runners.

    `model_config = {"model": path}`: a folder that `AutoModelForCausalLM.from_pretrained` loads. On env
    runners the engine generates with `llm` itself, so that a change of weights needs no second copy.
    """

    llm: torch.nn.Module

    @override(TorchRLModule)
    def setup(self) -> None:
        self.llm = load_causal_lm(self.model_config["model"])
        # A head tied to the embedding is one tensor under two names; the second would double what a
        # sync sends and, loaded after the first, could undo it.
        self._tied_keys = frozenset(
            name for name in self.state_dict() if name.removeprefix("llm.") in _tied_names(self.llm)
        )

    @override(TorchRLModule)
    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, torch.Tensor]:
        """Log-probability and entropy of every loss entry of a packed micro-batch (see `rl.batching`)."""
        logps, entropy = forward_logps(self.llm, batch, temperature=float(batch["temperature"]))
        return {"logps": logps, "entropy": entropy}

    @override(InferenceOnlyAPI)
    def get_non_inference_attributes(self) -> list[str]:
        return []

    @override(TorchRLModule)
    def get_state(
        self, components: str | Collection[str] | None = None, **kwargs: Any
    ) -> dict[str, np.ndarray]:
        """Parameter name to array, each shared tensor once, bfloat16 as the int16 of its bits."""
        return {
            name: _to_numpy(tensor)
            for name, tensor in self.state_dict().items()
            if name not in self._tied_keys
        }

    @override(TorchRLModule)
    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Copies `state` into the parameters in place, so that whoever shares them sees it.

        Raises:
            RayboltError: a parameter is missing, unknown, or of another shape: another model's state.
        """
        own = {name: t for name, t in self.state_dict().items() if name not in self._tied_keys}
        if own.keys() != state.keys():
            strange = sorted(own.keys() ^ state.keys())
            raise RayboltError(
                f"These weights belong to another model: {len(strange)} parameters are in only one of the "
                f"two, for example {strange[0]!r}. Resume with the model that the checkpoint was made with."
            )
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(_from_numpy(state[name], tensor.dtype))


def _tied_names(llm: torch.nn.Module) -> set[str]:
    """Names in `state_dict` of tensors that appear there a second time, all but each one's first."""
    first_name: dict[tuple[int, torch.Size], str] = {}
    tied = set()
    for name, tensor in llm.state_dict().items():
        if tensor.numel() and first_name.setdefault((tensor.data_ptr(), tensor.shape), name) != name:
            tied.add(name)
    return tied


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    return tensor.view(_BITS.get(tensor.dtype, tensor.dtype)).numpy().copy()


def _from_numpy(array: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    # A copy, since arrays out of Ray's object store are read-only and torch warns of such.
    tensor = torch.from_numpy(np.array(array))
    return tensor.view(dtype) if dtype in _BITS else tensor.to(dtype)

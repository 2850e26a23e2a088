"""Language models on disk: loading one, and saving a trained one as a Hugging Face folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch


def load_causal_lm(path: str | Path) -> torch.nn.Module:
    """The causal language model in the folder `path`, in float32, with gradients and in training mode.

    Float32 because a policy gradient with small learning rates is lost in bfloat16's rounding; attention is
    PyTorch's own, the one that takes the explicit masks of the token tree and of the engine.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(str(path), dtype=torch.float32, attn_implementation="sdpa")
    # Loaded weights are a view of the file: overwritten while it is in use, it would kill the process.
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model


def save_model_folder(state: dict[str, np.ndarray], *, source: str | Path, folder: Path) -> Path:
    """Writes the weights `state` of an `LLMModule` with the tokenizer of `source` as a Hugging Face folder.

    The folder appears under its name only when it is complete: a crash leaves the earlier one.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(str(source)), dtype=torch.float32)
    weights = {name.removeprefix("llm."): torch.from_numpy(np.array(a)) for name, a in state.items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected, unexpected
    model.tie_weights()
    assert set(missing) <= set(_tied_keys(model)), missing
    fresh = folder.with_name(folder.name + ".new")
    disable_progress_bar()
    model.save_pretrained(fresh)
    AutoTokenizer.from_pretrained(str(source)).save_pretrained(fresh)
    replace_folder(fresh, folder)
    return folder


def replace_folder(fresh: Path, folder: Path) -> None:
    """Puts `fresh` in the place of `folder`, keeping the old one until the new one stands there."""
    import shutil

    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)


def _tied_keys(model: Any) -> list[str]:
    tied = model._tied_weights_keys or {}
    return list(tied)

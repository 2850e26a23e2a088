"""Keys and values of many sequences in one preallocated block, as a Transformers cache.

Shapes: N layers, S slots, H key/value heads, C columns (token positions), D head dimension; a forward pass
has B rows of Q query tokens. Row b of a pass is slot `first + b`, so keys are read as a view, never copied.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import Cache, DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer

from raybolt.rl.errors import UnsupportedModel

_MIN_COLUMNS = 128


class SlotCache(Cache):
    """Key/value storage that a forward pass writes to and reads from, after `aim` said where.

    Columns grow by doubling as longer sequences come; nothing else reallocates.
    """

    def __init__(
        self, config: PretrainedConfig, *, num_slots: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        super().__init__(layers=[])
        self.num_slots = num_slots
        self._num_columns = 0
        num_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        # Zeros, not empty: what a mask hides is still multiplied by a weight of zero, and 0 · NaN is NaN.
        self._block = torch.zeros(
            (config.num_hidden_layers, 2, num_slots, num_heads, 0, head_dim), dtype=dtype, device=device
        )
        self._rows = slice(0, 0)
        self._num_read = 0
        self._written = torch.empty(0, dtype=torch.int64, device=device)

    def reserve(self, num_columns: int) -> None:
        """Makes room for sequences of `num_columns` tokens."""
        if num_columns <= self._num_columns:
            return
        old, self._num_columns = self._num_columns, max(2 * self._num_columns, num_columns, _MIN_COLUMNS)
        grown = self._block.new_zeros((*self._block.shape[:4], self._num_columns, self._block.shape[5]))
        grown[..., :old, :] = self._block
        self._block = grown

    def aim(self, first: int, columns: torch.Tensor, num_read: int) -> None:
        """The next forward pass writes row b, query q to slot first + b, `columns[b, q]`, and reads the
        first `num_read` columns of its slots.

        Args:
            columns: int64[B, Q].
        """
        num_rows = columns.shape[0]
        num_heads = self._block.shape[3]
        self.reserve(num_read)
        self._rows = slice(first, first + num_rows)
        self._num_read = num_read
        slots = torch.arange(first, first + num_rows, device=columns.device)
        heads = torch.arange(num_heads, device=columns.device)
        starts = (slots[:, None] * num_heads + heads) * self._num_columns
        self._written = (starts[:, :, None] + columns[:, None, :]).flatten()

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Stores [B, H, Q, D] where `aim` said; returns keys and values [B, H, num_read, D] as views."""
        head_dim = self._block.shape[5]
        keys, values = self._block[layer_idx]
        keys.view(-1, head_dim).index_copy_(0, self._written, key_states.reshape(-1, head_dim))
        values.view(-1, head_dim).index_copy_(0, self._written, value_states.reshape(-1, head_dim))
        return keys[self._rows, :, : self._num_read], values[self._rows, :, : self._num_read]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns that the pass reads. Positions and mask are always given, so this decides nothing."""
        return self._num_read

    def copy(self, source: int, target: int, length: int) -> None:
        """Copies the first `length` columns of one slot into another."""
        self._block[:, :, target, :, :length] = self._block[:, :, source, :, :length]

    def save(self, slot: int, length: int) -> torch.Tensor:
        """A copy [N, 2, H, length, D] of the first `length` columns of a slot."""
        return self._block[:, :, slot, :, :length].clone()

    def load(self, slot: int, saved: torch.Tensor, length: int) -> None:
        """Puts the first `length` columns of what `save` returned into a slot."""
        self.reserve(length)
        self._block[:, :, slot, :, :length] = saved[:, :, :, :length]


def check_supported(model: Any) -> None:
    """Refuses models whose attention is not plain full attention under an explicit mask.

    Raises:
        UnsupportedModel: with what the model has, and what to do.
    """
    config = model.config
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedModel(f"{type(model).__name__} is an encoder-decoder; use a decoder-only model.")
    # Transformers' own cache says, layer by layer, what kind of attention the configuration asks for.
    layers = DynamicCache(config=config).layers
    strange = sorted({type(layer).__name__ for layer in layers if type(layer) is not DynamicLayer})
    if strange or len(layers) != config.num_hidden_layers:
        raise UnsupportedModel(
            f"{type(model).__name__} does not use full attention in each layer "
            f"({', '.join(strange) or 'layers share keys and values'}). TransformersEngine runs Llama, "
            "Qwen2, Qwen3, SmolLM2 and the like; where its window covers your context, load the model with "
            "sliding_window=None in its config."
        )
    if config._attn_implementation not in ("sdpa", "eager"):
        raise UnsupportedModel(
            f"The model was loaded with attn_implementation={config._attn_implementation!r}, which takes no "
            "explicit attention mask. Load it with attn_implementation='sdpa'."
        )

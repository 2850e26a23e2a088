"""Trees of tokens packed into rectangular micro-batches within a token budget.

Shapes: B rows, T columns, N loss entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from raybolt.rl.merge import LossCall, TokenTree, merge_calls
from raybolt.store.errors import InvalidValue

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """What one forward and backward pass takes.

    Attributes:
        input_ids: int64[B, T]; a row holds one tree or more, then filler.
        position_ids: int64[B, T].
        end: int64[B, T]; within a row, token i attends to j iff j ≤ i < end[j]. Filler sees only itself.
        source: int64[N], flat index b · T + t of the token whose logits predict the entry's token.
        target: int64[N], the entry's token.
        advantages, old_logps: float32[N].
        weight: float32[N], all 1; scale it to make of the loss's weighted sum a mean over several batches.
    """

    input_ids: np.ndarray
    position_ids: np.ndarray
    end: np.ndarray
    source: np.ndarray
    target: np.ndarray
    advantages: np.ndarray
    old_logps: np.ndarray
    weight: np.ndarray

    @property
    def num_entries(self) -> int:
        return len(self.target)

    @property
    def num_tokens(self) -> int:
        """B · T, filler included."""
        return self.input_ids.size

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every attribute as a tensor, by name."""
        import torch

        return {name: torch.from_numpy(getattr(self, name)) for name in self.__slots__}


def pack(
    groups: Iterable[Sequence[LossCall]], *, token_budget: int, share_prefixes: bool = True
) -> list[MicroBatch]:
    """Micro-batches that hold every call of `groups` once, each of at most `token_budget` tokens.

    Calls are merged within their group (see `rl.merge`). Only a single sequence longer than the budget
    makes a larger batch, of one row.

    Raises:
        InvalidValue: `token_budget` is not positive.
    """
    if token_budget < 1:
        raise InvalidValue(f"token_budget must be at least 1; it is {token_budget}. Try 8192.")
    trees = [
        tree
        for calls in groups
        for tree in merge_calls(calls, max_tokens=token_budget, share_prefixes=share_prefixes)
    ]
    return [_micro_batch(rows) for rows in _first_fit_decreasing(trees, token_budget)]


def empty_micro_batch() -> MicroBatch:
    """One token and no loss entries: a pass with a loss and gradients of zero."""
    zero = np.zeros((1, 1), np.int64)
    no_index, no_value = np.zeros(0, np.int64), np.zeros(0, np.float32)
    return MicroBatch(zero, zero, zero + 1, no_index, no_index, no_value, no_value, no_value)


def _first_fit_decreasing(trees: list[TokenTree], token_budget: int) -> list[list[list[TokenTree]]]:
    """For each batch its rows, for each row its trees.

    The largest tree left sets the columns of the next batch, and with it the number of rows; the others
    go, largest first, to the first row with room (Johnson 1973). Ties keep their order.
    """
    batches = []
    waiting = sorted(trees, key=lambda tree: -tree.num_tokens)
    while waiting:
        num_columns = waiting[0].num_tokens
        room = np.full(max(1, token_budget // num_columns), num_columns)
        rows: list[list[TokenTree]] = [[] for _ in room]
        left = []
        for tree in waiting:
            fits = np.flatnonzero(room >= tree.num_tokens)
            if fits.size:
                rows[fits[0]].append(tree)
                room[fits[0]] -= tree.num_tokens
            else:
                left.append(tree)
        batches.append([row for row in rows if row])
        waiting = left
    return batches


def _micro_batch(rows: list[list[TokenTree]]) -> MicroBatch:
    num_columns = max(sum(tree.num_tokens for tree in row) for row in rows)
    input_ids = np.zeros((len(rows), num_columns), np.int64)
    position_ids = np.zeros_like(input_ids)
    end = np.tile(np.arange(1, num_columns + 1), (len(rows), 1))
    sources, targets, trees = [], [], []
    for b, row in enumerate(rows):
        start = 0
        for tree in row:
            place = slice(start, start + tree.num_tokens)
            input_ids[b, place] = tree.token_ids
            position_ids[b, place] = tree.position_ids
            end[b, place] = tree.end + start
            sources.append(b * num_columns + start + tree.parent[tree.node].astype(np.int64))
            targets.append(tree.token_ids[tree.node].astype(np.int64))
            trees.append(tree)
            start = place.stop
    source = np.concatenate(sources)
    return MicroBatch(
        input_ids=input_ids,
        position_ids=position_ids,
        end=end,
        source=source,
        target=np.concatenate(targets),
        advantages=np.concatenate([tree.advantages for tree in trees]),
        old_logps=np.concatenate([tree.old_logps for tree in trees]),
        weight=np.ones(len(source), np.float32),
    )

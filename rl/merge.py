"""Calls that share a beginning become one tree of tokens, each computed once.

The prompts of a group's first calls are the same, and a run's second call extends its first, so most tokens
of a group's sequences are repetitions. A tree keeps each distinct prefix once:

    ids of four sequences      depth first          end (exclusive, of each node's subtree)
    1 2 3                      1 2 3 4 5 6 3        7 6 6 5 5 6 7
    1 2 3 4 5
    1 2 6              ─►      1 ─ 2 ─ 3 ─ 4 ─ 5    attention: i sees j  ⇔  j ≤ i < end[j],
    1 3                        │   └ 6              that is, j is an ancestor of i or i itself
                               └ 3

With positions counted by depth, every token gets the keys, values and logits that it has in each of its
sequences alone, so that losses and gradients are the same up to rounding. Needs full attention; for other
models `share_prefixes=False` merges only calls that extend one another, which is a plain causal sequence.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class LossCall:
    """A response to learn from.

    Attributes:
        prompt_ids: int32[P], P ≥ 1.
        response_ids: int32[R].
        advantages: float32[R]; what they are, a credit estimator decides. Not read by supervised losses.
        old_logps: float32[R], of the sampling policy. Not read by supervised losses.
    """

    prompt_ids: np.ndarray
    response_ids: np.ndarray
    advantages: np.ndarray
    old_logps: np.ndarray

    @classmethod
    def demonstration(cls, prompt_ids: np.ndarray, response_ids: np.ndarray) -> LossCall:
        """A response to imitate: no advantages, no sampling policy."""
        zeros = np.zeros(len(response_ids), np.float32)
        return cls(prompt_ids, response_ids, zeros, zeros)

    @property
    def num_tokens(self) -> int:
        """Prompt and response together, as trained alone."""
        return len(self.prompt_ids) + len(self.response_ids)


@dataclass(frozen=True, slots=True, eq=False)
class TokenTree:
    """T tokens in depth-first order, and N loss entries on them.

    Attributes:
        token_ids: int32[T].
        position_ids: int32[T], the depth of each.
        parent: int32[T]; -1 at a root.
        end: int32[T], exclusive end of the subtree; token i attends to j iff j ≤ i < end[j].
        node: int32[N], the token that an entry is about; its logits are its parent's.
        advantages, old_logps: float32[N].

    The same node has several entries where several calls made the same tokens.
    """

    token_ids: np.ndarray
    position_ids: np.ndarray
    parent: np.ndarray
    end: np.ndarray
    node: np.ndarray
    advantages: np.ndarray
    old_logps: np.ndarray

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)


def merge_calls(
    calls: Iterable[LossCall], *, max_tokens: int, share_prefixes: bool = True
) -> list[TokenTree]:
    """The trees that hold `calls`, all calls of a group at best in one.

    A tree that would exceed `max_tokens` is cut between sequences, and what both parts share is repeated. A
    single sequence longer than that is a tree of its own all the same.
    """
    trees: list[TokenTree] = []
    builder = _TreeBuilder()
    for call, ids in _sorted_sequences(calls):
        shared = builder.num_shared(ids)
        is_extension = shared == builder.path_length
        too_large = builder.num_tokens + len(ids) - shared > max_tokens
        if builder.num_tokens and (too_large or not (share_prefixes or is_extension)):
            trees.append(builder.build())
            builder, shared = _TreeBuilder(), 0
        builder.add(call, ids, shared)
    if builder.num_tokens:
        trees.append(builder.build())
    return trees


def num_tokens_unmerged(calls: Iterable[LossCall]) -> int:
    """Tokens that training each call alone would process; the trees' `num_tokens` sum to fewer."""
    return sum(call.num_tokens for call in calls)


def _sorted_sequences(calls: Iterable[LossCall]) -> list[tuple[LossCall, np.ndarray]]:
    """Calls with all their ids, in lexicographic order: neighbours share the longest prefixes.

    Big-endian bytes compare as the numbers do, and a prefix comes before what extends it.
    """
    sequences = [(call, np.concatenate([call.prompt_ids, call.response_ids])) for call in calls]
    return sorted(sequences, key=lambda entry: entry[1].astype(">i4").tobytes())


class _TreeBuilder:
    """Adds sequences in lexicographic order, which visits the tree's nodes depth first."""

    def __init__(self) -> None:
        self.num_tokens = 0
        self._ids = np.zeros(0, np.int32)
        # Nodes of the last sequence, by depth.
        self._path = np.zeros(0, np.int32)
        self._token_parts: list[np.ndarray] = []
        self._position_parts: list[np.ndarray] = []
        self._parent_parts: list[np.ndarray] = []
        self._closed: list[tuple[np.ndarray, int]] = []
        self._node_parts: list[np.ndarray] = []
        self._calls: list[LossCall] = []

    @property
    def path_length(self) -> int:
        """Length of the sequence added last."""
        return len(self._path)

    def num_shared(self, ids: np.ndarray) -> int:
        """How many leading tokens `ids` has in common with the sequence added last."""
        width = min(len(ids), len(self._ids))
        differs = self._ids[:width] != ids[:width]
        return int(differs.argmax()) if differs.any() else width

    def add(self, call: LossCall, ids: np.ndarray, shared: int) -> None:
        """Adds the sequence `ids`, whose first `shared` tokens the last one had too."""
        self._closed.append((self._path[shared:], self.num_tokens))
        new = np.arange(self.num_tokens, self.num_tokens + len(ids) - shared, dtype=np.int32)
        path = np.concatenate([self._path[:shared], new])
        self._token_parts.append(ids[shared:])
        self._position_parts.append(np.arange(shared, len(ids), dtype=np.int32))
        self._parent_parts.append(np.concatenate([[-1], path])[shared : len(ids)])
        self._node_parts.append(path[len(call.prompt_ids) :])
        self._calls.append(call)
        self._ids, self._path = ids, path
        self.num_tokens += len(new)

    def build(self) -> TokenTree:
        end = np.empty(self.num_tokens, np.int32)
        for nodes, exclusive_end in [*self._closed, (self._path, self.num_tokens)]:
            end[nodes] = exclusive_end
        return TokenTree(
            token_ids=_concatenate(self._token_parts, np.int32),
            position_ids=_concatenate(self._position_parts, np.int32),
            parent=_concatenate(self._parent_parts, np.int32),
            end=end,
            node=_concatenate(self._node_parts, np.int32),
            advantages=_concatenate([call.advantages for call in self._calls], np.float32),
            old_logps=_concatenate([call.old_logps for call in self._calls], np.float32),
        )


def _concatenate(parts: Sequence[np.ndarray], dtype: type[np.generic]) -> np.ndarray:
    return np.concatenate(parts).astype(dtype, copy=False)

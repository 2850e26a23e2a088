"""References to whole groups, as RLlib's learners take them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ray.rllib.core.learner.training_data import TrainingData

from raybolt.store.blocks import fetch_tables
from raybolt.store.remote_block import RemoteBlock
from raybolt.store.types import GroupHandle

_DOWNLOADS = 8
"""Groups that a learner fetches from a server at the same time."""


@dataclasses.dataclass
class GroupRefs(TrainingData):
    """Groups by reference: the driver passes them on without ever holding a token.

    RLlib's own sharding cuts lists of episodes; a group must stay whole, since credit compares its
    rollouts. Shards are therefore made of whole groups, balanced by tokens.
    """

    episodes_refs: list[Any] | None = None  # as the handles of the store have them
    num_tokens: list[int] = dataclasses.field(default_factory=list)

    @classmethod
    def of(cls, handles: Sequence[GroupHandle]) -> GroupRefs:
        return cls(episodes_refs=[h.ref for h in handles], num_tokens=[h.num_tokens for h in handles])

    def shard(
        self, num_shards: int, len_lookback_buffer: int | None = None, **kwargs: Any
    ) -> list[tuple[TrainingData, dict[str, Any]]]:
        """One (shard, update kwargs) pair for each learner; a shard may be empty, which learners handle."""
        return [(self._subset(part), {}) for part in balanced_parts(self.num_tokens, num_shards)]

    def _subset(self, indices: Sequence[int]) -> GroupRefs:
        return GroupRefs(
            episodes_refs=[(self.episodes_refs or [])[index] for index in indices],
            num_tokens=[self.num_tokens[index] for index in indices],
        )

    def solve_refs(self) -> None:
        """Fetches the groups into `episodes`: views of Ray's memory, or tables from the store's server."""
        refs = self.episodes_refs or []
        if refs and isinstance(refs[0], RemoteBlock):  # a store's handles are all of a kind
            with ThreadPoolExecutor(max_workers=_DOWNLOADS) as pool:
                self.episodes = list(pool.map(RemoteBlock.table, refs))
        else:
            self.episodes = fetch_tables(refs)
        self.episodes_refs = None


def balanced_parts(sizes: Sequence[int], num_parts: int) -> list[list[int]]:
    """Indices of `sizes` in `num_parts` parts of nearly equal sums, each part in ascending order.

    Longest first, each to the part that is smallest so far (Graham 1969, "LPT": at most 4/3 of the best
    largest part). Ties go to the earlier part, so the result depends on nothing but the arguments.
    """
    parts: list[list[int]] = [[] for _ in range(num_parts)]
    sums = [0] * num_parts
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        smallest = sums.index(min(sums))
        parts[smallest].append(index)
        sums[smallest] += sizes[index]
    return [sorted(part) for part in parts]

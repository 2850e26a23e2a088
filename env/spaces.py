"""The Gymnasium space of token sequences."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from raybolt.env.chat import TokenIds
from raybolt.store.errors import InvalidValue


class Tokens(gym.Space[TokenIds]):
    """All sequences of 1 to `max_length` token ids below `vocab_size`: int32 arrays of one dimension."""

    def __init__(self, vocab_size: int, max_length: int, seed: int | None = None) -> None:
        if vocab_size < 1 or max_length < 1:
            raise InvalidValue(
                f"vocab_size is {vocab_size} and max_length {max_length}; expected both to be 1 or more"
            )
        self.vocab_size = vocab_size
        self.max_length = max_length
        super().__init__(shape=None, dtype=np.int32, seed=seed)

    def sample(self, mask: Any = None, probability: Any = None) -> TokenIds:
        """A random sequence; both its length and its tokens are uniform. Masks are not supported."""
        if mask is not None or probability is not None:
            raise InvalidValue("Tokens.sample takes neither mask nor probability; leave them out")
        length = int(self.np_random.integers(1, self.max_length + 1))
        return self.np_random.integers(0, self.vocab_size, size=length, dtype=np.int32)

    def contains(self, x: Any) -> bool:
        """Whether x is such an array."""
        return (
            isinstance(x, np.ndarray)
            and x.dtype == np.int32
            and x.ndim == 1
            and 1 <= len(x) <= self.max_length
            and bool(((x >= 0) & (x < self.vocab_size)).all())
        )

    @property
    def is_np_flattenable(self) -> bool:
        return False

    def __repr__(self) -> str:
        return f"Tokens({self.vocab_size}, {self.max_length})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokens) and (self.vocab_size, self.max_length) == (
            other.vocab_size,
            other.max_length,
        )

    __hash__ = None  # type: ignore[assignment]  # mutable, as all Gymnasium spaces

"""The Gymnasium spaces of token sequences: as they are, and padded to one shape."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from raybolt.env.chat import TokenIds
from raybolt.env.codec import ChatCodec
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


class PaddedTokens:
    """Prompts and replies of one codec as arrays of one shape, for libraries that stack what they observe.

    An observation is `{"tokens": int32[L], "length": n}`: the prompt's n tokens, then zeros; n = 0 says that
    nothing is asked. L is what the codec takes as a prompt. An action is int32[R]: the reply up to its first
    end-of-turn token; what stands behind that does not count.
    """

    def __init__(self, codec: ChatCodec, max_new_tokens: int) -> None:
        if max_new_tokens < 1:
            raise InvalidValue(f"max_new_tokens is {max_new_tokens}; expected 1 or more")
        self.codec = codec
        self.max_tokens = codec.max_context - 1
        self.max_new_tokens = max_new_tokens

    def observation_space(self) -> gym.spaces.Dict:
        """A new space of the observations."""
        tokens = gym.spaces.Box(0, self.codec.vocab_size - 1, (self.max_tokens,), np.int32)
        return gym.spaces.Dict({"length": gym.spaces.Discrete(self.max_tokens + 1), "tokens": tokens})

    def action_space(self) -> gym.spaces.MultiDiscrete:
        """A new space of the actions."""
        return gym.spaces.MultiDiscrete([self.codec.vocab_size] * self.max_new_tokens, dtype=np.int32)

    def observation(self, prompt_ids: TokenIds | None) -> dict[str, Any]:
        """The prompt, padded; None for an agent that is not asked."""
        tokens = np.zeros(self.max_tokens, np.int32)
        length = 0 if prompt_ids is None else len(prompt_ids)
        if prompt_ids is not None:
            tokens[:length] = prompt_ids
        return {"length": np.int64(length), "tokens": tokens}

    def reply(self, action: Any) -> Any:
        """The action without what stands behind its first end-of-turn token; no array: as it is."""
        if not isinstance(action, np.ndarray) or action.ndim != 1:
            return action
        ends = np.flatnonzero(np.isin(action, self.codec.stop_ids))
        return action[: ends[0] + 1] if len(ends) else action

"""What every engine promises: token ids in; token ids, log-probabilities and the weights' version out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np

from raybolt.store.errors import InvalidValue


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One completion to sample.

    Attributes:
        prompt_ids: int32[P], P ≥ 1.
        max_new_tokens: upper bound on the reply; the context's end may come sooner.
        temperature: divides the logits; 0 takes the likeliest token.
        top_p: samples only from the likeliest tokens that together reach this probability.
        seed: decides the reply together with the prompt and the weights, whatever else is in the batch.
        stop_ids: a reply ends with, and includes, the first of these.
    """

    prompt_ids: np.ndarray
    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    stop_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.prompt_ids.ndim != 1 or self.prompt_ids.size == 0:
            raise InvalidValue(f"prompt_ids must be a non-empty vector; its shape is {self.prompt_ids.shape}")
        if self.max_new_tokens < 1:
            raise InvalidValue(f"max_new_tokens must be at least 1; it is {self.max_new_tokens}.")
        if not 0 <= self.temperature < float("inf"):
            raise InvalidValue(f"temperature must be 0 (greedy) or more; it is {self.temperature}.")
        if not 0 < self.top_p <= 1:
            raise InvalidValue(f"top_p must be in (0, 1]; it is {self.top_p}. 1 takes all tokens.")


@dataclass(frozen=True, slots=True)
class Generation:
    """A sampled reply.

    Attributes:
        response_ids: int32[R], the stop token included.
        logprobs: float32[R], log-softmax(logits / temperature) of each token; at temperature 0, of the
            logits as they are. Under `top_p` < 1 this is still the untruncated distribution, which a learner
            can recompute from the weights alone.
        finish_reason: "stop" (a stop token came) or "length" (`max_new_tokens` or the context ran out).
        weights_version: that of the weights under which every token of the reply was sampled.
    """

    response_ids: np.ndarray
    logprobs: np.ndarray
    finish_reason: Literal["stop", "length"]
    weights_version: int


class Engine(ABC):
    """Generates replies for one policy; any number of `generate` calls may be awaited at once."""

    max_context: int
    """Tokens of prompt and reply together."""

    @abstractmethod
    async def generate(self, request: GenerateRequest) -> Generation:
        """The reply to `request`. Cancelling the awaiting task stops the generation.

        Raises:
            ContextOverflow: the prompt leaves no room for a reply.
            EngineError: generation failed; later requests may still succeed.
        """

    @abstractmethod
    def set_weights_version(self, version: int) -> None:
        """Declares that the weights changed, dropping whatever was computed under the old ones.

        Call it when nothing is being generated, after the new weights are in place.

        Raises:
            EngineError: requests are in flight.
        """

    @abstractmethod
    def close(self) -> None:
        """Ends the engine and fails what is in flight. Closing twice is allowed."""

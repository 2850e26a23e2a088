"""The running batch: sequences in slots, prefilled when they come, advanced one token at a time.

Synchronous and single-threaded; `rl.engines.transformers` runs it in a worker thread.

Shapes: B rows of a forward pass, Q query tokens, C columns read from the cache, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from raybolt.rl.engines.base import GenerateRequest, Generation
from raybolt.rl.engines.kv_cache import SlotCache, check_supported
from raybolt.rl.engines.prefixes import PrefixIndex, PrefixStore
from raybolt.rl.engines.sampling import sample_tokens

_PREFILL_TOKENS = 8192
"""Query tokens in one prefill pass, padding included: bounds the memory of its attention mask."""


@dataclass(slots=True, eq=False)
class RunningSequence:
    """A request on its way through the batch.

    Attributes:
        max_tokens: prompt and reply together.
        ids: int32[max_tokens]; the first `length` are set. All but the last of them have keys and values.
        cancelled: set from any thread; the batch drops the sequence before its next step.
    """

    request: GenerateRequest
    max_tokens: int
    stop_ids: frozenset[int]
    ids: np.ndarray = field(init=False)
    length: int = field(init=False)
    logprobs: list[float] = field(default_factory=list)
    stopped: bool = False
    cancelled: bool = False
    rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        prompt = self.request.prompt_ids
        self.ids = np.empty(self.max_tokens, np.int32)
        self.ids[: len(prompt)] = prompt
        self.length = len(prompt)
        self.rng = np.random.default_rng(self.request.seed)

    def append(self, token: int, logprob: float) -> None:
        """Takes the next token of the reply."""
        self.ids[self.length] = token
        self.length += 1
        self.logprobs.append(logprob)
        self.stopped = token in self.stop_ids

    @property
    def finished(self) -> bool:
        return self.stopped or self.length == self.max_tokens

    def generation(self, weights_version: int) -> Generation:
        """The finished reply."""
        return Generation(
            response_ids=self.ids[len(self.request.prompt_ids) : self.length].copy(),
            logprobs=np.array(self.logprobs, np.float32),
            finish_reason="stop" if self.stopped else "length",
            weights_version=weights_version,
        )


class DecodeBatch:
    """Up to `max_batch` sequences advancing together; `active[i]` occupies slot i of the cache.

    Keys and values are computed once per distinct prefix: of identical prompts that arrive together, of a
    prompt that begins as one in the batch does, and of one that extends a finished sequence.
    """

    def __init__(self, model: Any, *, max_batch: int, prefix_bytes: int) -> None:
        """Takes `model`, a Transformers causal language model.

        Raises:
            UnsupportedModel: its attention is not plain full attention.
        """
        check_supported(model)
        self.active: list[RunningSequence] = []
        self._model = model
        self._max_batch = max_batch
        self._device: torch.device = model.device
        self._prompts = PrefixIndex()
        self._prefixes = PrefixStore(prefix_bytes)
        self._cache = self._new_cache()

    @property
    def num_free(self) -> int:
        """How many more sequences fit."""
        return self._max_batch - len(self.active)

    def step(self, arrivals: Sequence[RunningSequence]) -> list[RunningSequence]:
        """Gives every sequence in the batch its next token, `arrivals` their first.

        Returns the sequences that left: the finished, and the cancelled as far as they had come.

        After an exception the batch is in no state to go on: call `reset`.
        """
        with torch.inference_mode():
            if self._model.training:  # Whoever shares the model may have left it so.
                self._model.eval()
            cancelled = self._remove_where([s.cancelled for s in self.active])
            if self.active:
                self._decode()
            if arrivals:
                self._admit(arrivals)
            return cancelled + self._remove_where([s.finished for s in self.active])

    def reset(self) -> None:
        """Drops all sequences and everything computed: after an error, or when the weights changed."""
        self.active.clear()
        self._prompts.clear()
        self._prefixes.clear()
        self._cache = self._new_cache()

    def _new_cache(self) -> SlotCache:
        return SlotCache(
            self._model.config, num_slots=self._max_batch, dtype=self._model.dtype, device=self._device
        )

    def _decode(self) -> None:
        """One forward pass over the last token of every active sequence."""
        last = [s.length - 1 for s in self.active]
        tokens = [int(s.ids[i]) for s, i in zip(self.active, last, strict=True)]
        logits = self._forward(0, self._tensor(tokens)[:, None], self._tensor(last)[:, None], max(last) + 1)
        self._sample(self.active, logits)

    def _admit(self, arrivals: Sequence[RunningSequence]) -> None:
        """Gives `arrivals` slots and their first token, computing each distinct prompt once."""
        first = len(self.active)
        leaders: dict[bytes, RunningSequence] = {}
        followers: list[tuple[RunningSequence, RunningSequence]] = []
        for sequence in arrivals:
            leader = leaders.setdefault(sequence.request.prompt_ids.tobytes(), sequence)
            if leader is not sequence:
                followers.append((sequence, leader))
        logits = self._prefill(list(leaders.values()))
        for sequence, leader in followers:
            slot = self.active.index(leader)
            self._cache.copy(slot, len(self.active), leader.length)
            self._occupy(sequence)
            logits.append(logits[slot - first])
        self._sample(self.active[first:], torch.stack(logits))

    def _prefill(self, sequences: list[RunningSequence]) -> list[torch.Tensor]:
        """Seats sequences with distinct prompts and runs what is not known of them.

        Returns:
            The logits [V] after each prompt, in the order of the slots.
        """
        pending = [(s, self._find_known(s.ids[: s.length])) for s in sequences]
        pending.sort(key=lambda entry: entry[0].length - entry[1].length)
        first = len(self.active)
        for sequence, known in pending:
            known.load_into(self._cache, len(self.active))
            self._occupy(sequence)
        logits: list[torch.Tensor] = []
        for start, stop in _prefill_passes([s.length - known.length for s, known in pending]):
            logits.extend(self._prefill_pass(first + start, pending[start:stop]))
        return logits

    def _prefill_pass(self, first: int, pending: list[tuple[RunningSequence, _Known]]) -> torch.Tensor:
        """One forward pass over the unknown parts of prompts, aligned at their ends; logits [B, V].

        Filler before a shorter part is written to the column after the prompt: hidden from all, and
        overwritten by the reply's first token.
        """
        lengths = np.array([s.length for s, _ in pending])
        num_known = np.array([known.length for _, known in pending])
        num_queries = int((lengths - num_known).max())
        columns = lengths[:, None] + np.arange(-num_queries, 0)
        is_filler = columns < num_known[:, None]
        columns = np.where(is_filler, lengths[:, None], columns)
        ids = np.stack([s.ids[row] for (s, _), row in zip(pending, columns, strict=True)])
        ids[is_filler] = 0
        return self._forward(first, self._tensor(ids), self._tensor(columns), int(columns.max()) + 1)

    def _forward(self, first: int, ids: torch.Tensor, columns: torch.Tensor, num_read: int) -> torch.Tensor:
        """Logits [B, V] after the last query of slots first, first + 1, …

        Args:
            ids, columns: int64[B, Q], the tokens and their positions, which are also their cache columns.
            num_read: C; each query attends to the columns up to its own.
        """
        self._cache.aim(first, columns, num_read)
        hidden = torch.arange(num_read, device=self._device) > columns[:, None, :, None]
        mask = torch.zeros(hidden.shape, dtype=self._model.dtype, device=self._device)
        mask.masked_fill_(hidden, -torch.inf)
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=columns,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]

    def _sample(self, sequences: list[RunningSequence], logits: torch.Tensor) -> None:
        requests = [s.request for s in sequences]
        tokens, logps = sample_tokens(
            logits,
            temperatures=[r.temperature for r in requests],
            top_ps=[r.top_p for r in requests],
            uniforms=[s.rng.random() for s in sequences],
        )
        for sequence, token, logp in zip(sequences, tokens, logps, strict=True):
            sequence.append(token, logp)

    def _find_known(self, prompt: np.ndarray) -> _Known:
        """The longest computed prefix of `prompt`, short of its last token, whose logits are wanted."""
        slot, length_in_batch = self._prompts.longest(prompt[:-1])
        row, length_in_store = self._prefixes.longest(prompt[:-1])
        if length_in_store > length_in_batch:
            return _Known(length_in_store, saved=self._prefixes.take(row))
        return _Known(length_in_batch, slot=slot)

    def _occupy(self, sequence: RunningSequence) -> None:
        """Seats `sequence` in the next slot."""
        self._prompts.put(len(self.active), sequence.ids[: sequence.length])
        self.active.append(sequence)

    def _remove_where(self, flags: list[bool]) -> list[RunningSequence]:
        """Takes out the flagged, keeping what the finished computed; the last ones move into the gaps."""
        removed = [s for s, flag in zip(self.active, flags, strict=True) if flag]
        for sequence in reversed(removed):
            slot, last = self.active.index(sequence), len(self.active) - 1
            num_computed = sequence.length - 1
            if sequence.finished:
                self._prefixes.add(sequence.ids[:num_computed], self._cache.save(slot, num_computed))
            if slot != last:
                self._cache.copy(last, slot, self.active[last].length - 1)
                self.active[slot] = self.active[last]
                self._prompts.move(last, slot)
            else:
                self._prompts.clear(last)
            self.active.pop()
        return removed

    def _tensor(self, values: Any) -> torch.Tensor:
        return torch.as_tensor(values, dtype=torch.int64, device=self._device)


@dataclass(frozen=True, slots=True)
class _Known:
    """The first `length` tokens of a prompt have keys and values in a `slot`, or in `saved`."""

    length: int
    slot: int = 0
    saved: torch.Tensor | None = None

    def load_into(self, cache: SlotCache, slot: int) -> None:
        if self.saved is not None:
            cache.load(slot, self.saved, self.length)
        elif self.length:
            cache.copy(self.slot, slot, self.length)


def _prefill_passes(num_queries: list[int]) -> Iterator[tuple[int, int]]:
    """Cuts ascending query counts into runs [start, stop) with little filler and bounded size."""
    start = 0
    for i, count in enumerate(num_queries):
        too_uneven = count > 2 * num_queries[start] + 16
        too_large = (i - start + 1) * count > _PREFILL_TOKENS
        if i > start and (too_uneven or too_large):
            yield start, i
            start = i
    yield start, len(num_queries)

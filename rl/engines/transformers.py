"""The default engine: continuous batching over a Transformers model, on the CPU or a GPU.

The event loop submits requests; one worker thread owns the running batch:

    generate ─► waiting ─► worker: step, step, … ─► finished ─► call_soon_threadsafe ─► generate returns

A request joins at the step after it came and leaves at the step that finishes it. While Python code of the
agents runs, it competes with the worker for the interpreter and mostly wins, so agents that wake together
also ask together and are prefilled together.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Collection
from typing import Any, TypeAlias

from raybolt.rl.engines.base import Engine, GenerateRequest, Generation
from raybolt.rl.engines.decode_batch import DecodeBatch, RunningSequence
from raybolt.rl.errors import ContextOverflow, EngineError
from raybolt.store.errors import InvalidValue

_logger = logging.getLogger(__name__)

Outcome: TypeAlias = Generation | EngineError


class TransformersEngine(Engine):
    """Generates with a Hugging Face causal language model that a learner may share.

    The weights are read in place: change them while nothing is in flight, then call `set_weights_version`.
    """

    def __init__(
        self,
        model: Any,
        *,
        max_batch: int = 32,
        max_context: int | None = None,
        eos_ids: Collection[int] = (),
        prefix_bytes: int = 256 << 20,
    ) -> None:
        """Starts the worker thread.

        Args:
            model: a causal language model with full attention (Llama, Qwen2, Qwen3, SmolLM2, …).
            max_batch: sequences that decode at once; further requests wait in order.
            max_context: tokens of prompt and reply together; None takes the model's own limit.
            eos_ids: end every reply, besides each request's own stop ids.
            prefix_bytes: memory for keys and values of finished sequences, for prompts that extend them.

        Raises:
            UnsupportedModel: the model's attention is not plain full attention.
        """
        if max_batch < 1:
            raise InvalidValue(f"max_batch must be at least 1; it is {max_batch}.")
        model_context = int(model.config.max_position_embeddings)
        if max_context is not None and not 2 <= max_context <= model_context:
            raise InvalidValue(f"max_context must be 2 to {model_context}, the model's; it is {max_context}.")
        self.max_context = max_context or model_context
        self._eos_ids = frozenset(eos_ids)
        self._batch = DecodeBatch(model, max_batch=max_batch, prefix_bytes=prefix_bytes)
        self._version = 0
        # Submitted and not yet delivered; guarded, like `_waiting` and `_closed`, by `_changed`.
        self._tickets: dict[RunningSequence, asyncio.Future[Generation]] = {}
        self._waiting: deque[RunningSequence] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._worker = threading.Thread(target=self._work, name="raybolt-engine", daemon=True)
        self._worker.start()

    async def generate(self, request: GenerateRequest) -> Generation:
        prompt_length = len(request.prompt_ids)
        if prompt_length >= self.max_context:
            raise ContextOverflow(prompt_length, self.max_context)
        sequence = RunningSequence(
            request,
            max_tokens=min(prompt_length + request.max_new_tokens, self.max_context),
            stop_ids=self._eos_ids.union(request.stop_ids),
        )
        future = self._submit(sequence)
        try:
            return await future
        finally:
            sequence.cancelled = True  # Means something only if the await ended before the sequence did.

    def set_weights_version(self, version: int) -> None:
        with self._changed:
            num_in_flight = sum(not sequence.cancelled for sequence in self._tickets)
            if num_in_flight:
                raise EngineError(
                    f"The weights changed while {num_in_flight} requests were in flight. "
                    "Await or cancel them first."
                )
            # Cancelled sequences may still be in a step that the worker has under way.
            self._changed.wait_for(lambda: not self._tickets)
            self._batch.reset()
            self._version = version

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._worker.join()

    def _submit(self, sequence: RunningSequence) -> asyncio.Future[Generation]:
        future: asyncio.Future[Generation] = asyncio.get_running_loop().create_future()
        with self._changed:
            if self._closed:
                raise EngineError("The engine is closed.")
            self._waiting.append(sequence)
            self._tickets[sequence] = future
            self._changed.notify_all()
        return future

    def _work(self) -> None:
        """The worker thread: steps while there is anything to do, until closed."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._tickets or self._closed)
                if self._closed:
                    self._deliver(dict.fromkeys(self._tickets, EngineError("The engine was closed.")))
                    return
                arrivals = self._take_arrivals()
            outcomes = self._step(arrivals)
            with self._changed:
                self._deliver(outcomes)

    def _take_arrivals(self) -> list[RunningSequence]:
        """Those of the waiting that fit, in order. Holds the lock."""
        arrivals: list[RunningSequence] = []
        while self._waiting and len(arrivals) < self._batch.num_free:
            sequence = self._waiting.popleft()
            if sequence.cancelled:
                del self._tickets[sequence]
            else:
                arrivals.append(sequence)
        return arrivals

    def _step(self, arrivals: list[RunningSequence]) -> dict[RunningSequence, Outcome]:
        """Advances the batch; who left it, and how."""
        members = [*self._batch.active, *arrivals]
        try:
            return {s: s.generation(self._version) for s in self._batch.step(arrivals)}
        # Whatever a model's forward raises (memory, device, its own bugs) concerns these requests only.
        except Exception as error:
            _logger.exception("A generation step failed")
            self._batch.reset()
            reason = EngineError(f"A generation step failed: {type(error).__name__}: {error}")
            reason.__cause__ = error
            return dict.fromkeys(members, reason)

    def _deliver(self, outcomes: dict[RunningSequence, Outcome]) -> None:
        """Hands outcomes to the loops that wait for them, one wake-up per loop. Holds the lock."""
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Generation], Outcome]]] = {}
        for sequence, outcome in outcomes.items():
            future = self._tickets.pop(sequence)
            by_loop.setdefault(future.get_loop(), []).append((future, outcome))
        for loop, settled in by_loop.items():
            # A loop that has been closed has nobody left who waits.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_settle, settled)
        if not self._tickets:
            self._changed.notify_all()


def _settle(outcomes: list[tuple[asyncio.Future[Generation], Outcome]]) -> None:
    """Sets the futures, in their own loop, of those who still wait."""
    for future, outcome in outcomes:
        if future.done():
            continue
        if isinstance(outcome, EngineError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

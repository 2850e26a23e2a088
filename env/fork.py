"""Other continuations of a recorded run: the same up to one of its calls, and live from there on."""

from __future__ import annotations

import asyncio
import inspect
import logging
import secrets
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from raybolt.env.agent import Agent
from raybolt.env.errors import ReplayDiverged
from raybolt.env.executor import is_cancelled
from raybolt.env.policy import RunEnd
from raybolt.env.recorded import summary_of
from raybolt.env.recorder import SpanRecorder, describe
from raybolt.env.recording import USUAL_CAUSES, Recording
from raybolt.env.replay import Replay, read_recording
from raybolt.env.report import report
from raybolt.env.roles import Codecs
from raybolt.env.stepper import Action, Prompt, RunStepper
from raybolt.env.task import Task
from raybolt.store.base import Latest, LightningStore
from raybolt.store.errors import InvalidTransition, InvalidValue, StoreError
from raybolt.store.patience import ROOM_SECONDS
from raybolt.store.types import AttemptedRollout, Rollout, Span
from raybolt.store.values import checked_count

_log = logging.getLogger(__name__)

Answerer: TypeAlias = "Callable[[Prompt], Action | Awaitable[Action]]"
"""The live policy: what it answers to a prompt, plain or async. An engine's tokens, or a `Completion`."""


@dataclass(frozen=True, slots=True)
class Forks:
    """What was recorded."""

    group_id: str
    rollout_ids: tuple[str, ...]
    errors: dict[str, str] = field(default_factory=dict)
    """Of those that failed, by rollout id."""


async def fork(
    agent: Agent,
    store: LightningStore,
    rollout_id: str,
    k: int,
    n: int,
    *,
    answer: Answerer,
    codec: Codecs,
    attempt_id: str | Latest = "latest",
    group_id: str | None = None,
    task: Task | None = None,
    live_tools: Sequence[str] = (),
) -> Forks:
    """Runs the agent `n` times as recorded up to call `k` (from 0), and on from there with `answer`.

    Each becomes a rollout of one group, of its parent's task and mode, with `forked_from` (the parent's id)
    and `forked_at` (k) in its metadata; the calls before k have the recorded tokens, log-probabilities and
    weights version, and the prompt of call k has the recorded tokens. All n go on at the same time. A
    continuation that fails is recorded as failed. Of a run that failed, k may be the call that was not
    answered any more: one behind the last. For the other arguments see `replay`.

    Whoever cancels it finds them ended, as failed if they had not come to their end. They end, too, when the
    store fails: all, then the error is raised.

    Raises:
        ReplayDiverged: in every one of them the agent did something else than then.
        InvalidValue: n is below 1, call k is none of the policy's, or the group has no room for them.
        StoreError: the store refused something. If that was their start, they are cancelled, and deleted.
    """
    recording = await read_recording(store, rollout_id, attempt_id, task)
    _check_call(recording, k)
    n = checked_count(n, "n", least=1)
    group_id = group_id or f"fork-{rollout_id}-{k}-{secrets.token_hex(3)}"

    def replay_for(started: AttemptedRollout) -> Replay:
        recorder = SpanRecorder(started.rollout_id, started.attempt.attempt_id)
        return Replay(
            agent,
            recording,
            until=k,
            recorder=recorder,
            codec=codec,
            live_tools=live_tools,
            require_reward=True,
        )

    opening = asyncio.ensure_future(_opened(store, recording.rollout, k, n, group_id))
    cancelled = await _end_of(opening)
    if cancelled is not None and opening.exception() is not None:
        raise cancelled
    continuations = [_Continuation(store, started) for started in opening.result()]
    if cancelled is None:
        try:
            await asyncio.gather(
                *(each.run(replay_for, answer, k) for each in continuations), return_exceptions=True
            )
        except asyncio.CancelledError as error:
            cancelled = error
    ending = asyncio.ensure_future(_end_all(continuations))
    cancelled = await _end_of(ending) or cancelled
    if cancelled is not None:
        raise cancelled
    ending.result()
    if all(each.diverged for each in continuations):
        raise ReplayDiverged(str(continuations[0].diverged))
    errors = {each.rollout_id: str(each.error) for each in continuations if each.error is not None}
    return Forks(group_id, tuple(each.rollout_id for each in continuations), errors)


class _Continuation:
    """One of the rollouts: it is run, and then the store has to hear of its end, whatever happens."""

    def __init__(self, store: LightningStore, started: AttemptedRollout) -> None:
        self.rollout_id = started.rollout_id
        self.error: str | None = None
        """Why the rollout has failed."""
        self.diverged: ReplayDiverged | None = None
        self.failure: Exception | None = None
        """What kept its end from the store."""
        self._store = store
        self._started = started
        self._at: Replay | None = None
        self._spans: list[Span] = []
        self._outcome: dict[str, Any] | None = None
        self._is_told = False

    async def run(self, replay_for: Callable[[AttemptedRollout], Replay], answer: Answerer, k: int) -> None:
        """Runs it to its end, and tells the store. Only a cancellation comes out of it."""
        try:
            self._at = at = replay_for(self._started)
            try:
                await at.start()
                assert at.stepper is not None
                await _go_on(at, at.stepper, answer, k)
            except ReplayDiverged as error:
                self.diverged = error
            finally:
                await at.close()
            self._outcome = summary_of(at.run.trajectory)
            if self.diverged is not None:
                self._outcome |= {"error": str(self.diverged), "origin": "agent"}
            await self._tell(self._outcome, ROOM_SECONDS)
        except Exception as error:
            self.failure = error

    async def end(self) -> None:
        """Tells the store the end that it has not heard of yet; without waiting for room."""
        if self._is_told:
            return
        if self._at is not None:
            await self._at.close()
        now = await self._store.get_rollout_by_id(self.rollout_id)
        if now is None or now.end_time is not None:
            return
        await self._tell(self._outcome or self._cut_short(), 0)

    def _cut_short(self) -> dict[str, Any]:
        summary = {} if self._at is None else summary_of(self._at.run.trajectory)
        error = "the fork was cancelled" if self.failure is None else describe(self.failure)
        return summary | {"error": error, "origin": "raybolt"}

    async def _tell(self, outcome: Mapping[str, Any], limit_seconds: float) -> None:
        if self._at is not None:
            self._spans += self._at.run.recorder.drain()
        attempt_id = self._started.attempt.attempt_id
        told = await report(
            self._store, self.rollout_id, attempt_id, self._spans, outcome, limit_seconds=limit_seconds
        )
        self.error, self._is_told = told.get("error"), True


async def _opened(
    store: LightningStore, parent: Rollout, k: int, n: int, group_id: str
) -> Sequence[AttemptedRollout]:
    """The new rollouts, in their group. If the store refuses one of them or the group, none goes on."""
    if await store.query_groups(group_id_in=[group_id]):
        await store.declare_group(group_id, n, task_id=parent.task_id)  # what contradicts it changes nothing
    new_ids = [f"ro-{uuid.uuid4().hex}" for _ in range(n)]
    starting = (
        store.start_rollout(
            parent.input,
            mode=parent.mode,
            resources_id=parent.resources_id,
            metadata={**parent.metadata, "forked_from": parent.rollout_id, "forked_at": k},
            task_id=parent.task_id,
            group_id=group_id,
            rollout_id=new_id,
        )
        for new_id in new_ids
    )
    started = await asyncio.gather(*starting, return_exceptions=True)
    opened = [each for each in started if not isinstance(each, BaseException)]
    try:
        for each in started:
            if isinstance(each, BaseException):
                raise each
        await store.declare_group(group_id, n, task_id=parent.task_id)
    except Exception:
        await _withdraw(store, new_ids)
        raise
    return opened


async def _withdraw(store: LightningStore, rollout_ids: Sequence[str]) -> None:
    """Cancels and deletes rollouts that nobody has begun to run; one whose start failed may be there, too."""
    try:
        for rollout in await store.query_rollouts(rollout_id_in=rollout_ids):
            await store.update_rollout(rollout.rollout_id, status="cancelled")
        with suppress(InvalidTransition):  # the group was declared after all, and is complete now
            await store.delete_rollouts(rollout_ids)
    except StoreError as error:
        _log.error("Rollouts %s of a fork that could not begin stay: %s", ", ".join(rollout_ids), error)


async def _end_all(continuations: Sequence[_Continuation]) -> None:
    """Has the store know the end of each. Raises the first error that kept one from it at the first try."""
    results = await asyncio.gather(*(each.end() for each in continuations), return_exceptions=True)
    for each, result in zip(continuations, results, strict=True):
        if isinstance(result, BaseException):
            _log.error("Rollout %s stays open: %s", each.rollout_id, describe(result))
    for each in continuations:
        if each.failure is not None:
            raise each.failure


async def _end_of(task: asyncio.Future[Any]) -> asyncio.CancelledError | None:
    """Waits for the task's end; returns the cancellation that came meanwhile, which the task does not get."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    return cancelled


async def _go_on(at: Replay, stepper: RunStepper, answer: Answerer, k: int) -> None:
    """Answers all calls from k on. Raises ReplayDiverged if call k's prompt has other tokens than then."""
    prompts = await stepper.next()
    if not isinstance(prompts, RunEnd):
        assert at.call is not None
        _check_tokens(at, next(prompt for prompt in prompts if prompt.call is at.call), k)
    while not isinstance(prompts, RunEnd):
        answers = await asyncio.gather(*(_answer(answer, prompt) for prompt in prompts))
        for prompt, given in zip(prompts, answers, strict=True):
            if isinstance(given, BaseException):
                at.run.fail(prompt.call.call_id, given)
                continue
            try:
                stepper.act({prompt.call.call_id: given})
            except Exception as error:  # it is no action: the answerer's failure as well
                at.run.fail(prompt.call.call_id, error)
        prompts = await stepper.next()


async def _answer(answer: Answerer, prompt: Prompt) -> Action | BaseException:
    try:
        given = answer(prompt)
        return await given if inspect.isawaitable(given) else given
    except asyncio.CancelledError as error:
        if is_cancelled():
            raise
        return error
    except Exception as error:  # the answerer is the user's; its failure is this rollout's alone
        return error


def _check_call(recording: Recording, k: int) -> None:
    num_calls = len(recording.calls)
    mine = [call.index for call in recording.calls if call.by_policy]
    if recording.stopped_at_the_policy:
        mine.append(num_calls)
    if type(k) is int and k in mine:
        return
    known = ", ".join(map(str, mine)) or "none"
    others = type(k) is int and 0 <= k < num_calls
    what = "was answered by the agent's own model" if others else "is none of its calls"
    raise InvalidValue(
        f"k is {k!r}, which in rollout {recording.rollout.rollout_id!r} {what}; it has {num_calls} answered "
        f"calls, from 0 on, and those to fork at are: {known}"
    )


def _check_tokens(at: Replay, prompt: Prompt, k: int) -> None:
    calls = at.recording.calls
    then = calls[k].completion.prompt_ids if k < len(calls) else None  # nobody had answered that one
    if then is not None and not np.array_equal(then, prompt.prompt_ids):
        raise ReplayDiverged(
            f"call {k} of rollout {at.recording.rollout.rollout_id!r} says the same, but its prompt has "
            f"{len(prompt.prompt_ids)} tokens, then {len(then)}, or others: give the codec of the model that "
            f"ran then; {USUAL_CAUSES}"
        )

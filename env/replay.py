"""An agent driven once more through what a store recorded of it: no model is asked, no tool runs.

::

    async with await replay(agent, store, rollout_id, until=3) as at:
        print(at.call.request)  # the fourth LLM call, made again and waiting for an answer
        at.run.answer(at.call.call_id, Completion(…))
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Final, Self, TypeGuard

from raybolt.env.agent import Agent
from raybolt.env.chat import ChatRequest
from raybolt.env.errors import ReplayDiverged
from raybolt.env.foreign import sound
from raybolt.env.policy import PendingCall, RunEnd
from raybolt.env.raised import raised_again
from raybolt.env.recorded import task_of
from raybolt.env.recorded_tools import RecordedTools, recorded_tools
from raybolt.env.recorder import SpanRecorder
from raybolt.env.recording import USUAL_CAUSES, RecordedCall, Recording
from raybolt.env.roles import Codecs
from raybolt.env.run import AgentRun
from raybolt.env.selection import takes
from raybolt.env.stepper import RunStepper
from raybolt.env.task import Task
from raybolt.store.base import Latest, LightningStore
from raybolt.store.errors import InvalidValue, UnknownAttempt, UnknownRollout

WHOLLY: Final = sys.maxsize
"""Stands for the call at which a replay stops that goes to the end."""


class Replay:
    """A replayed run. As an asynchronous context manager it ends the run when it is left."""

    def __init__(
        self,
        agent: Agent,
        recording: Recording,
        *,
        until: int,
        recorder: SpanRecorder,
        codec: Codecs | None = None,
        live_tools: Sequence[str] = (),
        require_reward: bool = False,
    ) -> None:
        self.recording = recording
        self.call: PendingCall | None = None
        """The call at which the replay has stopped; None if it went to the end."""
        self.run = AgentRun(
            agent.program(),
            recording.task,
            recorder=recorder,
            limits=agent.limits,
            reward=agent.reward,
            require_reward=require_reward,
            trainable=self._takes,
        )
        self.stepper: RunStepper | None = None if codec is None else RunStepper(self.run, codec)
        """Steps the run on with tokens; None without a codec."""
        self._agent = agent
        self._until = until
        self._tools = RecordedTools(recording.spans, live=live_tools)
        self._left = list(recording.made)
        self._of: dict[str, RecordedCall | None] = {}  # by call id of this run; None for call `until`
        self._live = False

    async def start(self) -> Self:
        """Drives the agent up to the call at which to stop, or to the end. Raises ReplayDiverged."""
        token = recorded_tools.set(self._tools)  # the agent starts in a copy of this context
        try:
            await self._drive()
        except BaseException:
            await self.close()
            raise
        finally:
            recorded_tools.reset(token)
            self._tools.stop()
            self._live = True
        return self

    async def close(self) -> None:
        """Ends the run if it is still going on."""
        if self.run.end is None:
            await self.run.abort("the replay was left")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _takes(self, request: ChatRequest) -> bool:
        # In the replay every answer comes from the store, those of the agent's own models too.
        return not self._live or takes(self._agent.trainable, request)

    async def _drive(self) -> None:
        seen: Collection[str] = ()
        while True:
            pending = await self._next(seen)
            if isinstance(pending, RunEnd):
                self._check_end(pending)
                return
            for call in pending:
                if call.call_id not in self._of:
                    self._of[call.call_id] = self._match(call)
            due = [(known, call) for call in pending if self._is_due(known := self._of[call.call_id])]
            if due:  # in the order of then: what the agent does next may depend on who answered first
                self._answer(*min(due, key=lambda pair: pair[0].span.end_time))
                await asyncio.sleep(0)
                seen = ()
            elif self._arrived(pending):
                return
            elif self._failed_here(pending):
                await self.run.abort(*self.recording.failure)
                seen = ()
            else:
                seen = {call.call_id for call in pending}

    async def _next(self, seen: Collection[str]) -> list[PendingCall] | RunEnd:
        """The next pending calls. An agent that waits for call `until` alone would wait for ever."""
        if not seen:
            return await self.run.next()
        try:
            return await asyncio.wait_for(self.run.next(seen), self.run.limits.max_seconds)
        except TimeoutError:
            how = "the agent has not made it, and waits for the answer of another one"
            raise self._divergence(self._expected, how) from None

    @property
    def _unused(self) -> list[RecordedCall]:
        """The answered calls that the agent has not made again yet."""
        return [known for known in self._left if known.answered]

    @property
    def _expected(self) -> int:
        """The number of the call that the agent is to make next."""
        return next((known.index for known in self._unused), len(self.recording.calls))

    def _is_due(self, known: RecordedCall | None) -> TypeGuard[RecordedCall]:
        if known is None or not (known.answered or known.raised):
            return False
        return known.index < self._until or not known.by_policy

    def _match(self, call: PendingCall) -> RecordedCall | None:
        known = self._take(call, lambda known: known.answered or known.raised is not None)
        if known is not None:
            return None if known.answered and known.index == self._until else known
        unused = self._unused
        if self._until == len(self.recording.calls) and not unused:
            return None  # the call that was never answered then
        known = self._take(call, lambda known: True)
        if known is not None and known.by_policy:
            return known  # the agent gave it up then, and will now; or the run failed
        if known is not None:
            what = "which cannot be raised again: it holds what is no JSON, or its class is not loaded"
            failure = f"the agent's own model failed then ({known.span.status_message}), {what}"
            raise self._divergence(known.index, failure, role=known.role)
        if not unused:
            raise self._divergence(len(self.recording.calls), f"it was not made then (role {call.role!r})")
        raise self._divergence(unused[0].index, unused[0].difference(call), role=unused[0].role)

    def _take(self, call: PendingCall, wanted: Callable[[RecordedCall], bool]) -> RecordedCall | None:
        """The first recorded call of these that says the same and has not been made again yet."""
        for place, known in enumerate(self._left):
            if wanted(known) and known.is_of(call):
                return self._left.pop(place)
        return None

    def _answer(self, known: RecordedCall, call: PendingCall) -> None:
        error = None if known.raised is None else raised_again(known.raised)
        if error is not None:
            self.run.pass_on(call.call_id, error, known.answer_attributes)
        elif self.stepper is not None and known.by_policy:
            self.stepper.recall(call, known.completion, known.answer_attributes)
        else:
            self.run.answer(call.call_id, known.completion, known.answer_attributes)

    def _arrived(self, pending: Sequence[PendingCall]) -> bool:
        if any(known.index < self._until for known in self._unused):
            return False
        self.call = next((call for call in pending if self._of[call.call_id] is None), None)
        return self.call is not None

    def _failed_here(self, pending: Sequence[PendingCall]) -> bool:
        """Whether a whole replay has come to a call that was never answered, since the run failed then."""
        known = (self._of[call.call_id] for call in pending)
        return (
            self._until == WHOLLY and not self._unused and any(each and not each.given_up for each in known)
        )

    def _check_end(self, end: RunEnd) -> None:
        if self._unused or self._until < WHOLLY:
            raise self._divergence(
                self._expected, "the agent ended before it" + (f" ({end.error})" if end.failed else "")
            )

    def _divergence(self, index: int, what: str, *, role: str | None = None) -> ReplayDiverged:
        who = f" (role {role!r})" if role is not None else ""
        return ReplayDiverged(
            f"call {index}{who} of rollout {self.recording.rollout.rollout_id!r}: {what}; {USUAL_CAUSES}"
        )


async def replay(
    agent: Agent,
    store: LightningStore,
    rollout_id: str,
    *,
    until: int | None = None,
    attempt_id: str | Latest = "latest",
    task: Task | None = None,
    codec: Codecs | None = None,
    live_tools: Sequence[str] = (),
) -> Replay:
    """The agent's run, replayed up to its call number `until` (from 0), which waits for an answer; or wholly.

    LLM calls are answered from the store: the same replies, tokens and log-probabilities, those of the
    agent's own models as well. Tools are, too, where there is a place to do so (see docs/env.md); the ones
    that match `live_tools`, those in which LLM calls are made, and those that gave or raised no JSON, run for
    real. From call `until` on everything is live. It may be one behind the last answered call: what a failed
    run was about to ask. Wholly replayed, a failed run fails as it did.

    With a codec, `stepper` goes on with tokens, such that prompts begin with those of the recording. `task`
    stands in for what the store kept of the task. Nothing is written to the store.

    Raises:
        ReplayDiverged: the agent did something else than then.
        InvalidValue: the run has no such call.
    """
    recording = await read_recording(store, rollout_id, attempt_id, task)
    return await Replay(
        agent,
        recording,
        until=checked_until(recording, until),
        recorder=SpanRecorder(rollout_id, recording.attempt.attempt_id),
        codec=codec,
        live_tools=live_tools,
        require_reward=recording.missed_reward,  # a demonstration did without, and does again
    ).start()


async def read_recording(
    store: LightningStore, rollout_id: str, attempt_id: str | Latest = "latest", task: Task | None = None
) -> Recording:
    """What the store has of an attempt. Raises UnknownRollout or UnknownAttempt."""
    rollout = await store.get_rollout_by_id(rollout_id)
    if rollout is None:
        raise UnknownRollout(f"no rollout has the id {rollout_id!r}")
    attempts = await store.query_attempts(rollout_id)
    found = attempts[-1:] if attempt_id == "latest" else [a for a in attempts if a.attempt_id == attempt_id]
    if not found:
        raise UnknownAttempt(f"rollout {rollout_id!r} has no attempt {attempt_id!r}")
    spans = await store.query_spans(rollout_id, found[0].attempt_id)
    return Recording(rollout, found[0], task or task_of(rollout), sound(spans))


def checked_until(recording: Recording, until: int | None) -> int:
    """The call at which to stop, far behind the last unless given. Raises InvalidValue if there is none."""
    num_calls = len(recording.calls)
    if until is None:
        return WHOLLY
    if not 0 <= until <= num_calls:
        raise InvalidValue(
            f"until is {until}; rollout {recording.rollout.rollout_id!r} has {num_calls} answered calls: "
            f"give a number from 0 to {num_calls}"
        )
    return until

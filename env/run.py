"""One run of an agent, turned inside out: the agent believes it calls an LLM; in truth it is stepped.

::

    run = AgentRun(program, task, recorder=recorder, reward=score)
    while not isinstance(pending := await run.next(), RunEnd):
        for call in pending:
            run.answer(call.call_id, Completion(…))
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, suppress
from contextvars import copy_context
from functools import partial
from typing import Any, TypeAlias

from raybolt.env.adoption import adopt_foreign_spans
from raybolt.env.chat import ChatRequest, Completion
from raybolt.env.clock import AgentClock
from raybolt.env.context import RunContext, current_run
from raybolt.env.errors import BlockingCall, NoCall, NoReward, RunOver
from raybolt.env.executor import run_in_thread, widen
from raybolt.env.limits import RunLimits
from raybolt.env.observed import ObservedCall, begin_chat_span, observed
from raybolt.env.policy import AgentProgram, Origin, PendingCall, PolicyAbort, RunEnd
from raybolt.env.recorder import OpenSpan, SpanRecorder, describe
from raybolt.env.results import result_attributes
from raybolt.env.rewards import as_reward, is_number
from raybolt.env.selection import Trainable, takes
from raybolt.env.task import Task
from raybolt.env.trajectory import FINAL_REWARD, Trajectory, trajectory_from_spans
from raybolt.env.waiting import GIVEN_UP, WaitingCall, answer_attributes
from raybolt.store import names
from raybolt.store.errors import InvalidValue

_log = logging.getLogger(__name__)

RewardFunction: TypeAlias = Callable[[Task, Any, Trajectory], float | Awaitable[float]]
"""`reward(task, result, trajectory)`, plain or async; a plain one runs in a thread and may block."""

_GRACE_SECONDS = 0.2  # for an agent to leave by itself after a PolicyAbort
_STOP_SECONDS = 1.0  # for it to leave once cancelled


class AgentRun:
    """One run: `next` shows what the agent asks, `answer` answers, until `next` returns the `RunEnd`.

    It is the agent's `PolicyPort`, too. `next`, `answer`, `fail` and `abort` belong to one event loop, the
    one that first awaits `next`; an asynchronous agent runs in that loop, a blocking one in a thread. Many
    runs share a loop without waiting for one another.

    A failed run is data: nothing an agent does raises out of `next`.
    """

    def __init__(
        self,
        program: AgentProgram,
        task: Task,
        *,
        recorder: SpanRecorder,
        limits: RunLimits | None = None,
        reward: RewardFunction | None = None,
        require_reward: bool = True,
        trainable: Trainable = None,
    ) -> None:
        """A run that starts with the first `next`.

        With `require_reward=False` a run without any reward is a success, too: for demonstrations and for
        use without learning. Calls that are not `trainable` are answered by the agent's own models, where it
        has some.
        """
        self.task = task
        self.recorder = recorder
        self.limits = limits or RunLimits()
        self._program = program
        self._reward = reward
        self._require_reward = require_reward
        self._trainable = trainable
        self._lock = threading.Lock()
        self._waiting: dict[str, WaitingCall] = {}
        self._withdrawn: set[str] = set()
        self._num_calls = 0
        self._reward_error: str | None = None
        self._stage: Origin = "agent"
        self._returned: Mapping[str, Any] = {}
        """Whose code is at work, and so to blame for an error."""
        self._abort: PolicyAbort | None = None
        self._end: RunEnd | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread_id = 0
        self._agent: asyncio.Task[RunEnd] | None = None
        self._changed: asyncio.Future[None] | None = None
        self._clock = AgentClock(self.limits.max_seconds, self._time_is_up)

    # For whoever steps the run

    @property
    def end(self) -> RunEnd | None:
        """How the run ended; None before it has."""
        return self._end

    @property
    def trajectory(self) -> Trajectory:
        """What was recorded so far."""
        recorder = self.recorder
        return trajectory_from_spans(
            recorder.spans,
            rollout_id=recorder.rollout_id,
            attempt_id=recorder.attempt_id,
            task_id=self.task.task_id,
        )

    async def next(self, seen: Collection[str] = ()) -> list[PendingCall] | RunEnd:
        """All calls that wait for an answer, once there is one whose id is not in `seen`; or the end."""
        if self._agent is None and self._end is None:
            self._start()
        while self._end is None:
            assert self._agent is not None
            if self._agent.done():
                self._finish(self._agent.result())
            elif self._abort is not None:
                await self._stop()
            elif any(call_id not in seen for call_id in self._waiting):
                return [waiting.call for waiting in self._waiting.values()]
            else:
                await self._change()
        return self._end

    def answer(
        self, call_id: str, completion: Completion, attributes: Mapping[str, Any] | None = None
    ) -> None:
        """Gives a pending call its answer; `attributes` are added to its span.

        An answer to a call that the agent has given up meanwhile is dropped.

        Raises:
            RunOver: no call of this id is pending.
        """
        waiting = self._take(call_id)
        if waiting is None:
            return
        waiting.span.end(attributes={**answer_attributes(completion), **(attributes or {})})
        waiting.resolve(completion)

    def fail(self, call_id: str, error: BaseException, origin: Origin = "engine") -> None:
        """Ends the run because this call cannot be answered."""
        waiting = self._take(call_id)
        if waiting is None:
            return
        waiting.span.fail(error, {names.ERROR_ORIGIN: origin, names.ERROR_TYPE: type(error).__name__})
        abort = PolicyAbort(describe(error), origin)
        self._begin_abort(abort)
        waiting.refuse(abort)

    def pass_on(self, call_id: str, error: Exception, attributes: Mapping[str, Any]) -> None:
        """Raises the error in the agent, where it waits for this call; the run goes on. See `answer`."""
        waiting = self._take(call_id)
        if waiting is not None:
            waiting.span.fail(error, attributes)
            waiting.reject(error)

    async def abort(self, reason: str, origin: Origin = "raybolt") -> RunEnd:
        """Ends the run from outside, within about a second.

        The agent gets `PolicyAbort` from its pending calls, then it is cancelled, a blocking one interrupted.
        One that takes no notice (it sits in a C call, or swallows everything) is left behind with a warning.
        """
        if self._agent is None and self._end is None:
            self._root = self._begin_root()
            self._finish(RunEnd(error=reason, origin=origin))
        else:
            self._begin_abort(PolicyAbort(reason, origin))
        end = await self.next()
        assert isinstance(end, RunEnd)
        return end

    # For the agent's model (PolicyPort)

    def takes(self, request: ChatRequest) -> bool:
        """Whether the policy answers this call. See `PolicyPort`."""
        return takes(self._trainable, request)

    def observe(self, request: ChatRequest) -> AbstractContextManager[ObservedCall]:
        """Records a call of the agent's own model. See `PolicyPort`."""
        try:
            return observed(self._begin_call(request)[1])
        except PolicyAbort:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._wake)
            raise

    async def complete(self, request: ChatRequest) -> Completion:
        """The policy's answer. See `PolicyPort`."""
        if asyncio.get_running_loop() is not self._loop:
            return await asyncio.wrap_future(self._ask_from_elsewhere(request))
        if self._abort is not None:
            await asyncio.sleep(0.01)  # an agent that swallows the abort must not keep the loop to itself
        future: asyncio.Future[Completion] = self._loop.create_future()
        try:
            waiting = self._admit(request, future)
        except PolicyAbort:
            self._wake()
            raise
        self._show(waiting)
        try:
            return await future
        except asyncio.CancelledError:
            self._withdraw(waiting)
            raise

    def complete_sync(self, request: ChatRequest) -> Completion:
        """The policy's answer, for blocking code. See `PolicyPort`.

        Raises:
            BlockingCall: it was called on the event loop's own thread, which could then never answer.
        """
        if threading.get_ident() == self._thread_id:
            raise BlockingCall(
                "an async agent made a blocking LLM call on the event loop's thread, which would stop every "
                "run; use the client's async call, or make the agent a plain function"
            )
        return self._ask_from_elsewhere(request).result()

    # For emitters

    def reject_reward(self, reason: str) -> None:
        """Notes that an emitted reward was none, which makes the run fail when it ends."""
        self._reward_error = self._reward_error or reason

    # The agent's side

    def _start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        widen(self._loop)
        adopt_foreign_spans()
        self._root = self._begin_root()
        context = copy_context()
        context.run(current_run.set, RunContext(self, self._root.span_id))
        self._clock.start(self._loop)
        self._agent = self._loop.create_task(self._run_agent(), context=context)
        self._agent.add_done_callback(lambda _: self._wake())

    def _begin_root(self) -> OpenSpan:
        name = self._program.name
        attributes = {names.OPERATION: names.INVOKE_AGENT, names.AGENT_NAME: name}
        return self.recorder.begin(f"invoke_agent {name}", attributes=attributes)

    async def _run_agent(self) -> RunEnd:
        """The agent's whole life, its reward included; every failure ends here, with its origin."""
        try:
            result = await self._program.run(self.task, self)
            if self._abort is not None:
                return _failure(self._abort)
            self._check_called()
            self._stage = "reward"
            self._returned = result_attributes(result)  # kept whatever becomes of the reward
            await self._collect_reward(result)
            return RunEnd(result=result)
        except KeyboardInterrupt:
            raise
        except PolicyAbort as abort:
            return _failure(self._abort or abort)
        except BaseException as error:  # foreign code: SystemExit and cancellation must not reach siblings
            if self._abort is not None:
                return _failure(self._abort)
            if isinstance(error, asyncio.CancelledError):
                return RunEnd(error="the agent was cancelled", origin=self._stage, exception=error)
            return RunEnd(error=describe(error), origin=self._stage, exception=error)

    def _check_called(self) -> None:
        if self._num_calls == 0:
            raise NoCall(
                "the agent made no LLM call that reached the policy, so there is nothing to learn from; see "
                "that it uses the model it was given"
            )

    async def _collect_reward(self, result: Any) -> None:
        if self._reward_error is not None:
            raise InvalidValue(self._reward_error)
        trajectory = self.trajectory
        if self._reward is not None:
            value = await self._call_reward(self._reward, result, trajectory)
        elif is_number(result):
            value = result
        elif trajectory.rewards or not self._require_reward:
            return
        else:
            returned = "nothing" if result is None else f"a value of type {type(result).__name__}"
            raise NoReward(
                f"the run has no reward: the agent returned {returned} and emitted none; give a reward "
                "function, return a number or call raybolt.emit_reward"
            )
        self.recorder.record(
            "reward",
            parent_id=self._root.span_id,
            attributes={names.KIND: FINAL_REWARD, names.REWARD: as_reward(value)},
        )

    async def _call_reward(self, reward: RewardFunction, result: Any, trajectory: Trajectory) -> Any:
        self._clock.restart()
        if inspect.iscoroutinefunction(reward):
            return await reward(self.task, result, trajectory)
        value = await run_in_thread(reward, self.task, result, trajectory)
        return await value if inspect.isawaitable(value) else value

    # Calls in and out

    def _admit(
        self, request: ChatRequest, future: Future[Completion] | asyncio.Future[Completion]
    ) -> WaitingCall:
        """A call for the policy, in the thread and context of the agent's code. Raises as `_begin_call`."""
        call_id, span = self._begin_call(request)
        return WaitingCall(PendingCall(call_id, request.role, request), span, future)

    def _begin_call(self, request: ChatRequest) -> tuple[str, OpenSpan]:
        """Counts a call and opens its span.

        Raises:
            PolicyAbort: the run is over, or this call crosses its limit.
        """
        with self._lock:
            if self._end is not None:
                raise PolicyAbort("the run has ended", "raybolt")
            if self._abort is None and self._num_calls >= self.limits.max_calls:
                self._abort = PolicyAbort(f"the agent made more than {self.limits.max_calls} LLM calls")
            if self._abort is not None:
                raise PolicyAbort(self._abort.reason, self._abort.origin)
            call_id = f"call-{self._num_calls}"
            self._num_calls += 1
        trainable = self.takes(request)
        return call_id, begin_chat_span(self, self._root.span_id, call_id, request, trainable=trainable)

    def _ask_from_elsewhere(self, request: ChatRequest) -> Future[Completion]:
        """The answer to a call made in another thread or event loop."""
        future: Future[Completion] = Future()
        assert self._loop is not None
        try:
            waiting = self._admit(request, future)
            self._loop.call_soon_threadsafe(self._show, waiting)
        except PolicyAbort:
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._wake)
            time.sleep(0.01)  # see `complete`
            raise
        except RuntimeError:
            raise PolicyAbort("the run's event loop is closed", "raybolt") from None
        future.add_done_callback(partial(self._withdraw_from_elsewhere, waiting))
        return future

    def _withdraw_from_elsewhere(self, waiting: WaitingCall, future: Future[Completion]) -> None:
        assert self._loop is not None
        if future.cancelled():
            with suppress(RuntimeError):  # the loop may have closed, and the run with it
                self._loop.call_soon_threadsafe(self._withdraw, waiting)

    def _show(self, waiting: WaitingCall) -> None:
        if self._abort is not None or self._end is not None:
            waiting.refuse(self._abort or PolicyAbort("the run has ended", "raybolt"))
            return
        self._waiting[waiting.call.call_id] = waiting
        self._clock.pause()
        self._wake()

    def _take(self, call_id: str) -> WaitingCall | None:
        """The pending call, pending no longer; None if the agent gave it up."""
        waiting = self._waiting.pop(call_id, None)
        if waiting is None:
            if call_id in self._withdrawn or self._abort is not None:
                return None
            raise RunOver(f"call {call_id!r} is not pending; pending are {list(self._waiting) or 'none'}")
        if not self._waiting:
            self._clock.resume()
        return waiting

    def _withdraw(self, waiting: WaitingCall) -> None:
        """The agent has stopped waiting for this call."""
        call_id = waiting.call.call_id
        if call_id in self._waiting:
            self._take(call_id)
            self._withdrawn.add(call_id)
            waiting.span.end("error", GIVEN_UP)

    # Ending

    def _time_is_up(self) -> None:
        who = "agent" if self._stage == "agent" else "reward function"
        self._begin_abort(PolicyAbort(f"the {who} took more than {self.limits.max_seconds:g} seconds"))

    def _begin_abort(self, abort: PolicyAbort) -> None:
        with self._lock:
            self._abort = self._abort or abort
        self._wake()

    async def _stop(self) -> None:
        """Makes the agent leave, or leaves it behind."""
        assert self._agent is not None
        assert self._abort is not None
        waiting, self._waiting = list(self._waiting.values()), {}
        for each in waiting:
            each.span.end("error", self._abort.reason)
            each.refuse(self._abort)
        await asyncio.wait([self._agent], timeout=_GRACE_SECONDS)
        if not self._agent.done():
            self._agent.cancel()
            await asyncio.wait([self._agent], timeout=_STOP_SECONDS)
        if not self._agent.done():
            _log.warning("an agent on task %r ignores its end and is left behind", self.task.task_id)
            self._finish(_failure(self._abort))

    def _finish(self, end: RunEnd) -> None:
        self._clock.stop()
        self.recorder.cut_off()
        if end.failed:
            failure = {names.ERROR_ORIGIN: end.origin, names.ERROR_TYPE: end.error_type}
            attributes = {**self._returned, **failure}
            if end.exception is not None:
                self._root.fail(end.exception, attributes)
            else:
                self._root.end("error", end.error, attributes)
        else:
            self._root.end(attributes=self._returned)
        with self._lock:
            self._end = end
        self.recorder.close()

    async def _change(self) -> None:
        assert self._loop is not None
        self._changed = self._loop.create_future()
        try:
            await self._changed
        finally:
            self._changed = None

    def _wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)


def _failure(abort: PolicyAbort) -> RunEnd:
    return RunEnd(error=abort.reason, origin=abort.origin)

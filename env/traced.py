"""A run that nobody steps: the agent talks to its own models, and everything is recorded."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, NoReturn

from raybolt.env.adoption import adopt_foreign_spans
from raybolt.env.chat import ChatRequest, Completion
from raybolt.env.context import RunContext, current_run
from raybolt.env.observed import ObservedCall, begin_chat_span, observed
from raybolt.env.recorder import SpanRecorder, describe
from raybolt.env.results import result_attributes
from raybolt.env.trajectory import Trajectory, trajectory_from_spans
from raybolt.store import names
from raybolt.store.errors import RayboltError

_UNTOLD: Final = object()
_UNTOLD_WHY: Final = "its block set none; in `with raybolt.trace(…) as run`, assign it to run.result"


class TracedRun:
    """One traced run. It is the agent's `PolicyPort`, too: a policy that takes no call.

    Without limits and without a clock: tracing must not change what the agent does.
    """

    def __init__(self, name: str, recorder: SpanRecorder) -> None:
        self.recorder = recorder
        self.error: str | None = None
        """Type and message of what made the run fail; None for one that succeeded or goes on."""
        self.error_type: str | None = None
        self.origin: str | None = None
        """Whose failure it was: "agent" or "reward"."""
        self.result: Any = _UNTOLD
        """What the code came to. A block sets it; of a decorated function it is what it returned."""
        self._name = name
        self._lock = threading.Lock()
        self._num_calls = 0
        attributes = {names.OPERATION: names.INVOKE_AGENT, names.AGENT_NAME: name}
        self._root = recorder.begin(f"invoke_agent {name}", attributes=attributes)

    @property
    def rollout_id(self) -> str:
        """The rollout's id in the store."""
        return self.recorder.rollout_id

    @property
    def num_calls(self) -> int:
        """LLM calls seen so far."""
        return self._num_calls

    @property
    def trajectory(self) -> Trajectory:
        """What was recorded so far."""
        recorder = self.recorder
        return trajectory_from_spans(
            recorder.spans, rollout_id=recorder.rollout_id, attempt_id=recorder.attempt_id
        )

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Inside the block code belongs to this run; the block's end is the run's."""
        adopt_foreign_spans()
        token = current_run.set(RunContext(self, self._root.span_id, self._name))
        try:
            yield
        except BaseException as error:
            self._fail(describe(error), type(error).__name__, "agent")
            self._end(error)
            raise
        else:
            self._end(None)
        finally:
            current_run.reset(token)

    def reject_reward(self, reason: str) -> None:
        """Notes that an emitted reward was none: the run counts as failed."""
        self._fail(reason, "InvalidValue", "reward")

    def takes(self, request: ChatRequest) -> bool:
        """False: every call is the agent's own model's."""
        return False

    def observe(self, request: ChatRequest) -> AbstractContextManager[ObservedCall]:
        """Records a call of the agent's own model."""
        with self._lock:
            call_id = f"call-{self._num_calls}"
            self._num_calls += 1
        return observed(begin_chat_span(self, self._root.span_id, call_id, request, trainable=False))

    async def complete(self, request: ChatRequest) -> Completion:
        """Raises RayboltError: there is no policy."""
        self._no_policy(request)

    def complete_sync(self, request: ChatRequest) -> Completion:
        """Raises RayboltError: there is no policy."""
        self._no_policy(request)

    def _no_policy(self, request: ChatRequest) -> NoReturn:
        raise RayboltError(
            f"role {request.role!r} called raybolt's policy model in a traced run, where no policy answers; "
            "give the agent its own LLM"
        )

    def _fail(self, error: str, error_type: str, origin: str) -> None:
        if self.error is None:
            self.error, self.error_type, self.origin = error, error_type, origin

    def _end(self, error: BaseException | None) -> None:
        self.recorder.cut_off()
        told = self.result is not _UNTOLD
        attributes = result_attributes(self.result) if told else {names.RESULT_MISSING: _UNTOLD_WHY}
        if self.error is not None:
            attributes |= {names.ERROR_ORIGIN: self.origin, names.ERROR_TYPE: self.error_type}
        if error is not None:
            self._root.fail(error, attributes)
        elif self.error is not None:
            self._root.end("error", self.error, attributes)
        else:
            self._root.end(attributes=attributes)
        self.recorder.close()

"""The policy's side of a run: where an agent's LLM calls go in and the answers come out.

An adapter's policy model (`PolicyChatModel` and its like) talks to a `PolicyPort` and knows nothing else
of a run. What steps the run sees `PendingCall`s and gives back a `Completion`, or `Sampled` tokens.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from raybolt.env.chat import ChatRequest, Completion, Logprobs, TokenIds
from raybolt.env.task import Task

if TYPE_CHECKING:
    from raybolt.env.observed import ObservedCall

Origin = Literal["agent", "policy", "reward", "limit", "engine", "store", "raybolt"]
"""Where a failure came from: the agent's code, the policy's answer, the reward function, a limit, the
engine, or raybolt itself."""


class PolicyAbort(BaseException):
    """Ends an agent from inside its LLM call.

    It is no `Exception`, so that no retry, fallback or broad `except Exception` of a framework holds it up.
    """

    def __init__(self, reason: str, origin: Origin = "limit") -> None:
        super().__init__(reason)
        self.reason = reason
        self.origin: Origin = origin


class PolicyPort(Protocol):
    """What an agent's model calls instead of an LLM."""

    def takes(self, request: ChatRequest) -> bool:
        """Whether the policy answers this call.

        If not, the agent's own model must, inside `observe`. Where the agent has no model of its own, it may
        `complete` all the same: the policy then answers, and the call is kept out of learning.
        """

    def observe(self, request: ChatRequest) -> AbstractContextManager[ObservedCall]:
        """Records a call that the agent's own model answers inside the block.

        It counts towards the run's calls. An exception in the block fails the call's span and passes.

        Raises:
            PolicyAbort: as `complete`.
        """

    async def complete(self, request: ChatRequest) -> Completion:
        """The policy's answer; callable from any event loop.

        Raises:
            PolicyAbort: the run is over (a limit, a failed engine, a cancellation). Let it through.
        """

    def complete_sync(self, request: ChatRequest) -> Completion:
        """The same for blocking code, from any thread but that of the run's event loop."""


@runtime_checkable
class AgentProgram(Protocol):
    """An agent as an adapter hands it over: something that runs on one task with a policy.

    One program serves many runs at once; whatever state a run needs is made inside `run`.
    Blocking agent code belongs in `env.executor.run_in_thread`.
    """

    @property
    def name(self) -> str: ...

    async def run(self, task: Task, policy: PolicyPort) -> Any:
        """The agent's result on the task. Errors of the agent's code pass through unchanged."""


@dataclass(frozen=True, slots=True)
class PendingCall:
    """An LLM call of a run that waits for its answer."""

    call_id: str
    """Unique in its run: "call-0", "call-1", … in the order in which the calls were made."""
    role: str
    request: ChatRequest


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """Tokens that an engine sampled for a call: the action of the environment, with what learning needs."""

    response_ids: TokenIds
    logprobs: Logprobs | None = None
    """One per response token, under the distribution it was sampled from."""
    weights_version: int | None = None
    temperature: float | None = None
    policy: str | None = None
    """Which policy spoke; None where there is only one."""


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run ended."""

    result: Any = None
    """What the agent returned; None if it failed."""
    error: str | None = None
    """Type and message of what made the run fail; None for a run that succeeded."""
    origin: Origin | None = None
    exception: BaseException | None = field(default=None, compare=False, repr=False)

    @property
    def failed(self) -> bool:
        return self.error is not None

    @property
    def error_type(self) -> str | None:
        """The class of the exception behind the failure; `PolicyAbort` if a limit or the engine ended it."""
        return _error_type(self.exception) if self.failed else None

    def to_metadata(self) -> dict[str, Any]:
        """What the attempt in the store keeps of a failure; empty after a success."""
        if not self.failed:
            return {}
        return {"error": self.error, "error_type": self.error_type, "origin": self.origin}


def _error_type(exception: BaseException | None) -> str:
    return type(exception).__name__ if exception is not None else PolicyAbort.__name__

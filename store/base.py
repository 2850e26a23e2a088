"""The store's contract: ``LightningStore``, which every implementation fulfils alike.

A rollout is enqueued, dequeued by a runner (which starts an attempt), reported on by spans, and ended by
the status of its attempt::

    queuing ─dequeue─► preparing ─first span─► running ─► succeeded | failed
       ▲                                          │
       └── requeuing ◄── failed, timeout, unresponsive (if config.retry_condition and max_attempts allow)

``cancelled`` is set by ``update_rollout``. An ended rollout never changes its status again; an attempt
that is no longer its rollout's latest changes nothing but itself. Rewards are span attributes, so a failed
rollout is a status and never a number.

Every write is acknowledged (the ``await`` returns) after it is journalled, if the store has a journal, and
may be sent twice: ids make the second one a no-op. Unknown ids raise ``UnknownRollout`` and its siblings,
of the same type in process and remotely.
"""

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Literal, Self, TypeVar

from .errors import StoreError
from .types import (
    UNSET,
    Attempt,
    AttemptedRollout,
    AttemptStatus,
    EnqueueRolloutRequest,
    Group,
    GroupHandle,
    GroupStatus,
    Json,
    Mode,
    ResourcesUpdate,
    Rollout,
    RolloutConfig,
    RolloutStatus,
    Span,
    Unset,
)

T = TypeVar("T")
Latest = Literal["latest"]


class LightningStore(ABC):
    """What happened: rollouts, attempts, spans, groups and resources. See the module's docstring.

    Stores are asynchronous context managers; leaving one closes it. Where there is no event loop, pass the
    coroutine to ``blocking``: ``handles = blocking(store.take_groups(24))``.
    """

    # Rollouts

    @abstractmethod
    async def enqueue_many_rollouts(self, requests: Sequence[EnqueueRolloutRequest]) -> list[Rollout]:
        """Queues the rollouts in order, all or none of them, and returns them.

        A request that repeats the ``rollout_id`` of an existing rollout returns that one if input, task and
        group agree, and raises ``InvalidValue`` otherwise. So does one that overfills a declared group.
        """

    async def enqueue_rollout(
        self,
        input: Json,
        *,
        task_id: str | None = None,
        group_id: str | None = None,
        mode: Mode | None = None,
        resources_id: str | None = None,
        config: RolloutConfig | None = None,
        metadata: Mapping[str, Json] | None = None,
        rollout_id: str | None = None,
    ) -> Rollout:
        """Queues one rollout, whose id is made up unless given, and returns it."""
        request = EnqueueRolloutRequest(
            input=input,
            task_id=task_id,
            group_id=group_id,
            mode=mode,
            resources_id=resources_id,
            config=config,
            metadata=metadata,
            rollout_id=rollout_id,
        )
        return (await self.enqueue_many_rollouts([request]))[0]

    @abstractmethod
    async def start_rollout(
        self,
        input: Json,
        *,
        task_id: str | None = None,
        group_id: str | None = None,
        mode: Mode | None = None,
        resources_id: str | None = None,
        config: RolloutConfig | None = None,
        metadata: Mapping[str, Json] | None = None,
        rollout_id: str | None = None,
        worker_id: str | None = None,
    ) -> AttemptedRollout:
        """Creates a rollout with its first attempt started by the caller; it is never in the queue."""

    @abstractmethod
    async def dequeue_many_rollouts(
        self, limit: int, *, worker_id: str | None = None
    ) -> list[AttemptedRollout]:
        """Starts an attempt on each of the up to ``limit`` rollouts that waited longest; never blocks."""

    async def dequeue_rollout(self, worker_id: str | None = None) -> AttemptedRollout | None:
        """Starts an attempt on the rollout that waited longest; None when the queue is empty."""
        taken = await self.dequeue_many_rollouts(1, worker_id=worker_id)
        return taken[0] if taken else None

    @abstractmethod
    async def update_rollout(
        self,
        rollout_id: str,
        *,
        input: Json | Unset = UNSET,
        mode: Mode | Unset | None = UNSET,
        resources_id: str | Unset | None = UNSET,
        status: RolloutStatus | Unset = UNSET,
        config: RolloutConfig | Unset = UNSET,
        metadata: Mapping[str, Json] | Unset = UNSET,
    ) -> Rollout:
        """Sets the given fields and returns the rollout; status ``queuing`` or ``requeuing`` queues it."""

    @abstractmethod
    async def get_rollout_by_id(self, rollout_id: str) -> Rollout | None:
        """Returns the rollout, or None when there is none with this id."""

    @abstractmethod
    async def query_rollouts(
        self,
        *,
        status_in: Iterable[RolloutStatus] | None = None,
        rollout_id_in: Iterable[str] | None = None,
        group_id_in: Iterable[str] | None = None,
        mode: Mode | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Rollout]:
        """Returns the rollouts that pass every given filter, in order of enqueuing."""

    @abstractmethod
    async def wait_for_rollouts(
        self, rollout_ids: Iterable[str], timeout: float | None = None
    ) -> list[Rollout]:
        """Returns, once all have ended or ``timeout`` seconds have passed, those that ended, in order."""

    # Attempts

    @abstractmethod
    async def start_attempt(self, rollout_id: str, *, worker_id: str | None = None) -> AttemptedRollout:
        """Starts a further attempt, which supersedes earlier ones, and takes the rollout off the queue."""

    @abstractmethod
    async def update_attempt(
        self,
        rollout_id: str,
        attempt_id: str | Latest,
        *,
        status: AttemptStatus | Unset = UNSET,
        worker_id: str | Unset | None = UNSET,
        last_heartbeat_time: float | Unset = UNSET,
        metadata: Mapping[str, Json] | Unset = UNSET,
    ) -> Attempt:
        """Sets the given fields and returns the attempt; the latest one's status moves its rollout."""

    @abstractmethod
    async def query_attempts(self, rollout_id: str) -> list[Attempt]:
        """Returns the rollout's attempts, oldest first."""

    @abstractmethod
    async def get_latest_attempts(self, rollout_ids: Iterable[str]) -> list[Attempt | None]:
        """Returns each rollout's last attempt, or None where nobody has tried it yet, in the order given."""

    async def get_latest_attempt(self, rollout_id: str) -> Attempt | None:
        """Returns the rollout's last attempt, or None when nobody has tried it yet."""
        return (await self.get_latest_attempts([rollout_id]))[0]

    # Spans

    @abstractmethod
    async def add_many_spans(self, spans: Sequence[Span]) -> int:
        """Adds the spans, all or none, of any rollouts; returns how many were new.

        A span whose id its attempt already has is skipped. The first span of an attempt sets it running.
        An attribute that is neither JSON nor a 1-D array of ``ARRAY_DTYPES`` raises ``InvalidValue``.
        """

    async def add_span(self, span: Span) -> bool:
        """Adds the span; False when its attempt already has one with its id."""
        return await self.add_many_spans([span]) == 1

    @abstractmethod
    async def query_spans(self, rollout_id: str, attempt_id: str | Latest | None = None) -> list[Span]:
        """Returns the spans of one attempt, or of all (None), ordered by attempt and sequence id."""

    # Groups

    @abstractmethod
    async def declare_group(self, group_id: str, num_rollouts: int, *, task_id: str | None = None) -> Group:
        """Says that the group is complete once ``num_rollouts`` of it have ended, however they end."""

    @abstractmethod
    async def query_groups(
        self, *, status_in: Iterable[GroupStatus] | None = None, group_id_in: Iterable[str] | None = None
    ) -> list[Group]:
        """Returns the groups that pass every given filter, oldest first."""

    @abstractmethod
    async def take_groups(self, limit: int, *, group_id_in: Iterable[str] | None = None) -> list[GroupHandle]:
        """Hands out up to ``limit`` complete groups, first completed first, each of them once."""

    @abstractmethod
    async def get_group(self, group_id: str) -> GroupHandle:
        """Hands out a group whatever its status, without taking it: to read it again, or after a crash."""

    # Resources

    @abstractmethod
    async def add_resources(
        self, resources: Mapping[str, Json], *, resources_id: str | None = None
    ) -> ResourcesUpdate:
        """Adds version 1 of new resources, which become the latest."""

    @abstractmethod
    async def update_resources(self, resources_id: str, resources: Mapping[str, Json]) -> ResourcesUpdate:
        """Replaces the resources, one version up; they become the latest."""

    @abstractmethod
    async def get_resources_by_id(self, resources_id: str) -> ResourcesUpdate | None:
        """Returns the resources' last version, or None when there are none with this id."""

    @abstractmethod
    async def get_latest_resources(self) -> ResourcesUpdate | None:
        """Returns the resources that were added or updated last, or None."""

    # The store itself

    @abstractmethod
    async def statistics(self) -> dict[str, Any]:
        """Returns counts: ``rollouts`` and ``groups`` by status, ``attempts``, ``spans``, and ``lost``.

        ``lost`` says what opening the folder found in flight, by rollout id:
        ``{"requeued": [...], "failed": [...]}``.
        """

    @abstractmethod
    async def close(self) -> None:
        """Commits what is pending and lets go of the journal; closing twice does nothing."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def blocking(call: Coroutine[Any, Any, T]) -> T:
    """Returns the result of an asynchronous store call, for threads that run no event loop.

    Raises StoreError inside a running event loop, which it would stall: await the call there.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run_coroutine_threadsafe(call, _background_loop()).result()
    call.close()
    raise StoreError("blocking() was called inside a running event loop; await the store's method instead")


@cache
def _background_loop() -> asyncio.AbstractEventLoop:
    """One loop in one daemon thread per process, shared by all blocking calls."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="raybolt-store", daemon=True).start()
    return loop

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

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from .errors import StoreError
from .query import FilterLogic, SortOrder
from .types import (
    UNSET,
    Attempt,
    AttemptedRollout,
    AttemptStatus,
    Capabilities,
    Change,
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
    Worker,
    WorkerStatus,
)

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

Latest = Literal["latest"]
START = "0"
"""The cursor before all changes."""
SUBSCRIBE_SECONDS = 20.0
"""How long one question of ``subscribe`` may wait for a change; then it asks again."""


class LightningStore(ABC):
    """What happened: rollouts, attempts, spans, groups and resources. See the module's docstring.

    Stores are asynchronous context managers; leaving one closes it. Where there is no event loop, pass the
    coroutine to ``blocking``: ``handles = blocking(store.take_groups(24))``.
    """

    # Rollouts

    @abstractmethod
    async def enqueue_many_rollouts(self, rollouts: Sequence[EnqueueRolloutRequest]) -> list[Rollout]:
        """Queues the rollouts in order, all or none of them, and returns them.

        A request that repeats the ``rollout_id`` of an existing rollout returns that one if input, task and
        group agree, and raises ``InvalidValue`` otherwise. So do an id that is given twice in one call, and
        a request that overfills a declared group.
        """

    async def enqueue_rollout(
        self,
        input: Json,
        mode: Mode | None = None,
        resources_id: str | None = None,
        config: RolloutConfig | None = None,
        metadata: Mapping[str, Json] | None = None,
        *,
        task_id: str | None = None,
        group_id: str | None = None,
        rollout_id: str | None = None,
    ) -> Rollout:
        """Queues one rollout, whose id is made up unless given, and returns it.

        Without ``resources_id`` it gets the latest resources; one that nobody added is ``UnknownResources``.
        """
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
        mode: Mode | None = None,
        resources_id: str | None = None,
        config: RolloutConfig | None = None,
        metadata: Mapping[str, Json] | None = None,
        worker_id: str | None = None,
        *,
        task_id: str | None = None,
        group_id: str | None = None,
        rollout_id: str | None = None,
    ) -> AttemptedRollout:
        """Creates a rollout with its first attempt started by the caller; it is never in the queue."""

    @abstractmethod
    async def dequeue_many_rollouts(
        self, limit: int = 1, *, worker_id: str | None = None
    ) -> list[AttemptedRollout]:
        """Starts attempts on up to ``limit`` rollouts that waited longest; none if it is below 1. No wait."""

    async def dequeue_rollout(self, worker_id: str | None = None) -> AttemptedRollout | None:
        """Starts an attempt on the rollout that waited longest; None when the queue is empty."""
        taken = await self.dequeue_many_rollouts(1, worker_id=worker_id)
        return taken[0] if taken else None

    @abstractmethod
    async def update_rollout(
        self,
        rollout_id: str,
        input: Json | Unset = UNSET,
        mode: Mode | Unset | None = UNSET,
        resources_id: str | Unset | None = UNSET,
        status: RolloutStatus | Unset = UNSET,
        config: RolloutConfig | Unset = UNSET,
        metadata: Mapping[str, Json] | Unset = UNSET,
    ) -> Rollout:
        """Sets the given fields and returns the rollout; status ``queuing`` or ``requeuing`` queues it.

        Resources that nobody added are ``UnknownResources``; an ended rollout keeps its status
        (``InvalidTransition``).
        """

    @abstractmethod
    async def get_rollout_by_id(self, rollout_id: str) -> Rollout | None:
        """Returns the rollout, an ``AttemptedRollout`` once somebody has tried it; None if there is none."""

    @abstractmethod
    async def query_rollouts(
        self,
        *,
        status_in: Iterable[RolloutStatus] | None = None,
        rollout_id_in: Iterable[str] | None = None,
        rollout_id_contains: str | None = None,
        group_id_in: Iterable[str] | None = None,
        mode: Mode | None = None,
        filter_logic: FilterLogic = "and",
        sort_by: str | None = None,
        sort_order: SortOrder = "asc",
        limit: int = -1,
        offset: int = 0,
    ) -> list[Rollout]:
        """Returns the rollouts that pass every given filter (or any, with "or").

        In order of enqueuing, unless ``sort_by`` names a field; a limit of -1 is none. Those that somebody
        has tried are ``AttemptedRollout``s, with their last attempt.
        """

    @abstractmethod
    async def wait_for_rollouts(
        self, rollout_ids: Iterable[str], timeout: float | None = None
    ) -> list[Rollout]:
        """Returns, once all have ended or ``timeout`` seconds have passed, those that ended, in order."""

    @abstractmethod
    async def delete_rollouts(self, rollout_ids: Iterable[str]) -> int:
        """Deletes ended rollouts with their attempts and spans; returns how many there were.

        A group goes with the last of its rollouts. Raises ``InvalidTransition``, before anything is deleted,
        for a rollout that goes on, or that belongs to a declared group which nobody has taken for good: it
        is not taken, or on a lease that is not acknowledged.
        """

    @abstractmethod
    async def prune(self, older_than_seconds: float) -> int:
        """Deletes the rollouts that ended longer ago, as far as ``delete_rollouts`` may; returns how many."""

    # Attempts

    @abstractmethod
    async def start_attempt(self, rollout_id: str, worker_id: str | None = None) -> AttemptedRollout:
        """Starts a further attempt, which supersedes earlier ones, and takes the rollout off the queue."""

    @abstractmethod
    async def update_attempt(
        self,
        rollout_id: str,
        attempt_id: str | Latest,
        status: AttemptStatus | Unset = UNSET,
        worker_id: str | Unset | None = UNSET,
        last_heartbeat_time: float | Unset = UNSET,
        metadata: Mapping[str, Json] | Unset = UNSET,
    ) -> Attempt:
        """Sets the given fields and returns the attempt; the latest one's status moves its rollout."""

    @abstractmethod
    async def query_attempts(
        self,
        rollout_id: str,
        *,
        sort_by: str | None = "sequence_id",
        sort_order: SortOrder = "asc",
        limit: int = -1,
        offset: int = 0,
    ) -> list[Attempt]:
        """Returns the rollout's attempts, oldest first unless said otherwise."""

    @abstractmethod
    async def get_latest_attempts(self, rollout_ids: Iterable[str]) -> list[Attempt | None]:
        """Returns each rollout's last attempt, or None where nobody has tried it yet, in the order given."""

    async def get_latest_attempt(self, rollout_id: str) -> Attempt | None:
        """Returns the rollout's last attempt, or None when nobody has tried it yet."""
        return (await self.get_latest_attempts([rollout_id]))[0]

    # Spans

    @abstractmethod
    async def add_many_spans(self, spans: Sequence[Span]) -> list[Span]:
        """Adds the spans, all or none, of any rollouts; returns those that were new.

        A span whose id its attempt already has is skipped. The first span of an attempt sets it running.
        An attribute that is neither JSON nor a 1-D array of ``ARRAY_DTYPES`` raises ``InvalidValue``.
        """

    async def add_span(self, span: Span) -> Span | None:
        """Adds the span and returns it; None when its attempt already has one with its id."""
        return next(iter(await self.add_many_spans([span])), None)

    async def add_otel_span(
        self,
        rollout_id: str,
        attempt_id: str,
        readable_span: "ReadableSpan",
        sequence_id: int | None = None,
    ) -> Span | None:
        """Adds a span of OpenTelemetry's SDK to an attempt; numbered by the store unless given a number."""
        from .otel import from_otel

        if sequence_id is None:
            sequence_id = await self.get_next_span_sequence_id(rollout_id, attempt_id)
        return await self.add_span(from_otel(readable_span, rollout_id, attempt_id, sequence_id))

    @abstractmethod
    async def query_spans(
        self,
        rollout_id: str,
        attempt_id: str | Latest | None = None,
        *,
        trace_id: str | None = None,
        trace_id_contains: str | None = None,
        span_id: str | None = None,
        span_id_contains: str | None = None,
        parent_id: str | None = None,
        parent_id_contains: str | None = None,
        name: str | None = None,
        name_contains: str | None = None,
        filter_logic: FilterLogic = "and",
        limit: int = -1,
        offset: int = 0,
        sort_by: str | None = None,
        sort_order: SortOrder = "asc",
    ) -> list[Span]:
        """Returns the spans of one attempt, or of all (None), that pass the filters.

        Ordered by attempt and sequence id, unless ``sort_by`` names a field. A rollout that nobody has tried
        has no spans, of its "latest" attempt either.
        """

    @abstractmethod
    async def get_many_span_sequence_ids(self, rollout_attempt_ids: Sequence[tuple[str, str]]) -> list[int]:
        """Returns, for each (rollout id, attempt id), a number larger than any that the attempt has had."""

    async def get_next_span_sequence_id(self, rollout_id: str, attempt_id: str) -> int:
        """Returns the attempt's next span number: 1, 2, …"""
        return (await self.get_many_span_sequence_ids([(rollout_id, attempt_id)]))[0]

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
    async def wait_for_groups(self, group_ids: Iterable[str], timeout: float | None = None) -> list[Group]:
        """Returns, once all are complete or ``timeout`` seconds have passed, those that are, in order."""

    @abstractmethod
    async def take_groups(
        self,
        limit: int,
        *,
        group_id_in: Iterable[str] | None = None,
        lease_seconds: float | None = None,
    ) -> list[GroupHandle]:
        """Hands out up to ``limit`` complete groups, first completed first, each of them once.

        Fewer, if there is no room for all of them where groups are sealed; ``StoreFull`` if for none.
        With a lease, a group that is not acknowledged in time is complete again and goes to the next taker:
        so that nothing is lost with a learner that dies.
        """

    @abstractmethod
    async def acknowledge_groups(self, handles: Iterable[GroupHandle]) -> None:
        """Says that groups which ``take_groups`` handed out were used: their leases end, they stay taken.

        Raises ``InvalidTransition``, before anything is changed, if one's lease has run out, whether or not
        somebody else has taken it since: what came late leaves the next taker's lease as it is.
        """

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

    @abstractmethod
    async def query_resources(
        self,
        *,
        resources_id: str | None = None,
        resources_id_contains: str | None = None,
        sort_by: str | None = None,
        sort_order: SortOrder = "asc",
        limit: int = -1,
        offset: int = 0,
    ) -> list[ResourcesUpdate]:
        """Returns the last versions of the resources that pass the filters, the latest at the end."""

    # Workers

    @abstractmethod
    async def update_worker(
        self, worker_id: str, heartbeat_stats: Mapping[str, Json] | Unset = UNSET
    ) -> Worker:
        """Notes a heartbeat, which keeps the worker's attempts alive; they say whether it is busy."""

    @abstractmethod
    async def query_workers(
        self,
        *,
        status_in: Iterable[WorkerStatus] | None = None,
        worker_id_contains: str | None = None,
        filter_logic: FilterLogic = "and",
        sort_by: str | None = None,
        sort_order: SortOrder = "asc",
        limit: int = -1,
        offset: int = 0,
    ) -> list[Worker]:
        """Returns the workers that pass the filters, the first heard of first."""

    @abstractmethod
    async def get_worker_by_id(self, worker_id: str) -> Worker | None:
        """Returns the worker, or None when nobody of this id was heard of."""

    # The store itself

    @abstractmethod
    async def get_changes(
        self, cursor: str = START, *, limit: int = 1000, timeout: float | None = 0
    ) -> list[Change]:
        """Returns up to ``limit`` changes behind the cursor, waiting up to ``timeout`` seconds for the first.

        The last one's cursor is where to go on, also after the store was opened again. A cursor of another
        store, or one so old that what followed is no longer kept, raises ``InvalidValue``.
        """

    async def subscribe(self, cursor: str = START) -> AsyncIterator[Change]:
        """Yields every change behind the cursor, and then each as it comes, for ever."""
        while True:
            for change in await self.get_changes(cursor, timeout=SUBSCRIBE_SECONDS):
                yield change
                cursor = change.cursor

    @abstractmethod
    async def statistics(self) -> dict[str, Any]:
        """Returns counts: ``rollouts`` and ``groups`` by status, ``attempts``, ``spans``, and what follows.

        - ``queued``: how many rollouts wait; ``oldest_queued_seconds``: for how long the first of them has,
          None if nobody waits; ``attempts_in_flight``: how many attempts somebody is at work on.
        - ``lost``: what opening the folder found in flight, by rollout id:
          ``{"requeued": [...], "failed": [...]}``.
        - ``num_shards``, ``journal_bytes`` (on disk, log included; 0 in memory).
        - Under Agent Lightning's names: ``name``, ``total_rollouts`` and its like, ``total_span_bytes`` (held
          in memory) and ``uptime`` in seconds.
        """

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What this store can do."""

    def otlp_traces_endpoint(self) -> str:
        """Where OTLP/HTTP exporters send to; StoreError from a store whose capabilities lack it."""
        raise StoreError(
            f"a {type(self).__name__} takes no OTLP/HTTP traces; serve it, and ask its HttpStore where to"
        )

    @abstractmethod
    async def compact(self) -> None:
        """Gives the room of what was deleted back to the system; a folder's file may take a while."""

    @abstractmethod
    async def close(self) -> None:
        """Commits what is pending and lets go of the journal; closing twice does nothing."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

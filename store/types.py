"""What the store keeps: rollouts, attempts, spans, groups, resources. Immutable snapshots, no behaviour.

Times are seconds since the Unix epoch. Everything a caller gets is a snapshot: the store replaces its own
object on a change and never mutates one that was handed out.
"""

import enum
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, TypeAlias, TypedDict, get_args

from .errors import InvalidValue

Json: TypeAlias = Any
"""A JSON value: None, bool, int, float, str, or lists and str-keyed dicts of those."""

AttributeValue: TypeAlias = Any
"""A JSON value or a 1-D array with one of ``ARRAY_DTYPES``."""

ARRAY_DTYPES: Final = ("int32", "float32", "int64", "float64", "uint8")

Mode: TypeAlias = Literal["train", "val", "test", "demo"]
RolloutStatus: TypeAlias = Literal[
    "queuing", "preparing", "running", "succeeded", "failed", "cancelled", "requeuing"
]
AttemptStatus: TypeAlias = Literal["preparing", "running", "succeeded", "failed", "timeout", "unresponsive"]
GroupStatus: TypeAlias = Literal["open", "complete", "taken"]
SpanStatus: TypeAlias = Literal["ok", "error", "unset"]
WorkerStatus: TypeAlias = Literal["idle", "busy", "unknown"]
ChangeKind: TypeAlias = Literal["rollout", "attempt", "spans", "group", "resources", "deleted"]

ENDED_ROLLOUT: Final[frozenset[RolloutStatus]] = frozenset({"succeeded", "failed", "cancelled"})
ENDED_ATTEMPT: Final[frozenset[AttemptStatus]] = frozenset({"succeeded", "failed", "timeout"})
"""Statuses an attempt never leaves. An ``unresponsive`` one may still report its outcome."""


class Capabilities(TypedDict):
    """What a store can do."""

    thread_safe: bool
    async_safe: bool
    zero_copy: bool
    """Whether processes of one node read groups from the same memory."""
    otlp_traces: bool
    """Whether it takes OTLP/HTTP traces."""
    durable: bool
    """Whether what it acknowledged survives its process."""


class Unset(enum.Enum):
    """The type of ``UNSET``, which an update takes as "leave this field as it is"."""

    UNSET = "UNSET"

    def __repr__(self) -> str:
        return self.value


UNSET: Final = Unset.UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutConfig:
    """When an attempt is given up and whether the rollout is tried again."""

    timeout_seconds: float | None = None
    """Longest duration of an attempt."""
    unresponsive_seconds: float | None = None
    """Longest silence (no span, no heartbeat) of an attempt."""
    max_attempts: int = 1
    """Attempts in all, the first included."""
    retry_condition: tuple[AttemptStatus, ...] = ()
    """Attempt outcomes after which the rollout is queued again."""

    def __post_init__(self) -> None:
        if type(self.max_attempts) is not int or self.max_attempts < 1:
            raise InvalidValue(
                f"max_attempts is {self.max_attempts!r}; the first try counts, so give 1 or more"
            )
        for name in ("timeout_seconds", "unresponsive_seconds"):
            seconds = getattr(self, name)
            if seconds is not None and not (
                isinstance(seconds, int | float) and 0 < seconds <= sys.float_info.max
            ):
                raise InvalidValue(f"{name} is {seconds!r}; give a number above 0, or None for no limit")
        if isinstance(self.retry_condition, str) or not isinstance(self.retry_condition, Iterable):
            raise InvalidValue(f"retry_condition is {self.retry_condition!r}; give a list of statuses")
        # A list, as Agent Lightning's users write it, would let the config change, and differ when read back.
        object.__setattr__(self, "retry_condition", tuple(self.retry_condition))
        for status in self.retry_condition:
            if status not in get_args(AttemptStatus) or status == "succeeded":
                raise InvalidValue(
                    f"retry_condition holds {status!r}; give some of 'failed', 'timeout', 'unresponsive'"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class EnqueueRolloutRequest:
    """One rollout to be queued by ``enqueue_many_rollouts``; the fields are those of ``enqueue_rollout``."""

    input: Json
    task_id: str | None = None
    group_id: str | None = None
    mode: Mode | None = None
    resources_id: str | None = None
    config: RolloutConfig | None = None
    metadata: Mapping[str, Json] | None = None
    rollout_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One run of the agent on a task."""

    rollout_id: str
    input: Json
    """The task's input, as JSON."""
    task_id: str | None = None
    group_id: str | None = None
    mode: Mode | None = None
    resources_id: str | None = None
    status: RolloutStatus = "queuing"
    config: RolloutConfig = field(default_factory=RolloutConfig)
    start_time: float
    """When it was enqueued."""
    end_time: float | None = None
    """When it succeeded, failed or was cancelled."""
    metadata: Mapping[str, Json] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        return self.status in ENDED_ROLLOUT


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try at a rollout."""

    rollout_id: str
    attempt_id: str
    sequence_id: int
    """Place among the rollout's attempts, from 1."""
    status: AttemptStatus = "preparing"
    start_time: float
    end_time: float | None = None
    worker_id: str | None = None
    last_heartbeat_time: float | None = None
    """When the last span or heartbeat came, if one has; kept in memory only."""
    metadata: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptedRollout(Rollout):
    """A rollout together with the attempt that was just started on it."""

    attempt: Attempt

    @classmethod
    def of(cls, rollout: Rollout, attempt: Attempt) -> "AttemptedRollout":
        """Puts the two together."""
        return cls(**{name: getattr(rollout, name) for name in _ROLLOUT_FIELDS}, attempt=attempt)


_ROLLOUT_FIELDS = tuple(field.name for field in fields(Rollout))


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """Who runs attempts: a runner's process, most often. Its state follows from what it does."""

    worker_id: str
    status: WorkerStatus = "unknown"
    first_heard_time: float | None = None
    heartbeat_stats: Mapping[str, Json] | None = None
    """What it last said of itself."""
    last_heartbeat_time: float | None = None
    last_dequeue_time: float | None = None
    last_busy_time: float | None = None
    """When it last started an attempt."""
    last_idle_time: float | None = None
    """When the last of its attempts ended, or it first asked for work."""
    current_rollout_id: str | None = None
    """Of an attempt in flight: the one that it started last, as far as one shard can tell."""
    current_attempt_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change of a store, as subscribers see it."""

    cursor: str
    """Where the feed goes on behind this change: what ``subscribe`` takes to resume."""
    kind: ChangeKind
    """``deleted`` is said of a rollout, and of the group that went with it, by itself."""
    rollout_id: str | None = None
    attempt_id: str | None = None
    group_id: str | None = None
    resources_id: str | None = None
    status: str | None = None
    """The new one, of a rollout, an attempt or a group."""
    span_ids: tuple[str, ...] = ()
    """Of the spans that an attempt got."""


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """A named moment within a span."""

    name: str
    time: float
    attributes: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Span:
    """One thing that happened in an attempt, in OpenTelemetry's shape.

    Spans compare by identity, since arrays among the attributes have no single truth value.
    """

    rollout_id: str
    attempt_id: str
    sequence_id: int
    """Order within the attempt; spans are read back in it."""
    trace_id: str
    span_id: str
    """Unique within the attempt: a second span with the same id is not added."""
    parent_id: str | None = None
    name: str
    start_time: float
    end_time: float
    status: SpanStatus = "ok"
    status_message: str | None = None
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    """By the names of ``raybolt.store.names``. Arrays read back from a sealed group are read-only views."""
    events: tuple[SpanEvent, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourcesUpdate:
    """Named things that agents are given, at one version."""

    resources_id: str
    version: int
    """1 when added, one more with every update."""
    create_time: float
    update_time: float
    resources: Mapping[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The rollouts of one task under one policy version, and how many of them have ended."""

    group_id: str
    task_id: str | None = None
    num_rollouts: int | None = None
    """How many rollouts make the group complete; None until it is declared."""
    num_ended: int = 0
    num_succeeded: int = 0
    status: GroupStatus = "open"
    """``complete`` when ``num_rollouts`` have ended, ``taken`` once ``take_groups`` has handed it out."""
    taken_by: str | None = None
    """Id of the ``take_groups`` call that got the group."""
    create_time: float = 0.0
    complete_time: float | None = None
    """When it (last) became complete."""
    lease_end: float | None = None
    """When a taken group becomes ``complete`` again, unless it is acknowledged; None for never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupHandle:
    """A complete group by reference: small enough for the driver to hold, whatever the tokens."""

    group_id: str
    task_id: str | None
    claim: str | None
    """Which taking it comes from: the group's ``taken_by`` as long as that holds. None from ``get_group``."""
    ref: Any
    """A ``ray.ObjectRef`` to the group's ``pyarrow.Table`` (RayStore), the table itself (LocalStore),
    or the ``RemoteBlock`` that says where to fetch it (HttpStore)."""
    num_rollouts: int
    num_succeeded: int
    num_spans: int
    num_tokens: int
    """Sampled tokens: the summed length of all response ids."""
    nbytes: int
    """Size of the table's buffers."""


@dataclass(frozen=True, slots=True)
class RolloutData:
    """A rollout with its last attempt and that attempt's spans, in order of their sequence ids."""

    rollout: Rollout
    attempt: Attempt | None
    """None when the rollout was cancelled before anyone tried it."""
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class GroupData:
    """A whole group, decoded: one entry per rollout, in order of enqueuing, failed ones included."""

    group_id: str
    task_id: str | None
    rollouts: tuple[RolloutData, ...]

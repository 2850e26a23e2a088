"""What happened: rollouts, attempts, spans, groups and resources, and the stores that keep them.

Importing this room loads neither Ray nor Arrow; ``LocalStore``, ``RayStore`` and the group functions are
loaded when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .base import LightningStore
from .blocking import blocking
from .errors import (
    InvalidTransition,
    InvalidValue,
    RayboltError,
    StoreError,
    StoreFull,
    UnknownAttempt,
    UnknownGroup,
    UnknownResources,
    UnknownRollout,
)
from .patience import add_when_room
from .resource_kinds import LLM, PromptTemplate
from .types import (
    UNSET,
    Attempt,
    AttemptedRollout,
    AttemptStatus,
    Capabilities,
    Change,
    EnqueueRolloutRequest,
    Group,
    GroupData,
    GroupHandle,
    Mode,
    ResourcesUpdate,
    Rollout,
    RolloutConfig,
    RolloutData,
    RolloutStatus,
    Span,
    SpanEvent,
    Unset,
    Worker,
    WorkerStatus,
)

if TYPE_CHECKING:
    from .blocks import decode_group, encode_group, read_group
    from .http_store import HttpStore
    from .local import LocalStore
    from .ray_store import RayStore
    from .server import StoreServer, serve

__all__ = [
    "LLM",
    "UNSET",
    "Attempt",
    "AttemptStatus",
    "AttemptedRollout",
    "Capabilities",
    "Change",
    "EnqueueRolloutRequest",
    "Group",
    "GroupData",
    "GroupHandle",
    "HttpStore",
    "InvalidTransition",
    "InvalidValue",
    "LightningStore",
    "LocalStore",
    "Mode",
    "PromptTemplate",
    "RayStore",
    "RayboltError",
    "ResourcesUpdate",
    "Rollout",
    "RolloutConfig",
    "RolloutData",
    "RolloutStatus",
    "Span",
    "SpanEvent",
    "StoreError",
    "StoreFull",
    "StoreServer",
    "UnknownAttempt",
    "UnknownGroup",
    "UnknownResources",
    "UnknownRollout",
    "Unset",
    "Worker",
    "WorkerStatus",
    "add_when_room",
    "blocking",
    "decode_group",
    "encode_group",
    "read_group",
    "serve",
]

_LAZY = {
    "HttpStore": "http_store",
    "LocalStore": "local",
    "RayStore": "ray_store",
    "StoreServer": "server",
    "decode_group": "blocks",
    "encode_group": "blocks",
    "read_group": "blocks",
    "serve": "server",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LAZY[name]}", __name__), name)

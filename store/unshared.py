"""What a store in this process hands out, such that nothing its caller does to it reaches the store.

Stores behind Ray or HTTP hand out copies by nature; here they are made.
"""

from dataclasses import replace
from typing import Any

from .types import Attempt, AttemptedRollout, Json, ResourcesUpdate, Rollout, Worker


def unshared(answer: Any) -> Any:
    """Returns the answer with JSON of its own: what holds some is copied, all else is itself."""
    if isinstance(answer, list):
        return [unshared(each) for each in answer]
    if isinstance(answer, AttemptedRollout):
        own = {"input": _copy(answer.input), "metadata": _copy(answer.metadata)}
        return replace(answer, **own, attempt=unshared(answer.attempt))
    if isinstance(answer, Rollout):
        return replace(answer, input=_copy(answer.input), metadata=_copy(answer.metadata))
    if isinstance(answer, Attempt):
        return replace(answer, metadata=_copy(answer.metadata))
    if isinstance(answer, ResourcesUpdate):
        return replace(answer, resources=_copy(answer.resources))
    if isinstance(answer, Worker):
        return replace(answer, heartbeat_stats=_copy(answer.heartbeat_stats))
    return answer


def _copy(value: Json) -> Json:
    if isinstance(value, dict):
        return {name: _copy(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_copy(each) for each in value]
    return value

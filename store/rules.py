"""The rules of the state machine that need nothing but their arguments."""

import json
from collections.abc import Mapping
from typing import Any, get_args

from .errors import InvalidTransition, InvalidValue
from .types import (
    UNSET,
    Attempt,
    AttemptStatus,
    EnqueueRolloutRequest,
    Json,
    Rollout,
    RolloutConfig,
    RolloutStatus,
)

IN_FLIGHT: frozenset[AttemptStatus] = frozenset({"preparing", "running"})


def check_new_status(rollout: Rollout, status: RolloutStatus) -> None:
    """Raises InvalidValue for what is no status, InvalidTransition if the rollout has ended otherwise."""
    if status not in get_args(RolloutStatus):
        raise InvalidValue(f"status is {status!r}; give one of {', '.join(get_args(RolloutStatus))}")
    if rollout.ended and status != rollout.status:
        raise InvalidTransition(
            f"rollout {rollout.rollout_id!r} ended as {rollout.status} and cannot become {status}"
        )


def check_attempt_status(status: AttemptStatus) -> None:
    """Raises InvalidValue for what is no status."""
    if status not in get_args(AttemptStatus):
        raise InvalidValue(f"status is {status!r}; give one of {', '.join(get_args(AttemptStatus))}")


def status_after(attempt: Attempt, config: RolloutConfig, *, num_attempts: int) -> RolloutStatus:
    """What a rollout becomes by the status of its latest attempt."""
    if attempt.status in ("preparing", "running", "succeeded"):
        return attempt.status
    again = attempt.status in config.retry_condition and num_attempts < config.max_attempts
    return "requeuing" if again else "failed"


def deadline(attempt: Attempt, config: RolloutConfig) -> float | None:
    """When the attempt is given up unless something is heard; None for never."""
    if attempt.status not in IN_FLIGHT:
        return None
    times = (_timeout_at(attempt, config), _silent_at(attempt, config))
    return min((time for time in times if time is not None), default=None)


def overdue_reason(attempt: Attempt, config: RolloutConfig, now: float) -> tuple[AttemptStatus, str]:
    """The status of an attempt whose deadline has passed, and why."""
    timeout_at = _timeout_at(attempt, config)
    if timeout_at is not None and timeout_at <= now:
        return "timeout", f"the attempt took more than {config.timeout_seconds:g} seconds"
    return "unresponsive", f"no span and no heartbeat came for {config.unresponsive_seconds:g} seconds"


def _timeout_at(attempt: Attempt, config: RolloutConfig) -> float | None:
    return None if config.timeout_seconds is None else attempt.start_time + config.timeout_seconds


def _silent_at(attempt: Attempt, config: RolloutConfig) -> float | None:
    if config.unresponsive_seconds is None:
        return None
    return (attempt.last_heartbeat_time or attempt.start_time) + config.unresponsive_seconds


def named(request: EnqueueRolloutRequest) -> str:
    """The id that a request gives its rollout."""
    assert request.rollout_id is not None, "the caller of the core names every rollout"
    return request.rollout_id


def differs(request: EnqueueRolloutRequest, rollout: Rollout) -> bool:
    """Whether a request that repeats a rollout's id means another one."""
    return (request.task_id, request.group_id) != (rollout.task_id, rollout.group_id) or not same_json(
        request.input, rollout.input
    )


def same_json(one: Json, other: Json) -> bool:
    """Whether two JSON values are the same. To Python true and 1 are, too, and NaN is not the same as NaN."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def given(**fields: Any) -> Mapping[str, Any]:
    """The fields that are set."""
    return {name: value for name, value in fields.items() if value is not UNSET}

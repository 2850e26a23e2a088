"""Rows of a journal's tables as the objects that they stand for."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from .types import Attempt, Change, Json, Rollout, RolloutConfig


def rollout_of(row: Sequence[Any]) -> tuple[Rollout, int | None]:
    """Returns the rollout of a row of `rollouts`, and its place in the queue, if it is queued."""
    rollout = Rollout(
        rollout_id=row[0],
        group_id=row[1],
        task_id=row[2],
        mode=row[3],
        resources_id=row[4],
        status=row[5],
        start_time=row[6],
        end_time=row[7],
        input=json.loads(row[9]),
        config=_config(row[10]),
        metadata=_metadata(row[11]),
    )
    return rollout, row[8]


def attempt_of(row: Sequence[Any]) -> Attempt:
    """Returns the attempt of a row of `attempts`; nothing is known of its last heartbeat."""
    return Attempt(
        attempt_id=row[0],
        rollout_id=row[1],
        sequence_id=row[2],
        status=row[3],
        start_time=row[4],
        end_time=row[5],
        worker_id=row[6],
        metadata=_metadata(row[7]),
    )


def change_of(position: int, text: str) -> Change:
    """Returns the change of a row of `changes`."""
    known = json.loads(text)
    return Change(cursor=str(position), **{**known, "span_ids": tuple(known.get("span_ids", ()))})


@lru_cache(maxsize=100)
def _config(text: str) -> RolloutConfig:
    """Rollouts have few configs between them, which never change."""
    return RolloutConfig(**json.loads(text))


def _metadata(text: str) -> Mapping[str, Json]:
    return {} if text == "{}" else dict(json.loads(text))

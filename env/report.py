"""A run's end, as the store is told of it: the spans, and then how it ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from raybolt.store.base import LightningStore
from raybolt.store.errors import InvalidTransition, StoreFull
from raybolt.store.patience import ROOM_SECONDS, add_when_room
from raybolt.store.types import AttemptStatus, Span

_log = logging.getLogger(__name__)


async def report(
    store: LightningStore,
    rollout_id: str,
    attempt_id: str,
    spans: Sequence[Span],
    outcome: Mapping[str, Any],
    *,
    limit_seconds: float = ROOM_SECONDS,
) -> Mapping[str, Any]:
    """Adds a run's spans and ends its attempt with the outcome; returns the outcome that the store now has.

    The outcome becomes the attempt's metadata; with an "error" in it the attempt has failed. It is sent once
    the store has the spans, so no success stands there without them. While the store is full this waits (see
    `add_when_room`). After `limit_seconds`, or if it is cancelled meanwhile, the spans are given up: the
    attempt has then failed, with origin "store".
    """
    try:
        await add_when_room(store, spans, limit_seconds=limit_seconds)
    except StoreFull as refusal:
        reason = f"its {len(spans)} spans found no room in the store within {limit_seconds:g} s: {refusal}"
        outcome = _given_up(outcome, reason)
        _log.error("Rollout %s failed: %s", rollout_id, reason)
    except asyncio.CancelledError as cancelled:
        if isinstance(cancelled.__cause__, StoreFull):
            reason = f"it was cancelled while its {len(spans)} spans waited for room: {cancelled.__cause__}"
            await _end(store, rollout_id, attempt_id, _given_up(outcome, reason))
        raise
    await _end(store, rollout_id, attempt_id, outcome)
    return outcome


async def _end(store: LightningStore, rollout_id: str, attempt_id: str, outcome: Mapping[str, Any]) -> None:
    status: AttemptStatus = "failed" if "error" in outcome else "succeeded"
    try:
        await store.update_attempt(rollout_id, attempt_id, status, metadata=outcome)
    except InvalidTransition as error:  # it took too long, in the store's eyes; its spans are there
        _log.warning("Rollout %s: that it %s came too late: %s", rollout_id, status, error)


def _given_up(outcome: Mapping[str, Any], reason: str) -> dict[str, Any]:
    """The outcome of a run whose spans are lost: without them its reward is worth nothing."""
    known = {name: value for name, value in outcome.items() if name != "reward"}
    return known | {"error": reason, "error_type": StoreFull.__name__, "origin": "store"}

"""Spans for a store that may be full: who adds them waits until there is room."""

import asyncio
import logging
from collections.abc import Sequence

from .base import LightningStore
from .errors import StoreFull
from .types import Span

ROOM_SECONDS = 3600.0
"""How long spans wait for room unless told otherwise."""
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 30.0
_TRIES_PER_SILENCE = 4
"""How often at least to try in the time after which the store takes a silent attempt for dead."""
_log = logging.getLogger(__name__)


async def add_when_room(
    store: LightningStore, spans: Sequence[Span], *, limit_seconds: float = ROOM_SECONDS
) -> list[Span]:
    """Adds the spans as soon as the store has room; returns what ``add_many_spans`` does.

    A full store refuses spans and changes nothing, so they are sent again after growing pauses, each of which
    is logged. The caller stands still meanwhile, and so produces nothing more. Each refusal is a sign of life
    of the spans' attempts, and comes in time for their ``unresponsive_seconds``.

    Raises StoreFull once ``limit_seconds`` have passed; whatever else ``add_many_spans`` raises, at once. A
    caller that is cancelled while it waits gets its CancelledError from the last StoreFull.
    """
    try:
        return await store.add_many_spans(spans)
    except StoreFull as error:
        refusal = error
    try:
        return await _add_later(store, spans, refusal, limit_seconds)
    except asyncio.CancelledError as cancelled:
        raise cancelled from refusal


async def _add_later(
    store: LightningStore, spans: Sequence[Span], refusal: StoreFull, limit_seconds: float
) -> list[Span]:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit_seconds
    pause, longest = _FIRST_PAUSE_SECONDS, await _longest_pause(store, spans)
    while (left := deadline - loop.time()) > 0:
        pause = min(pause, longest, left)
        _log.warning(
            "%s stand still, since their %d spans find no room: %s. Next try in %.1f s; given up in %.0f s.",
            _rollouts_of(spans), len(spans), refusal, pause, left,
        )  # fmt: skip
        await asyncio.sleep(pause)
        try:
            added = await store.add_many_spans(spans)
        except StoreFull as error:
            refusal, pause = error, 2 * pause
        else:
            _log.warning("There is room again: %s go on.", _rollouts_of(spans))
            return added
    raise refusal


async def _longest_pause(store: LightningStore, spans: Sequence[Span]) -> float:
    rollouts = [await store.get_rollout_by_id(id) for id in {span.rollout_id for span in spans}]
    silences = (rollout.config.unresponsive_seconds for rollout in rollouts if rollout is not None)
    in_time = (silence / _TRIES_PER_SILENCE for silence in silences if silence is not None)
    return min([_LONGEST_PAUSE_SECONDS, *in_time])


def _rollouts_of(spans: Sequence[Span]) -> str:
    return "Rollouts " + ", ".join(dict.fromkeys(span.rollout_id for span in spans))

"""Who waits to be taken, longest first."""

import math
from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice


class RolloutQueue:
    """Rollout ids, each with a position: when it was queued, in nanoseconds since the epoch.

    Positions grow and are never used twice: what comes at one moment, or after a clock was set back, stands a
    nanosecond further on. So those of several queues say who of all has waited longest, also when they were
    read back from journals.
    """

    def __init__(self) -> None:
        self._positions: OrderedDict[str, int] = OrderedDict()
        self._next = 0

    def restore(self, queued: Iterable[tuple[int, str, float]]) -> None:
        """Starts from what a journal holds: (position, rollout id, time of enqueuing) triples.

        Older journals count positions from 0: their rollouts wait in that order, since they were enqueued.
        """
        for position, rollout_id, enqueued in sorted(queued):
            self._append(rollout_id, max(position, _nanoseconds(enqueued)))

    def push(self, rollout_id: str, time: float) -> int:
        """Returns the rollout's position, the last one unless it had one already."""
        if rollout_id not in self._positions:
            self._append(rollout_id, _nanoseconds(time))
        return self._positions[rollout_id]

    def remove(self, rollout_id: str) -> None:
        """Takes the rollout out, if it is there."""
        self._positions.pop(rollout_id, None)

    def position(self, rollout_id: str) -> int | None:
        return self._positions.get(rollout_id)

    def first(self, count: int) -> list[str]:
        """The ids that waited longest, which stay in the queue."""
        return list(islice(self._positions, count))

    def waiting(self, count: int) -> list[tuple[int, str]]:
        """Those ids, each behind its position."""
        return [(position, rollout_id) for rollout_id, position in islice(self._positions.items(), count)]

    def __len__(self) -> int:
        return len(self._positions)

    def since(self) -> float | None:
        """Since when the first waits, in seconds since the epoch; None if nobody does."""
        return next((position / 10**9 for position in self._positions.values()), None)

    def _append(self, rollout_id: str, position: int) -> None:
        self._positions[rollout_id] = max(position, self._next)
        self._next = self._positions[rollout_id] + 1


def _nanoseconds(time: float) -> int:
    """Exact, as a product of floats would not be: a float of today holds steps of 200 ns."""
    fraction, seconds = math.modf(time)
    return int(seconds) * 10**9 + round(fraction * 1e9)

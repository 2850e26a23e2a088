"""Who waits to be taken, longest first."""

from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice


class RolloutQueue:
    """Rollout ids, each with a position that grows and is never used twice, and since when it waits."""

    def __init__(self) -> None:
        self._places: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._next = 0

    def restore(self, queued: Iterable[tuple[int, str, float]]) -> None:
        """Starts from what a journal holds: (position, rollout id, time) triples."""
        for position, rollout_id, time in sorted(queued):
            self._places[rollout_id] = (position, time)
            self._next = position + 1

    def push(self, rollout_id: str, time: float) -> int:
        """Returns the rollout's position, the last one unless it had one already."""
        if rollout_id not in self._places:
            self._places[rollout_id] = (self._next, time)
            self._next += 1
        return self._places[rollout_id][0]

    def remove(self, rollout_id: str) -> None:
        """Takes the rollout out, if it is there."""
        self._places.pop(rollout_id, None)

    def position(self, rollout_id: str) -> int | None:
        place = self._places.get(rollout_id)
        return place[0] if place else None

    def first(self, count: int) -> list[str]:
        """The ids that waited longest, which stay in the queue."""
        return list(islice(self._places, count))

    def waiting(self, count: int) -> list[tuple[float, str]]:
        """Those ids, each with the time since when it waits."""
        return [(time, rollout_id) for rollout_id, (_, time) in islice(self._places.items(), count)]

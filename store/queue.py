"""Who waits to be taken, longest first."""

from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice


class RolloutQueue:
    """Rollout ids, each with a position that grows and is never used twice."""

    def __init__(self) -> None:
        self._positions: OrderedDict[str, int] = OrderedDict()
        self._next = 0

    def restore(self, queued: Iterable[tuple[int, str]]) -> None:
        """Starts from what a journal holds: (position, rollout id) pairs."""
        for position, rollout_id in sorted(queued):
            self._positions[rollout_id] = position
            self._next = position + 1

    def push(self, rollout_id: str) -> int:
        """Returns the rollout's position, the last one unless it had one already."""
        if rollout_id not in self._positions:
            self._positions[rollout_id] = self._next
            self._next += 1
        return self._positions[rollout_id]

    def remove(self, rollout_id: str) -> None:
        """Takes the rollout out, if it is there."""
        self._positions.pop(rollout_id, None)

    def position(self, rollout_id: str) -> int | None:
        return self._positions.get(rollout_id)

    def first(self, count: int) -> list[str]:
        """The ids that waited longest, which stay in the queue."""
        return list(islice(self._positions, count))

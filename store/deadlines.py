"""What must happen at a given time, unless it is put off until then."""

import heapq
from collections.abc import Callable

_FEW = 1000
"""Times of which it does not matter whether they will ever come."""


class Deadlines:
    """Times by id, earliest first. O(log n) to add, and putting one off costs nothing until it is due.

    ``due_at(id)`` says when an id is really due, or None for never: it is asked when the time that was
    noted has come, so that heartbeats need not touch the heap.
    """

    def __init__(self, due_at: Callable[[str], float | None]) -> None:
        self._due_at = due_at
        self._heap: list[tuple[float, str]] = []
        self._noted: dict[str, float] = {}  # the earliest entry of each id in the heap
        self._sweep_at = _FEW

    def note(self, id: str) -> None:
        """Looks after the id from now on; again after anything that may have brought its time forward."""
        when = self._due_at(id)
        noted = self._noted.get(id)
        if when is not None and (noted is None or when < noted):
            self._noted[id] = when
            heapq.heappush(self._heap, (when, id))
            if len(self._heap) > self._sweep_at:
                self._sweep()

    def _sweep(self) -> None:
        """Drops the times of what has long ended, which else would be kept until they come."""
        self._noted = {id: when for id, when in self._noted.items() if self._due_at(id) is not None}
        self._heap = [(when, id) for id, when in self._noted.items()]
        heapq.heapify(self._heap)
        self._sweep_at = 2 * len(self._heap) + _FEW

    def next(self) -> float | None:
        """When to ask for what is ``overdue``; None for never."""
        return self._heap[0][0] if self._heap else None

    def overdue(self, now: float) -> list[str]:
        """Takes out the ids whose time has come, earliest first."""
        found = []
        while self._heap and self._heap[0][0] <= now:
            when, id = heapq.heappop(self._heap)
            if self._noted.get(id) != when:
                continue  # it was brought forward, and has been dealt with
            del self._noted[id]
            due = self._due_at(id)
            if due is not None and due <= now:
                found.append(id)
            else:
                self.note(id)
        return found

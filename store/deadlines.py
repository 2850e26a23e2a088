"""What must happen at a given time, unless it is put off until then."""

import heapq
from collections.abc import Callable


class Deadlines:
    """Times by id, earliest first. O(log n) to add, and putting one off costs nothing until it is due.

    ``due_at(id)`` says when an id is really due, or None for never: it is asked when the time that was
    noted has come, so that heartbeats need not touch the heap.
    """

    def __init__(self, due_at: Callable[[str], float | None]) -> None:
        self._due_at = due_at
        self._heap: list[tuple[float, str]] = []
        self._noted: dict[str, float] = {}  # the earliest entry of each id in the heap

    def note(self, id: str) -> None:
        """Looks after the id from now on; again after anything that may have brought its time forward."""
        when = self._due_at(id)
        noted = self._noted.get(id)
        if when is not None and (noted is None or when < noted):
            self._noted[id] = when
            heapq.heappush(self._heap, (when, id))

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

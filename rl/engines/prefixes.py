"""Finding and keeping computed keys and values by the tokens that they stand for."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch


class PrefixIndex:
    """Token sequences in numbered rows, searched for the longest common prefix.

    One comparison over a matrix: a few dozen µs for some hundred sequences of some hundred tokens.
    """

    def __init__(self) -> None:
        self._table = np.full((8, 64), -1, np.int32)

    def put(self, row: int, ids: np.ndarray) -> None:
        """Row `row` now holds `ids`."""
        self._reserve(row + 1, len(ids))
        self._table[row] = -1
        self._table[row, : len(ids)] = ids

    def move(self, source: int, target: int) -> None:
        """Row `target` gets what `source` held; `source` is empty then."""
        self._table[target] = self._table[source]
        self.clear(source)

    def clear(self, row: int | None = None) -> None:
        """Empties one row, or all."""
        self._table[slice(None) if row is None else row] = -1

    def longest(self, ids: np.ndarray) -> tuple[int, int]:
        """(row, length) of the longest common prefix of `ids` and any row; length 0 if there is none."""
        if len(ids) == 0:
            return 0, 0
        width = min(len(ids), self._table.shape[1])
        differs = self._table[:, :width] != ids[:width]
        first_difference = differs.argmax(1)
        lengths = np.where(differs[np.arange(len(differs)), first_difference], first_difference, width)
        row = int(lengths.argmax())
        return row, int(lengths[row])

    def _reserve(self, num_rows: int, num_columns: int) -> None:
        old_rows, old_columns = self._table.shape
        if num_rows <= old_rows and num_columns <= old_columns:
            return
        shape = (
            old_rows if num_rows <= old_rows else 2 * num_rows,
            old_columns if num_columns <= old_columns else 2 * num_columns,
        )
        grown = np.full(shape, -1, np.int32)
        grown[:old_rows, :old_columns] = self._table
        self._table = grown


class PrefixStore:
    """Keys and values of finished sequences, the least recently used dropped beyond `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._index = PrefixIndex()
        self._saved: OrderedDict[int, torch.Tensor] = OrderedDict()
        self._free_rows: list[int] = []

    def add(self, ids: np.ndarray, saved: torch.Tensor) -> None:
        """Keeps `saved`, the keys and values of exactly the tokens `ids`, if it fits at all."""
        if saved.nbytes > self._max_bytes:
            return
        while self._num_bytes + saved.nbytes > self._max_bytes:
            oldest, dropped = self._saved.popitem(last=False)
            self._num_bytes -= dropped.nbytes
            self._index.clear(oldest)
            self._free_rows.append(oldest)
        row = self._free_rows.pop() if self._free_rows else len(self._saved)
        self._index.put(row, ids)
        self._saved[row] = saved
        self._num_bytes += saved.nbytes

    def longest(self, ids: np.ndarray) -> tuple[int, int]:
        """(row, length) of the stored sequence that shares the longest prefix with `ids`."""
        return self._index.longest(ids)

    def take(self, row: int) -> torch.Tensor:
        """What row `row` holds, now the most recently used."""
        self._saved.move_to_end(row)
        return self._saved[row]

    def clear(self) -> None:
        """Forgets everything."""
        self._saved.clear()
        self._free_rows.clear()
        self._index.clear()
        self._num_bytes = 0

from __future__ import annotations

import numpy as np
import torch

from raybolt.rl.engines.prefixes import PrefixIndex, PrefixStore


def ids(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def test_the_longest_common_prefix_of_any_row_is_found() -> None:
    index = PrefixIndex()
    index.put(0, ids(1, 2, 3))
    index.put(5, ids(1, 2, 4, 5, 6))
    index.put(40, ids(9, *range(200)))
    assert index.longest(ids(1, 2, 4, 5, 7, 8)) == (5, 4)
    assert index.longest(ids(1, 2, 3)) == (0, 3)
    assert index.longest(ids(9, *range(300))) == (40, 201)
    assert index.longest(ids(7))[1] == 0
    assert index.longest(ids())[1] == 0


def test_a_moved_row_is_found_where_it_went_and_a_cleared_one_not_at_all() -> None:
    index = PrefixIndex()
    index.put(3, ids(1, 2))
    index.move(3, 1)
    assert index.longest(ids(1, 2)) == (1, 2)
    index.clear(1)
    assert index.longest(ids(1, 2))[1] == 0


def test_the_least_recently_used_goes_first_when_memory_is_short() -> None:
    store = PrefixStore(max_bytes=300)
    for first in (1, 2, 3):
        store.add(ids(first, 0), torch.full((25,), float(first)))
    row, _ = store.longest(ids(1, 0))
    assert store.take(row)[0] == 1.0
    store.add(ids(4, 0), torch.full((25,), 4.0))
    kept = [store.longest(ids(first, 0))[1] for first in (1, 2, 3, 4)]
    assert kept == [2, 0, 2, 2]
    row, _ = store.longest(ids(4, 0))
    assert store.take(row)[0] == 4.0


def test_what_exceeds_the_memory_is_not_kept() -> None:
    store = PrefixStore(max_bytes=300)
    store.add(ids(1), torch.zeros(25))
    store.add(ids(2), torch.zeros(1000))
    assert store.longest(ids(1))[1] == 1
    assert store.longest(ids(2))[1] == 0
    store.clear()
    assert store.longest(ids(1))[1] == 0

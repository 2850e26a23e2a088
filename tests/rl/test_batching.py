from __future__ import annotations

import numpy as np
import pytest

from raybolt.rl.batching import empty_micro_batch, pack
from raybolt.rl.merge import LossCall
from raybolt.store.errors import InvalidValue


def chain(first_id: int, num_tokens: int, num_response: int = 1) -> LossCall:
    """A call with ids of its own, shared with no other."""
    ids = np.arange(first_id, first_id + num_tokens, dtype=np.int32)
    advantages = np.full(num_response, float(first_id), np.float32)
    return LossCall(ids[:-num_response], ids[-num_response:], advantages, advantages / 2)


def test_filler_sees_only_itself_and_trees_without_room_go_to_the_next_batch() -> None:
    groups = [[chain(10, 4)], [chain(20, 2)], [chain(30, 3)]]
    first, second = pack(groups, token_budget=8)
    assert first.input_ids.tolist() == [[10, 11, 12, 13], [30, 31, 32, 0]]
    assert first.end.tolist() == [[4, 4, 4, 4], [3, 3, 3, 4]]
    assert second.input_ids.tolist() == [[20, 21]]


def test_trees_share_a_row_when_they_fit() -> None:
    (batch,) = pack([[chain(10, 5)], [chain(20, 2)], [chain(30, 3)]], token_budget=10)
    assert batch.input_ids.tolist() == [[10, 11, 12, 13, 14], [30, 31, 32, 20, 21]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 0, 1]]
    assert batch.end.tolist() == [[5, 5, 5, 5, 5], [3, 3, 3, 5, 5]]
    # Sources are flat: the parent's place, one before its token.
    assert batch.source.tolist() == [3, 6, 8]
    assert batch.target.tolist() == [14, 32, 21]
    assert batch.advantages.tolist() == [10.0, 30.0, 20.0]
    assert batch.old_logps.tolist() == [5.0, 15.0, 10.0]
    assert batch.weight.tolist() == [1.0, 1.0, 1.0]


def test_no_batch_exceeds_the_budget_and_nothing_is_lost() -> None:
    rng = np.random.default_rng(0)
    groups = [[chain(1000 * i, int(rng.integers(2, 60)))] for i in range(1, 80)]
    batches = pack(groups, token_budget=128)
    assert max(batch.num_tokens for batch in batches) <= 128
    assert sum(batch.num_entries for batch in batches) == 79
    filled = sum(batch.num_tokens for batch in batches) / sum(c.num_tokens for (c,) in groups)
    assert filled < 1.1


def test_a_sequence_beyond_the_budget_is_a_batch_of_one_row() -> None:
    batches = pack([[chain(10, 9)], [chain(30, 3)]], token_budget=4)
    assert [batch.input_ids.shape for batch in batches] == [(1, 9), (1, 3)]


def test_an_empty_batch_has_a_token_and_no_entries() -> None:
    batch = empty_micro_batch()
    assert batch.num_entries == 0
    assert batch.input_ids.shape == (1, 1)
    assert batch.tensors()["weight"].shape == (0,)


def test_a_budget_of_zero_is_refused() -> None:
    with pytest.raises(InvalidValue, match="token_budget must be at least 1; it is 0"):
        pack([], token_budget=0)

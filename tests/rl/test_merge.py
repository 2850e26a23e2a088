from __future__ import annotations

import time

import numpy as np

from raybolt.rl.merge import LossCall, merge_calls, num_tokens_unmerged


def call(prompt_ids: list[int], response_ids: list[int], advantage: float = 1.0) -> LossCall:
    return LossCall(
        np.array(prompt_ids, np.int32),
        np.array(response_ids, np.int32),
        np.full(len(response_ids), advantage, np.float32),
        np.full(len(response_ids), -advantage, np.float32),
    )


def test_shared_prefixes_become_one_tree_in_depth_first_order() -> None:
    calls = [call([1], [3]), call([1, 2], [6]), call([1, 2, 3], [4, 5]), call([1, 2], [3])]
    (tree,) = merge_calls(calls, max_tokens=100)
    assert tree.token_ids.tolist() == [1, 2, 3, 4, 5, 6, 3]
    assert tree.position_ids.tolist() == [0, 1, 2, 3, 4, 2, 1]
    assert tree.parent.tolist() == [-1, 0, 1, 2, 3, 1, 0]
    assert tree.end.tolist() == [7, 6, 5, 5, 5, 6, 7]


def test_entries_point_at_the_nodes_of_their_response() -> None:
    calls = [call([1, 2, 3], [4, 5], 0.5), call([1, 2], [3], 2.0)]
    (tree,) = merge_calls(calls, max_tokens=100)
    # The shorter sequence comes first: its response is token 3, a prompt token of the longer one.
    assert tree.node.tolist() == [2, 3, 4]
    assert tree.advantages.tolist() == [2.0, 0.5, 0.5]
    assert tree.old_logps.tolist() == [-2.0, -0.5, -0.5]


def test_identical_responses_share_tokens_but_keep_their_own_entries() -> None:
    (tree,) = merge_calls([call([1], [2, 3], 1.0), call([1], [2, 3], -1.0)], max_tokens=100)
    assert tree.num_tokens == 3
    assert tree.node.tolist() == [1, 2, 1, 2]
    assert tree.advantages.tolist() == [1.0, 1.0, -1.0, -1.0]


def test_sequences_without_a_common_token_make_a_forest() -> None:
    (tree,) = merge_calls([call([1], [2]), call([5], [6])], max_tokens=100)
    assert tree.parent.tolist() == [-1, 0, -1, 2]
    assert tree.end.tolist() == [2, 2, 4, 4]


def test_a_tree_too_large_is_cut_between_sequences() -> None:
    calls = [call([1, 2], [3, 4]), call([1, 2], [5, 6]), call([1, 2], [7, 8])]
    trees = merge_calls(calls, max_tokens=6)
    assert [tree.token_ids.tolist() for tree in trees] == [[1, 2, 3, 4, 5, 6], [1, 2, 7, 8]]


def test_one_sequence_beyond_the_limit_is_kept_whole() -> None:
    trees = merge_calls([call([1, 2, 3], [4]), call([1], [9])], max_tokens=2)
    assert [tree.token_ids.tolist() for tree in trees] == [[1, 2, 3, 4], [1, 9]]


def test_without_shared_prefixes_only_extensions_merge() -> None:
    calls = [call([1], [2]), call([1, 2, 3], [4]), call([1, 2, 5], [6])]
    trees = merge_calls(calls, max_tokens=100, share_prefixes=False)
    assert [tree.token_ids.tolist() for tree in trees] == [[1, 2, 3, 4], [1, 2, 5, 6]]
    assert [tree.parent.tolist() for tree in trees] == [[-1, 0, 1, 2], [-1, 0, 1, 2]]


def group_of_two_call_runs(seed: int, num_runs: int = 8) -> list[LossCall]:
    """150 prompt tokens, replies of 40, and 25 tokens of tool result between them."""
    rng = np.random.default_rng(seed)

    def tokens(count: int) -> list[int]:
        return rng.integers(1, 2000, count).tolist()

    prompt = tokens(150)
    calls = []
    for _ in range(num_runs):
        first = tokens(40)
        calls += [call(prompt, first), call(prompt + first + tokens(25), tokens(40))]
    return calls


def test_a_group_of_two_call_runs_has_a_third_of_the_tokens_or_less() -> None:
    calls = group_of_two_call_runs(0)
    (tree,) = merge_calls(calls, max_tokens=10_000)
    assert num_tokens_unmerged(calls) == 8 * (190 + 255)
    assert tree.num_tokens == 150 + 8 * (40 + 25 + 40)


def test_an_iteration_of_192_runs_merges_in_well_under_a_second() -> None:
    groups = [group_of_two_call_runs(seed) for seed in range(24)]
    start = time.perf_counter()
    for calls in groups:
        merge_calls(calls, max_tokens=4096)
    assert time.perf_counter() - start < 0.5

"""Groups as Arrow tables."""

import pickle

import numpy as np
import pyarrow as pa
import pytest
from store_samples import make_call_span, make_span

from raybolt.store import (
    Attempt,
    InvalidValue,
    LocalStore,
    Rollout,
    RolloutConfig,
    Span,
    decode_group,
    encode_group,
    names,
)
from raybolt.store.blocks import SealedTable
from raybolt.store.rows import pack_span, unpack_span

CONFIG = RolloutConfig(max_attempts=2, retry_condition=("failed",))

WATCHED_POOL = pa.proxy_memory_pool(pa.default_memory_pool())
"""Lives as long as the process: whatever was allocated from it must be freed before it is."""


def make_group() -> tuple[list[Rollout], list[Attempt], list[Span]]:
    """Returns two rollouts; the first has a superseded attempt, the second no spans."""
    rollouts = [
        Rollout(rollout_id=f"r{i}", input={"q": i}, group_id="g", task_id="t", start_time=1.0, config=CONFIG)
        for i in range(2)
    ]
    attempts = [
        Attempt(rollout_id="r0", attempt_id="a2", sequence_id=2, start_time=2.0),
        Attempt(rollout_id="r0", attempt_id="a1", sequence_id=1, start_time=1.0),
        Attempt(rollout_id="r1", attempt_id="b1", sequence_id=1, start_time=1.0),
    ]
    spans = [
        make_span(attempts[0], 2, note="a tool", scores=np.array([0.5, 1.0])),
        make_call_span(attempts[0], 1),
        make_call_span(attempts[1], 1),
    ]
    return rollouts, attempts, spans


def test_a_decoded_group_has_the_same_rollouts_attempts_and_arrays() -> None:
    rollouts, attempts, spans = make_group()
    group = decode_group(encode_group(rollouts, attempts, spans))
    assert (group.group_id, group.task_id) == ("g", "t")
    assert [data.rollout for data in group.rollouts] == rollouts
    assert [data.attempt for data in group.rollouts] == [attempts[0], attempts[2]]
    call, tool = group.rollouts[0].spans
    assert call.attributes[names.PROMPT_IDS].tolist() == [5, 6, 7]
    assert call.attributes[names.PROMPT_IDS].dtype == np.int32
    assert call.attributes[names.LOGPROBS].tolist() == [-0.5, -0.25]
    assert call.attributes[names.LOGPROBS].dtype == np.float32
    assert names.PROMPT_IDS not in tool.attributes
    assert (tool.attributes["note"], tool.attributes["scores"].tolist()) == ("a tool", [0.5, 1.0])
    assert group.rollouts[1].spans == ()


def test_token_arrays_are_columns_and_are_decoded_without_a_copy() -> None:
    table = encode_group(*make_group())
    column = table.column("raybolt.prompt_ids:int32").chunk(0)
    assert column.type == pa.list_(pa.int32())
    values = column.values.to_numpy()
    ids = decode_group(table).rollouts[0].spans[0].attributes[names.PROMPT_IDS]
    assert np.shares_memory(ids, values)
    assert not ids.flags.writeable


def test_one_attribute_may_hold_arrays_of_several_types() -> None:
    rollouts, attempts, _ = make_group()
    spans = [
        make_span(attempts[0], 1, x=np.array([1], np.int32)),
        make_span(attempts[0], 2, x=np.array([], np.float32)),
        make_span(attempts[0], 3, x="text"),
    ]
    table = encode_group(rollouts, attempts, spans)
    assert {"x:int32", "x:float32"} < set(table.column_names)
    back = decode_group(table).rollouts[0].spans
    assert [span.attributes["x"].dtype.name for span in back[:2]] == ["int32", "float32"]
    assert [len(span.attributes["x"]) for span in back[:2]] == [1, 0]
    assert back[2].attributes["x"] == "text"


def test_a_sealed_table_is_unpickled_as_views_of_one_buffer() -> None:
    table = encode_group(*make_group())
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(SealedTable(table), protocol=5, buffer_callback=buffers.append)
    assert len(buffers) == 1
    back = pickle.loads(head, buffers=buffers)
    assert back.equals(table)
    ids = decode_group(back).rollouts[0].spans[0].attributes[names.PROMPT_IDS]
    assert np.shares_memory(ids, np.frombuffer(buffers[0].raw(), np.uint8))


def test_sealing_needs_room_for_one_copy_of_the_table() -> None:
    rollouts, attempts, _ = make_group()
    spans = [make_span(attempts[0], n, x=np.arange(100_000, dtype=np.int32)) for n in range(12)]
    table = encode_group(rollouts, attempts, spans)
    default = pa.default_memory_pool()
    pa.set_memory_pool(WATCHED_POOL)
    try:
        _, (buffer,) = SealedTable(table).__reduce__()
    finally:
        pa.set_memory_pool(default)
    assert 4_800_000 < buffer.size < 4_810_000
    assert WATCHED_POOL.max_memory() < 4_850_000


def test_rollouts_of_several_groups_make_no_table() -> None:
    rollouts, attempts, spans = make_group()
    other = Rollout(rollout_id="r9", input=None, group_id="h", start_time=1.0)
    with pytest.raises(InvalidValue, match=r"rollouts name the groups \['g', 'h'\]; give those of one group"):
        encode_group([*rollouts, other], attempts, spans)
    with pytest.raises(InvalidValue, match="give those of one group"):
        encode_group([], attempts, spans)


def test_arrays_that_are_views_with_steps_are_kept_as_they_read() -> None:
    _, attempts, _ = make_group()
    arrays = {
        "even": np.arange(10, dtype=np.int32)[::2],
        "back": np.arange(3, dtype=np.float32)[::-1],
        "none": np.array([], np.int64),
    }
    read = unpack_span(pack_span(make_span(attempts[0], 1, **arrays))).attributes
    assert {name: read[name].tolist() for name in arrays} == {  # type: ignore[union-attr]
        "even": [0, 2, 4, 6, 8],
        "back": [2.0, 1.0, 0.0],
        "none": [],
    }


async def test_what_is_no_json_is_refused_with_what_may_stand_in_its_place() -> None:
    store = LocalStore()
    with pytest.raises(InvalidValue, match=r"^metadata cannot be stored: .* is not JSON; give JSON values$"):
        await store.enqueue_rollout("x", metadata={"ids": np.arange(2)})  # type: ignore[dict-item]
    started = await store.start_rollout("x")
    with pytest.raises(
        InvalidValue, match=r"^attributes of span .* is not JSON; give JSON values or 1-D arrays$"
    ):
        await store.add_span(make_span(started.attempt, 1, ids=[np.arange(2)]))

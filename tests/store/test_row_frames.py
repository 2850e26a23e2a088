"""Packed spans from strangers: each row is one that ``pack_span`` could have made, or is refused."""

import json
import math
from typing import Any

import pytest
from store_samples import make_call_span

from raybolt.store import Attempt, InvalidValue, row_frames
from raybolt.store.row_frames import pack_rows, unpack_rows
from raybolt.store.rows import SpanRow, pack_span

ATTEMPT = Attempt(rollout_id="r", attempt_id="a", sequence_id=1, start_time=1.0)
ROW = pack_span(make_call_span(ATTEMPT))


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


VALUES: list[Any] = [
    *(None, True, 0, -1, 2**63, -(2**63), 2**63 - 1, 1.0, 1e299, 1e301, -1e301, math.nan, math.inf),
    *("", "x", "é", "\ud800", "ok", "unset", "fine", [], ["ok"], {}, {"a": 1}, "5", "null", "[1]", " [] "),
    *("[]", "{}", " {}", "{} ", '{"a":1}', '{"a":1}x', "{", '{"a":NaN}', '{"a":"\ud800"}', "[[]]", "[0]"),
    *(f'{{"a":{nested(depth)}}}' for depth in (300, 301, 2000)),
    *(f'{{"a":[{",".join(["[]"] * count)}]}}' for count in (200, 400)),
    *('[["n",1.5,{}]]', '[["n",1.5,{},4]]', '[["n","1",{}]]', f'[["n",1,{{"a":{nested(301)}}}]]'),
    *(f'[["a","int32",{length}]]' for length in ("-1", "0", "1", "1.0", "true", "null", '"1"')),
    *('[["a","int31",0]]', '[["a",[],0]]', '[[1,"int32",0]]', '[["\\ud800","int32",0]]', '[["a","int32"]]'),
    *('[["a","int32",-1],["b","int32",2]]', '[["a","int32",0,0]]', '["abc"]', '[{"a":1,"int32":2,"c":3}]'),
]


def unpacked(row: SpanRow) -> SpanRow:
    ((back,), _) = unpack_rows(pack_rows([row]), check=True)
    return back


def test_a_clients_row_comes_back_as_it_was() -> None:
    assert unpacked(ROW) == ROW
    frame = pack_rows([ROW, ROW], next_offset=2)
    assert unpack_rows(frame, check=True) == ([ROW, ROW], 2)


@pytest.mark.parametrize("field", SpanRow._fields[:-1])
def test_what_is_let_through_at_a_glance_is_what_a_check_of_each_field_lets_through(field: str) -> None:
    for arrays in (b"", b"1234"):
        empty = ROW._replace(layout='[["a","int32",1]]' if arrays else "[]", arrays=arrays)
        assert row_frames._is_sound(empty)
        for value in VALUES:
            row = empty._replace(**{field: value})
            if row_frames._is_sound(row):
                assert row_frames._checked(row, "row") == row


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rollout_id": 5}, "rows[0].rollout_id is 5; give a string"),
        *(
            ({name: ""}, f"rows[0].{name} is ''; give a text that is not empty and valid Unicode")
            for name in ("rollout_id", "attempt_id", "trace_id", "span_id", "name")
        ),
        ({"name": "\ud800"}, "rows[0].name is '\\ud800', which is half of a character"),
        ({"parent_id": 5}, "rows[0].parent_id is 5; give a string"),
        ({"sequence_id": True}, "rows[0].sequence_id is True; give a whole number of at most 64 bits"),
        ({"sequence_id": 2**63}, f"rows[0].sequence_id is {2**63}; give a whole number of at most 64 bits"),
        ({"start_time": math.nan}, "rows[0].start_time is nan; give a finite number"),
        ({"end_time": 1e301}, "rows[0].end_time is 1e+301; give a number"),
        ({"status": "fine"}, "rows[0].status is 'fine'; give one of ok, error, unset"),
        ({"attributes": "[]"}, "rows[0].attributes is no object"),
        ({"attributes": None}, "rows[0].attributes is None; give a string"),
        ({"layout": None}, "rows[0].layout is None; give a string"),
        (
            {"attributes": f'{{"a":{nested(301)}}}'},
            "rows[0].attributes is nested more than 300 deep; give flatter JSON",
        ),
        (
            {"events": f'[["n",1,{{"a":{nested(301)}}}]]'},
            "rows[0].events is nested more than 300 deep; give flatter JSON",
        ),
        ({"events": "{}"}, "rows[0].events is no list"),
        ({"events": '[["n",1]]'}, "rows[0].events is ['n', 1]; give a list of 3"),
        ({"layout": '[["a","int31",0]]'}, "rows[0].layout: 'a' is 0 times 'int31'"),
        ({"layout": '[["a","int32",-1]]'}, "rows[0].layout: 'a' is -1 times 'int32'"),
        ({"layout": "[]"}, f"rows[0].layout names 0 bytes; the arrays have {len(ROW.arrays)}"),
        ({"layout": '[["a",[],0]]'}, "rows[0].layout[0] is []; give a string"),
    ],
)
def test_a_wrong_field_is_named_with_its_value(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        unpacked(ROW._replace(**changed))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"{", "the head of the packed spans is no JSON"),
        (b'{"rows":"\xff"}', "the head of the packed spans is no JSON: 'utf-8' codec can't decode"),
        (b"[]", 'the head of the packed spans has no list "rows"'),
        (b'{"rows":[[1]]}', "rows[0] of the packed spans does not have 15 fields"),
        (json.dumps({"rows": [[*ROW[:-1], -1]]}).encode(), "rows[0] of the packed spans does not have"),
        (json.dumps({"rows": [[*ROW[:-1], True]]}).encode(), "rows[0] of the packed spans does not have"),
    ],
)
def test_what_is_no_frame_is_refused(head: bytes, message: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        unpack_rows(len(head).to_bytes(8, "little") + head, check=True)
    assert str(caught.value).startswith(message)


def test_a_torn_frame_is_refused() -> None:
    frame = pack_rows([ROW])
    with pytest.raises(InvalidValue, match=r"^rows\[0\]\.layout names 28 bytes; the arrays have 27$"):
        unpack_rows(frame[:-1], check=True)
    with pytest.raises(InvalidValue, match=f"announce {len(frame)} bytes and have {len(frame) + 1}$"):
        unpack_rows(frame + b"x", check=True)


@pytest.mark.parametrize(("dtype", "value"), [("float32", 1e308), ("int32", 2**40), ("uint8", 300)])
def test_numbers_that_their_dtype_cannot_hold_are_refused(dtype: str, value: float) -> None:
    fields = json.loads(json.dumps(row_frames.span_fields(ROW)))
    fields["arrays"] = {"raybolt.x": {"dtype": dtype, "values": [value]}}
    with pytest.raises(InvalidValue, match=rf"span\.arrays.*values has numbers that no {dtype} can hold"):
        row_frames.row_from_fields(fields, "span")

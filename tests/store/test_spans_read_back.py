"""Spans that are read back in process are the reader's own: what it does to them stays with it."""

import copy
import json
import pickle
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import FrozenInstanceError, asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_samples import make_span

from raybolt.store import InvalidValue, LocalStore, Span, SpanEvent, rows
from raybolt.store.rows import _fast_encoder, iter_arrays, pack_span, unpack_span, unpack_spans
from raybolt.store.types import Attempt

ATTEMPT = Attempt(rollout_id="r", attempt_id="a", sequence_id=1, start_time=1.0)


@pytest.fixture(params=["memory", "folder"])
async def local(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LocalStore]:
    async with LocalStore(tmp_path if request.param == "folder" else None) as store:
        yield store


def int32(*values: int) -> np.ndarray[Any, Any]:
    return np.array(values, np.int32)


async def test_what_a_reader_does_to_a_span_reaches_neither_the_store_nor_another_reader(
    local: LocalStore,
) -> None:
    started = await local.start_rollout("x")
    span = make_span(started.attempt, 1, tools=[{"args": {"x": [1]}}], text="t", ids=int32(1, 2))
    await local.add_span(replace(span, events=(SpanEvent("e", 1.0, {"tries": [1]}),)))
    (spoilt,), (other,) = [await local.query_spans(started.rollout_id) for _ in range(2)]
    attributes: Any = spoilt.attributes
    attributes["tools"][0]["args"]["x"].append(2)
    attributes["tools"].append("more")
    attributes["new"] = 1
    del attributes["text"], attributes["ids"]
    spoilt.events[0].attributes["tries"].clear()
    for read in (other, *await local.query_spans(started.rollout_id)):
        assert {name: read.attributes[name] for name in ("tools", "text")} == {
            "tools": [{"args": {"x": [1]}}],
            "text": "t",
        }
        assert set(read.attributes) == {"tools", "text", "ids"}
        assert read.events == (SpanEvent("e", 1.0, {"tries": [1]}),)


async def test_what_a_reader_does_to_its_list_of_spans_stays_with_it(local: LocalStore) -> None:
    started = await local.start_rollout("x")
    await local.add_many_spans([make_span(started.attempt, number) for number in (1, 2)])
    read = await local.query_spans(started.rollout_id, started.attempt.attempt_id)
    read.reverse()
    read.pop()
    again = await local.query_spans(started.rollout_id, started.attempt.attempt_id)
    assert [span.sequence_id for span in again] == [1, 2]


async def test_what_a_writer_does_to_a_span_that_it_gave_does_not_reach_the_store(local: LocalStore) -> None:
    started = await local.start_rollout("x")
    ids, tools = int32(1, 2, 3), ["a"]
    attributes = {"ids": ids, "some": ids[::2], "tools": tools}
    await local.add_span(replace(make_span(started.attempt, 1), attributes=attributes))
    ids[:] = 0
    tools.append("b")
    attributes["new"] = 1
    (read,) = await local.query_spans(started.rollout_id)
    assert read.attributes["tools"] == ["a"]
    assert read.attributes["ids"].tolist() == [1, 2, 3]
    assert read.attributes["some"].tolist() == [1, 3]
    assert set(read.attributes) == {"ids", "some", "tools"}


async def test_arrays_that_were_read_cannot_be_written(local: LocalStore) -> None:
    started = await local.start_rollout("x")
    await local.add_span(make_span(started.attempt, 1, ids=int32(1, 2), logprobs=np.zeros(2, np.float32)))
    (read,) = await local.query_spans(started.rollout_id)
    for name in ("ids", "logprobs"):
        with pytest.raises(ValueError, match="read-only"):
            read.attributes[name][0] = 5
        with pytest.raises(ValueError, match="WRITEABLE"):
            read.attributes[name].setflags(write=True)


def test_spans_of_one_answer_share_nothing_that_can_change() -> None:
    packed = [pack_span(make_span(ATTEMPT, number, note={"n": []}, ids=int32(1))) for number in (1, 2)]
    one, other = unpack_spans(packed)
    one.attributes["note"]["n"].append(1)
    one.attributes["more"] = 1  # type: ignore[index]  # a dict, in truth
    assert dict(other.attributes) == {"note": {"n": []}, "ids": int32(1)}


def test_spans_whose_arrays_are_laid_out_alike_have_their_own_values() -> None:
    packed = [
        pack_span(make_span(ATTEMPT, number, ids=int32(number, number), scores=np.array([number / 2])))
        for number in range(3)
    ]
    assert len({row.layout for row in packed}) == 1
    assert [
        (span.attributes["ids"].tolist(), span.attributes["scores"].tolist()) for span in unpack_spans(packed)
    ] == [
        ([0, 0], [0.0]),
        ([1, 1], [0.5]),
        ([2, 2], [1.0]),
    ]


def test_any_number_of_spans_is_unpacked_in_order_each_with_its_own_arrays() -> None:
    def arrays(number: int) -> dict[str, np.ndarray[Any, Any]]:
        odd = {"bytes": np.full(number % 7, number, np.uint8)}  # behind which nothing is aligned
        return (
            {}
            if number % 3 == 0
            else {**odd, "ids": int32(*range(number % 5)), "last": np.array([number * 0.5])}
        )

    for num_spans in (0, 1, 101):
        packed = [pack_span(make_span(ATTEMPT, n, number=n, **arrays(n))) for n in range(num_spans)]
        spans = unpack_spans(packed)
        assert [span.sequence_id for span in spans] == list(range(num_spans))
        for number, (row, span) in enumerate(zip(packed, spans, strict=True)):
            read = {
                name: (value.dtype.name, value.tolist())
                for name, value in span.attributes.items()
                if isinstance(value, np.ndarray)
            }
            expected = {name: (value.dtype.name, value.tolist()) for name, value in arrays(number).items()}
            assert read == expected
            assert {name: (dtype, array.tolist()) for name, dtype, array in iter_arrays(row)} == expected
            assert span.attributes["number"] == number


def test_a_span_may_have_any_number_of_arrays() -> None:
    for number in (1, 200):
        given = {f"array {index}": int32(*range(index % 4)) for index in range(number)}
        for read in unpack_spans([pack_span(make_span(ATTEMPT, 1, **given))] * 2):
            assert {name: array.tolist() for name, array in read.attributes.items()} == {
                name: array.tolist() for name, array in given.items()
            }


def span_with_everything() -> Span:
    return replace(
        make_span(ATTEMPT, 3, text="t", ids=int32(1, 2)),
        parent_id="p",
        status="error",
        status_message="no",
        events=(SpanEvent("e", 1.5, {"n": 1}),),
    )


WAYS_OF_LOOKING: dict[str, Callable[[Span], object]] = {
    "attributes": lambda span: span.attributes,
    "events": lambda span: span.events,
    "both": lambda span: (span.attributes, span.events),
    "repr": repr,
    "pickle": pickle.dumps,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "asdict": asdict,
    "replace": lambda span: replace(span, name="other"),
    "pack": pack_span,
}


@pytest.mark.parametrize("look", WAYS_OF_LOOKING.values(), ids=WAYS_OF_LOOKING)
def test_a_span_that_was_read_is_a_span_like_any_other(look: Callable[[Span], object]) -> None:
    given = span_with_everything()
    read = unpack_span(pack_span(given))
    assert isinstance(read, Span)
    look(read)
    assert type(read) is Span
    assert repr(read) == repr(given)
    assert read.attributes is read.attributes


@pytest.mark.parametrize("copied", [lambda span: pickle.loads(pickle.dumps(span)), copy.copy, copy.deepcopy])
def test_a_copy_of_a_span_that_nobody_has_looked_at_is_a_span(copied: Callable[[Span], Span]) -> None:
    given = span_with_everything()
    again = copied(unpack_span(pack_span(given)))
    assert type(again) is Span
    assert repr(again) == repr(given)


def test_a_span_that_was_read_cannot_be_changed_and_compares_by_identity() -> None:
    row = pack_span(span_with_everything())
    for looked_at in (False, True):
        read, other = unpack_spans([row, row])
        if looked_at:
            assert read.attributes["text"] == other.attributes["text"]
        assert (read == read, read == other, hash(read) == hash(other)) == (True, False, False)
        for name in ("name", "attributes", "events"):
            with pytest.raises(FrozenInstanceError):
                setattr(read, name, "other")
        with pytest.raises((AttributeError, TypeError)):
            read.unknown = 1  # type: ignore[attr-defined]


LOOKS: dict[str, Callable[[Span], object]] = {
    "attributes": lambda span: span.attributes,
    "events": lambda span: span.events,
    "repr": repr,
}


@pytest.mark.parametrize("first", LOOKS)
@pytest.mark.parametrize("second", LOOKS)
@pytest.mark.parametrize("step", ["_decode", "_set_events", "_set_attributes", "_set_class"])
def test_threads_may_look_at_a_span_at_once(
    first: str, second: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread looks while another is reading, before each of its steps."""
    given = span_with_everything()
    read = unpack_span(pack_span(given))
    take_step = getattr(rows, step)
    seen: list[object] = []

    def after_another_has_looked(*arguments: Any) -> Any:
        monkeypatch.setattr(rows, step, take_step)
        other = threading.Thread(target=lambda: seen.append(LOOKS[second](read)))
        other.start()
        other.join()
        return take_step(*arguments)

    monkeypatch.setattr(rows, step, after_another_has_looked)
    seen.append(LOOKS[first](read))
    assert list(map(repr, seen)) == [repr(LOOKS[second](given)), repr(LOOKS[first](given))]
    assert (type(read), repr(read)) == (Span, repr(given))


def test_an_attribute_that_holds_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(InvalidValue, match=r"^attributes of span 'chat' is nested more than 300 deep"):
        pack_span(make_span(ATTEMPT, 1, endless=endless))
    assert pack_span(make_span(ATTEMPT, 1, twice=[endless[:0]] * 2)).attributes == '{"twice":[[],[]]}'


VALUES: dict[str, Any] = {
    "text": 'a"\\\n\u00e9\U0001f600\ud800',
    "numbers": [0, -1, 2**70, 0.1, 1e300, True, None],
    "from numpy": [np.float32(0.5), np.float64(0.25), np.int64(3), np.bool_(True)],
    "nested": {"a": [(1, 2), {}], "b": []},
}
TEXT = (
    '{"text":"a\\"\\\\\\n\\u00e9\\ud83d\\ude00\\ud800","numbers":[0,-1,1180591620717411303424,0.1,1e+300,true,null],'
    '"from numpy":[0.5,0.25,3,true],"nested":{"a":[[1,2],{}],"b":[]}}'
)


def test_attributes_are_written_as_json_with_and_without_the_quick_encoder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert pack_span(make_span(ATTEMPT, 1, **VALUES)).attributes == TEXT
    assert _fast_encoder()(VALUES) == TEXT
    monkeypatch.setattr(json.encoder, "c_make_encoder", None)  # as in a Python without it
    assert _fast_encoder()(VALUES) == TEXT


async def test_a_deleted_rollout_takes_the_spans_of_all_its_attempts_along(local: LocalStore) -> None:
    first = await local.start_rollout("x", rollout_id="r")
    second = await local.start_attempt("r")
    await local.add_many_spans([make_span(first.attempt, n) for n in (2, 1)])
    await local.add_many_spans([make_span(second.attempt, n) for n in (3, 1, 2)])
    read = await local.query_spans("r")
    assert [(span.attempt_id == second.attempt.attempt_id, span.sequence_id) for span in read] == [
        (False, 1),
        (False, 2),
        (True, 1),
        (True, 2),
        (True, 3),
    ]
    assert (await local.statistics())["spans"] == 5
    await local.update_rollout("r", status="cancelled")
    await local.delete_rollouts(["r"])
    statistics = await local.statistics()
    assert (statistics["spans"], statistics["total_span_bytes"]) == (0, 0)

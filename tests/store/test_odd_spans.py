"""Spans that are nearly right: what is taken can be kept, and keeps nobody else from anything."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_samples import make_span

from raybolt.store import InvalidValue, LocalStore, Span, StoreError, read_group, rows
from raybolt.store.rows import pack_span, unpack_span
from raybolt.store.types import Attempt

ATTEMPT = Attempt(rollout_id="r", attempt_id="a", sequence_id=1, start_time=1.0)
NANOSECONDS = 1_795_479_070_357_531_762


@pytest.mark.parametrize("field", ["parent_id", "status_message"])
@pytest.mark.parametrize("value", [{}, [], (), 0, False, b""])
async def test_what_is_false_but_no_text_is_no_text(tmp_path: Path, field: str, value: Any) -> None:
    async with LocalStore(tmp_path) as store:
        started = await store.start_rollout("x")
        with pytest.raises(InvalidValue, match=f"{field} is .*give a text"):
            await store.add_span(replace(make_span(started.attempt, 1), **{field: value}))
        await store.add_span(replace(make_span(started.attempt, 1), **{field: ""}))
    async with LocalStore(tmp_path) as store:
        (span,) = await store.query_spans(started.rollout_id)
        assert getattr(span, field) == ""


@pytest.mark.parametrize("time", [NANOSECONDS, 2**63, 10**19, 10**20, 10**299])
async def test_times_as_large_whole_numbers_are_kept_and_sealed_beside_fractions(
    tmp_path: Path, time: int
) -> None:
    async with LocalStore(tmp_path) as store:
        started = [await store.start_rollout(n, group_id="g") for n in range(2)]
        await store.declare_group("g", 2)
        await store.add_span(replace(make_span(started[0].attempt, 1), start_time=time, end_time=time))
        await store.add_span(make_span(started[1].attempt, 1))
        for each in started:
            await store.update_attempt(each.rollout_id, each.attempt.attempt_id, status="succeeded")
    async with LocalStore(tmp_path) as store:
        (handle,) = await store.take_groups(1)
        first, _ = read_group(handle).rollouts
        (read,) = await store.query_spans(started[0].rollout_id)
        assert first.spans[0].start_time == read.start_time == read.end_time == float(time)


@pytest.mark.parametrize("name", [1, (1, 2), b"x", None, "\ud800"])
def test_an_array_needs_a_name_that_every_file_can_hold(name: Any) -> None:
    span = replace(make_span(ATTEMPT, 1), attributes={name: np.arange(3)})
    with pytest.raises(InvalidValue, match=r"an attribute is called .*give a text"):
        pack_span(span)


def test_what_no_row_of_the_journal_can_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_BYTES", 100)
    arrays = {"one": np.zeros(10, np.int64), "two": np.zeros(10, np.int64)}
    with pytest.raises(InvalidValue, match=r"arrays of span .* over 100 bytes"):
        pack_span(replace(make_span(ATTEMPT, 1), attributes=arrays))
    with pytest.raises(InvalidValue, match=r"attributes of span .* over 100 bytes as JSON"):
        pack_span(replace(make_span(ATTEMPT, 1), attributes={"text": "x" * 101}))


def test_a_span_that_nobody_has_looked_at_can_be_replaced_whole() -> None:
    unread = unpack_span(pack_span(make_span(ATTEMPT, 1, text="secret")))
    redacted = replace(unread, attributes={}, events=())
    assert (type(redacted), redacted.attributes, redacted.events) == (Span, {}, ())
    assert unread.attributes["text"] == "secret"


async def test_a_group_that_cannot_be_sealed_keeps_no_other_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from raybolt.store import blocks

    encode = blocks.encode_rows

    def encode_but_bad(group_id: str, *args: Any) -> Any:
        if group_id == "bad":
            raise ValueError("Arrow does not like it")
        return encode(group_id, *args)

    monkeypatch.setattr(blocks, "encode_rows", encode_but_bad)
    async with LocalStore() as store:
        for group_id in ("bad", "good"):
            await store.declare_group(group_id, 1)
            rollout = await store.enqueue_rollout(1, group_id=group_id)
            await store.update_rollout(rollout.rollout_id, status="cancelled")
        assert [handle.group_id for handle in await store.take_groups(5)] == ["good"]
        with pytest.raises(StoreError, match=r"group 'bad' cannot be sealed .*Arrow does not like it"):
            await store.take_groups(5)
        monkeypatch.undo()
        assert [handle.group_id for handle in await store.take_groups(5)] == ["bad"]

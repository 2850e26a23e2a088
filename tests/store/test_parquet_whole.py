"""What comes back from Parquet is what the journal held, bit for bit: rows, their order, the feed."""

import asyncio
import io
import json
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from store_samples import fill_group, make_call_span, make_span
from store_sharded import ShardedStore

from raybolt.store import InvalidValue, LocalStore, RolloutConfig, Span, SpanEvent
from raybolt.store.parquet import FILES, export_parquet, export_zip, import_parquet
from raybolt.store.peek import count
from raybolt.store.rows import SpanRow, iter_arrays
from raybolt.store.types import ARRAY_DTYPES

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

TABLES = ("rollouts", "attempts", "groups", "resources", "changes", "spans")


def dump(folder):
    """Every row of a journal in its order; a span's arrays by name, since Parquet knows no order of them."""
    with closing(sqlite3.connect(folder / "journal.db")) as journal:
        found = {name: journal.execute(f"SELECT * FROM {name} ORDER BY rowid").fetchall() for name in TABLES}
    return {**found, "spans": [plain(id, SpanRow._make(row)) for id, *row in found["spans"]]}


def plain(id, row):
    arrays = sorted((name, dtype, array.tobytes()) for name, dtype, array in iter_arrays(row))
    return (id, *row[:13], len(row.layout), arrays)


def moved(folder, base):
    export_parquet(folder, base / "files")
    import_parquet(base / "files", base / "copy")
    return base / "copy"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
TIMES = st.floats(min_value=0, max_value=4e9) | st.integers(0, 2**31)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5)
ARRAYS = st.builds(
    lambda dtype, raw: np.frombuffer(raw[: len(raw) // 8 * 8], dtype),
    st.sampled_from(ARRAY_DTYPES),
    st.binary(max_size=40),
)
SPANS = st.fixed_dictionaries(
    {
        "sequence_id": st.integers(0, 2**62),
        "trace_id": TEXTS,
        "parent_id": st.none() | TEXTS,
        "name": TEXTS,
        "start_time": TIMES,
        "end_time": TIMES,
        "status": st.sampled_from(["ok", "error", "unset"]),
        "status_message": st.none() | st.text(max_size=5),
        "attributes": st.dictionaries(TEXTS, JSON | ARRAYS, max_size=4),
        "events": st.lists(
            st.builds(SpanEvent, TEXTS, TIMES, st.dictionaries(TEXTS, JSON, max_size=2)), max_size=2
        ).map(tuple),
    }
)
CONFIGS = st.builds(
    RolloutConfig,
    timeout_seconds=st.none() | st.floats(1e5, 1e9),
    unresponsive_seconds=st.none() | st.floats(1e5, 1e9),
    max_attempts=st.integers(1, 5),
    retry_condition=st.lists(st.sampled_from(["failed", "timeout"]), max_size=2),
)


@hypothesis.settings(max_examples=25, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(
    batches=st.lists(st.lists(SPANS, min_size=1, max_size=3), max_size=3),
    inputs=st.lists(st.tuples(JSON, st.dictionaries(TEXTS, JSON, max_size=2), CONFIGS), max_size=3),
    resources=st.lists(st.dictionaries(TEXTS, JSON, max_size=2), max_size=3),
    lease=st.none() | st.floats(1e4, 1e6),
)
def test_any_store_comes_back_bit_for_bit(batches, inputs, resources, lease):
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base, "one")
        asyncio.run(filled(folder, batches, inputs, resources, lease))
        assert dump(moved(folder, Path(base))) == dump(folder)


async def filled(folder, batches, inputs, resources, lease):
    async with LocalStore(folder) as store:
        for index, each in enumerate(resources):
            await store.update_resources(f"rs-{index % 2}", each)
        await fill_group(store, "g", num_rollouts=1)
        await store.take_groups(1, lease_seconds=lease)
        for input, metadata, config in inputs:
            await store.enqueue_rollout(input, config=config, metadata=metadata)
        taken = await store.dequeue_many_rollouts(2, worker_id="w")
        for each in taken[1:]:
            await store.update_rollout(each.rollout_id, status="requeuing")
        at_work = await store.start_rollout("x")
        for number, batch in enumerate(batches):
            await store.add_many_spans(
                [
                    Span(
                        rollout_id=at_work.rollout_id,
                        attempt_id=at_work.attempt.attempt_id,
                        span_id=f"{number}-{place}",
                        **fields,
                    )
                    for place, fields in enumerate(batch)
                ]
            )


async def test_cursors_stay_valid_and_the_feed_goes_on(tmp_path):
    async with LocalStore(tmp_path / "one") as store:
        await fill_group(store, "g", num_rollouts=3, num_spans=2)
        await store.take_groups(1, lease_seconds=1e6)
        feed = await store.get_changes(limit=999)
        groups = await store.query_groups()
    copy = moved(tmp_path / "one", tmp_path)
    async with LocalStore(copy) as store:
        assert await store.get_changes(limit=999) == feed
        assert await store.get_changes(feed[7].cursor, limit=3) == feed[8:11]
        assert await store.query_groups() == groups
        await store.enqueue_rollout("x", rollout_id="new")
        (change,) = await store.get_changes(feed[-1].cursor)
        assert (change.rollout_id, int(change.cursor)) == ("new", int(feed[-1].cursor) + 1)


async def test_several_shards_become_one_feed_with_cursors_of_its_own(tmp_path):
    root = tmp_path / "sharded"
    async with ShardedStore(3, root) as store:
        for index in range(9):
            started = await store.start_rollout("x", rollout_id=f"a{index}")
            await store.add_span(make_call_span(started.attempt, 1))
            await store.update_attempt(f"a{index}", "latest", status="succeeded")
        feed = await store.get_changes(limit=999)
    (root / "shards.json").write_text('{"num_shards": 3}')
    copy = moved(root, tmp_path)
    assert count(copy)["attempts"] == 9
    async with LocalStore(copy) as store:
        merged = await store.get_changes(limit=999)
        assert len(merged) == len(feed) == 72
        for index in range(9):
            assert story(merged, f"a{index}") == story(feed, f"a{index}")
        cursors = [int(change.cursor) for change in merged]
        assert cursors == sorted(set(cursors))
        assert await store.get_changes(merged[20].cursor, limit=999) == merged[21:]
        assert [rollout.rollout_id for rollout in await store.query_rollouts()] == [f"a{i}" for i in range(9)]
        with pytest.raises(InvalidValue, match=r"cursor is '\d+\.\d+\.\d+'; this store's feed goes from"):
            await store.get_changes(feed[20].cursor)


def story(changes, rollout_id):
    return [(c.kind, c.status, c.span_ids) for c in changes if c.rollout_id == rollout_id]


async def test_spans_from_before_there_were_positions_come_back_with_those_of_today(tmp_path):
    async with LocalStore(tmp_path / "one") as store:
        started = await store.start_rollout("x", rollout_id="r")
        await store.add_many_spans([make_span(started.attempt, n) for n in (1, 2, 3)])
    with closing(sqlite3.connect(tmp_path / "one" / "journal.db", isolation_level=None)) as journal:
        journal.execute("UPDATE spans SET id = sequence_id")  # as a journal of format 2 had them
    async with LocalStore(tmp_path / "one", keep_in_flight=True) as store:
        await store.add_many_spans([make_span(started.attempt, n) for n in (4, 5)])
        copy = moved(tmp_path / "one", tmp_path)
    assert dump(copy) == dump(tmp_path / "one")
    assert [span[0] < 10 for span in dump(copy)["spans"]] == [True, True, True, False, False]


async def test_a_folder_of_the_first_format_is_exported_without_being_changed(tmp_path):
    async with LocalStore(tmp_path / "one") as store:
        await fill_group(store, "g", num_rollouts=1)
    with closing(sqlite3.connect(tmp_path / "one" / "journal.db", isolation_level=None)) as journal:
        journal.executescript(
            "DROP TABLE changes; ALTER TABLE groups DROP COLUMN lease_end;"
            "ALTER TABLE groups DROP COLUMN create_time; ALTER TABLE groups DROP COLUMN complete_time;"
            "UPDATE spans SET id = sequence_id; PRAGMA user_version = 1;"
        )
    copy = moved(tmp_path / "one", tmp_path)
    assert json.loads(json.dumps(count(copy)["groups"])) == {"complete": 1}
    async with LocalStore(copy) as store:
        (group,) = await store.query_groups()
        assert (group.create_time, group.complete_time, group.lease_end) == (0.0, None, None)
        assert await store.get_changes() == []
        assert (await store.statistics())["spans"] == 1


async def test_a_zip_of_an_export_can_be_written_where_nobody_can_seek(tmp_path):
    class Pipe(io.RawIOBase):
        content = b""

        def writable(self):
            return True

        def write(self, data):
            self.content += bytes(data)
            return len(data)

    async with LocalStore(tmp_path / "one") as store:
        await fill_group(store, "g", num_rollouts=2)
        pipe = Pipe()
        export_zip(tmp_path / "one", pipe)
    with ZipFile(io.BytesIO(pipe.content)) as archive:
        assert sorted(archive.namelist()) == sorted(FILES)
        archive.extractall(tmp_path / "files")
    import_parquet(tmp_path / "files", tmp_path / "copy")
    assert dump(tmp_path / "copy") == dump(tmp_path / "one")


async def test_a_name_with_a_nul_in_it_comes_back(tmp_path):
    async with LocalStore(tmp_path / "one") as store:
        started = await store.start_rollout("x", rollout_id="r")
        attributes = {"\x00": np.array([1, 2], np.int32), "a\x00b": np.array([0.5], np.float32), "\x00c": 1}
        await store.add_span(replace(make_span(started.attempt, 1), attributes=attributes))
    assert dump(moved(tmp_path / "one", tmp_path)) == dump(tmp_path / "one")

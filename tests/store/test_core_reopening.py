"""Folders that were written before: by this store, by an older one, with a great many spans."""

import json
import sqlite3
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import pytest
from store_samples import copy_of_killed, fill_group, make_call_span, make_span

from raybolt.store import Change, InvalidValue, LocalStore, RolloutConfig, StoreError, names, read_group
from raybolt.store.journal import Journal
from raybolt.store.schema import SPAN_COLUMNS, first_span_id, position_of

_FORMAT_1 = """
CREATE TABLE rollouts (
    rollout_id TEXT PRIMARY KEY, group_id TEXT, task_id TEXT, mode TEXT, resources_id TEXT,
    status TEXT NOT NULL, start_time REAL NOT NULL, end_time REAL, queue_position INTEGER,
    input TEXT NOT NULL, config TEXT NOT NULL, metadata TEXT NOT NULL);
CREATE TABLE attempts (
    attempt_id TEXT PRIMARY KEY, rollout_id TEXT NOT NULL, sequence_id INTEGER NOT NULL, status TEXT NOT NULL,
    start_time REAL NOT NULL, end_time REAL, worker_id TEXT, metadata TEXT NOT NULL);
CREATE TABLE groups (
    group_id TEXT PRIMARY KEY, task_id TEXT, num_rollouts INTEGER, num_ended INTEGER NOT NULL,
    num_succeeded INTEGER NOT NULL, status TEXT NOT NULL, taken_by TEXT);
CREATE TABLE resources (
    resources_id TEXT PRIMARY KEY, version INTEGER NOT NULL, create_time REAL NOT NULL,
    update_time REAL NOT NULL, resources TEXT NOT NULL);
CREATE TABLE spans (
    rollout_id TEXT NOT NULL, attempt_id TEXT NOT NULL, sequence_id INTEGER NOT NULL, trace_id TEXT NOT NULL,
    span_id TEXT NOT NULL, parent_id TEXT, name TEXT NOT NULL, start_time REAL NOT NULL,
    end_time REAL NOT NULL, status TEXT NOT NULL, status_message TEXT, attributes TEXT NOT NULL,
    events TEXT NOT NULL, layout TEXT NOT NULL, arrays BLOB NOT NULL);
CREATE INDEX spans_by_rollout ON spans (rollout_id);
PRAGMA user_version = 1;
"""
_CONFIG = json.dumps(
    {"timeout_seconds": None, "unresponsive_seconds": None, "max_attempts": 2, "retry_condition": ["failed"]}
)


def _write_format_1(folder: Path) -> None:
    """A folder as the first raybolt left it: a taken group, a complete one, a waiting rollout."""
    connection = sqlite3.connect(folder / "journal.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(_FORMAT_1)
    for name, group, status in (("a", "taken", "succeeded"), ("b", "complete", "failed")):
        connection.execute(
            "INSERT INTO rollouts VALUES"
            " (?, ?, 't', 'train', 'rs', ?, 10.0, 12.0, NULL, '{\"q\": 1}', ?, '{}')",
            (name, group, status, _CONFIG),
        )
        connection.execute(
            "INSERT INTO attempts VALUES (?, ?, 1, ?, 10.5, 12.0, 'w', '{\"m\": 1}')",
            (f"at-{name}", name, status),
        )
        connection.execute(
            "INSERT INTO groups VALUES (?, 't', 1, 1, ?, ?, ?)",
            (group, status == "succeeded", group, "claim" if group == "taken" else None),
        )
        connection.execute(
            "INSERT INTO spans VALUES (?, ?, 1, 'tr', 'sp', NULL, 'chat', 10.5, 11.0, 'ok', NULL,"
            ' \'{"k":"v"}\', \'[]\', \'[["raybolt.ids","int32",2]]\', ?)',
            (name, f"at-{name}", b"\x07\x00\x00\x00\x08\x00\x00\x00"),
        )
    connection.execute(
        "INSERT INTO rollouts VALUES ('c', NULL, NULL, NULL, NULL, 'queuing', 11.0, NULL, 3, '5', ?, '{}')",
        (_CONFIG,),
    )
    connection.execute("INSERT INTO resources VALUES ('rs', 2, 1.0, 2.0, '{\"prompt\": \"p\"}')")
    connection.close()


async def test_a_folder_of_format_1_is_opened_with_all_it_holds(tmp_path: Path) -> None:
    _write_format_1(tmp_path)
    async with LocalStore(tmp_path) as store:
        assert [(r.rollout_id, r.status) for r in await store.query_rollouts()] == [
            ("a", "succeeded"),
            ("b", "failed"),
            ("c", "queuing"),
        ]
        (span,) = await store.query_spans("a")
        assert span.attributes["raybolt.ids"].tolist() == [7, 8]
        assert span.attributes["k"] == "v"
        (attempt,) = await store.query_attempts("b")
        assert (attempt.status, attempt.worker_id, attempt.metadata) == ("failed", "w", {"m": 1})
        latest = await store.get_latest_resources()
        assert latest is not None
        assert (latest.resources_id, latest.version, latest.resources) == ("rs", 2, {"prompt": "p"})
        assert [(g.group_id, g.status, g.lease_end) for g in await store.query_groups()] == [
            ("taken", "taken", None),
            ("complete", "complete", None),
        ]
        (handle,) = await store.take_groups(5, lease_seconds=60)
        assert [data.rollout.rollout_id for data in read_group(handle).rollouts] == ["b"]
        taken = await store.dequeue_rollout()
        assert taken is not None
        assert (taken.rollout_id, taken.config.max_attempts) == ("c", 2)


async def test_a_migrated_folder_is_of_todays_format_and_keeps_what_is_new(tmp_path: Path) -> None:
    _write_format_1(tmp_path)
    async with LocalStore(tmp_path) as store:
        assert await store.get_changes() == []
        await store.take_groups(1, lease_seconds=3600)
        await store.enqueue_rollout("new", rollout_id="d")
    connection = sqlite3.connect(tmp_path / "journal.db")
    assert connection.execute("PRAGMA user_version").fetchone() == (4,)
    connection.close()
    async with LocalStore(tmp_path) as store:
        (group,) = await store.query_groups(group_id_in=["complete"])
        assert (group.status, group.lease_end is None) == ("taken", False)
        changes = await store.get_changes()
        assert [(c.cursor, c.kind, c.status) for c in changes] == [
            ("1", "group", "taken"),
            ("2", "rollout", "queuing"),
        ]
        assert [t.rollout_id for t in await store.dequeue_many_rollouts(5)] == ["c", "d"]


async def test_opening_many_spans_reads_none_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with LocalStore(tmp_path) as store:
        started = [await store.start_rollout(i, rollout_id=f"r{i}") for i in range(50)]
        for one in started:
            await store.add_many_spans([make_call_span(one.attempt, number) for number in range(100)])
    recalled: list[str] = []
    recall = Journal.recall

    def noting(self: Journal, rollout_id: str) -> object:
        recalled.append(rollout_id)
        return recall(self, rollout_id)

    monkeypatch.setattr(Journal, "recall", noting)
    async with LocalStore(tmp_path) as store:
        counts = await store.statistics()
        assert (counts["spans"], counts["total_span_bytes"]) == (5000, 0)
        assert recalled == []
        spans = await store.query_spans("r7")
        assert [span.sequence_id for span in spans] == list(range(100))
        assert spans[0].attributes[names.RESPONSE_IDS].tolist() == [8, 9]
        assert recalled == ["r7"]


async def test_sequence_ids_go_on_above_the_spans_after_a_restart(tmp_path: Path) -> None:
    async with LocalStore(tmp_path) as store:
        started = await store.start_rollout("x", rollout_id="r")
        ids = ("r", started.attempt.attempt_id)
        assert await store.get_many_span_sequence_ids([ids, ids]) == [1, 2]
        await store.add_span(make_span(started.attempt, 12))
    async with LocalStore(tmp_path) as store:
        assert await store.get_many_span_sequence_ids([ids, ids]) == [13, 14]


async def test_numbers_that_no_span_has_used_yet_are_not_given_out_again_after_a_restart(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "0"
    store = LocalStore(folder)
    a, b = [await store.start_rollout("x", rollout_id=rollout_id) for rollout_id in "ab"]
    of_a, of_b = [(each.rollout_id, each.attempt.attempt_id) for each in (a, b)]
    assert await store.get_many_span_sequence_ids([of_a, of_b, of_a]) == [1, 1, 2]
    for number in (1, 2):  # killed twice
        again = copy_of_killed(folder, tmp_path / str(number))
        await store.close()
        folder, store = again, LocalStore(again, keep_in_flight=True)
        assert await store.get_next_span_sequence_id(*of_a) == 2 + number
    await store.add_span(make_span(a.attempt, 9))
    assert await store.get_next_span_sequence_id(*of_a) == 10
    await store.update_rollout("a", status="cancelled")
    await store.delete_rollouts(["a"])
    await store.close()
    with closing(sqlite3.connect(folder / "journal.db")) as connection:
        assert connection.execute("SELECT * FROM numbers").fetchall() == [(of_b[1], 1)]


async def test_an_attempt_with_the_largest_number_has_no_others(tmp_path: Path) -> None:
    async with LocalStore(tmp_path) as store:
        started = await store.start_rollout("x", rollout_id="r")
        ids = ("r", started.attempt.attempt_id)
        await store.add_span(make_span(started.attempt, 2**63 - 2))
        assert await store.get_next_span_sequence_id(*ids) == 2**63 - 1
        with pytest.raises(
            InvalidValue, match=rf"'{ids[1]}' has the number {2**63 - 1}; there is none above"
        ):
            await store.get_next_span_sequence_id(*ids)
        await store.add_span(make_span(started.attempt, 2**63 - 1))
        assert len(await store.query_spans("r")) == 2


async def test_every_attempt_in_flight_is_given_up_superseded_ones_too(tmp_path: Path) -> None:
    async with LocalStore(tmp_path) as store:
        await store.start_rollout("x", rollout_id="tried twice", worker_id="w")
        await store.start_attempt("tried twice")
        await store.start_rollout("x", rollout_id="cancelled", worker_id="w")
        await store.update_rollout("cancelled", status="cancelled")
        await store.start_rollout("x", rollout_id="queued", worker_id="w")
        await store.update_rollout("queued", status="queuing")
    async with LocalStore(tmp_path) as store:
        attempts = [
            a for id in ("tried twice", "cancelled", "queued") for a in await store.query_attempts(id)
        ]
        assert [attempt.status for attempt in attempts] == ["unresponsive"] * 4
        assert [rollout.status for rollout in await store.query_rollouts()] == [
            "failed",
            "cancelled",
            "queuing",
        ]
        assert (await store.statistics())["lost"] == {"requeued": [], "failed": ["tried twice"]}
        assert await store.query_workers(status_in=["busy"]) == []


async def test_the_feed_goes_on_where_it_was(tmp_path: Path) -> None:
    async with LocalStore(tmp_path) as store:
        await fill_group(store, "g", num_rollouts=2)
        before = await store.get_changes()
        middle = before[5].cursor
    async with LocalStore(tmp_path) as store:
        assert await store.get_changes() == before
        assert await store.get_changes(middle) == before[6:]
        await store.enqueue_rollout("new", rollout_id="new")
        (change,) = await store.get_changes(before[-1].cursor)
        assert (change.rollout_id, int(change.cursor)) == ("new", int(before[-1].cursor) + 1)


def _turn_into_format_2(folder: Path, feed: list[Change]) -> None:
    """As the whole feed stood in a table of its own, and spans were numbered as they came."""
    with closing(sqlite3.connect(folder / "journal.db", isolation_level=None)) as connection:
        for change in feed:
            text = json.dumps(
                {name: value for name, value in asdict(change).items() if value and name != "cursor"}
            )
            connection.execute("INSERT OR REPLACE INTO changes VALUES (?, ?)", (change.cursor, text))
        connection.executescript(f"""
            BEGIN;
            CREATE TABLE old AS SELECT {SPAN_COLUMNS} FROM spans ORDER BY id;
            DROP TABLE spans;
            ALTER TABLE old RENAME TO spans;
            CREATE INDEX spans_by_rollout ON spans (rollout_id);
            DROP TABLE tail; DROP TABLE numbers;
            PRAGMA user_version = 2;
            COMMIT;""")


async def test_a_folder_of_format_2_keeps_its_spans_and_its_feed(tmp_path: Path) -> None:
    async with LocalStore(tmp_path) as store:
        await fill_group(store, "g", num_rollouts=2, num_spans=3)
        (rollout, _) = await store.query_rollouts()
        before = await store.get_changes()
        spans = [span.span_id for span in await store.query_spans(rollout.rollout_id)]
    _turn_into_format_2(tmp_path, before)
    async with LocalStore(tmp_path) as store:
        assert [span.span_id for span in await store.query_spans(rollout.rollout_id)] == spans
        (attempt,) = await store.query_attempts(rollout.rollout_id)
        await store.add_many_spans([make_span(attempt, number) for number in (7, 8)])
    async with LocalStore(tmp_path) as store:
        changes = await store.get_changes()
        assert changes[: len(before)] == before
        (added,) = changes[len(before) :]
        assert (added.kind, len(added.span_ids)) == ("spans", 2)
        assert int(added.cursor) == int(before[-1].cursor) + 1


async def test_the_feed_goes_on_behind_spans_that_came_last(tmp_path: Path) -> None:
    async with LocalStore(tmp_path) as store:
        started = await store.start_rollout("x", rollout_id="r")
        await store.add_span(make_span(started.attempt, 1))
        await store.add_span(make_span(started.attempt, 2))
        before = await store.get_changes()
        assert before[-1].kind == "spans"
    async with LocalStore(tmp_path, keep_in_flight=True) as store:
        await store.add_span(make_span(started.attempt, 3))
        (*_, last), number = await store.get_changes(), len(before)
        assert (last.kind, int(last.cursor)) == ("spans", number + 1)
        assert [span.sequence_id for span in await store.query_spans("r")] == [1, 2, 3]


def test_ids_of_spans_tell_their_change_and_those_of_older_formats_tell_none() -> None:
    assert position_of(first_span_id(7)) == position_of(first_span_id(7) + 5) == 7
    assert first_span_id(8) > first_span_id(7) + 2**20 - 1
    assert position_of(3_000_000) <= 0  # as of a folder that numbered three million


async def test_a_folder_that_cannot_be_migrated_stays_as_it_was(tmp_path: Path) -> None:
    async with LocalStore(tmp_path) as store:
        await fill_group(store, "g", num_rollouts=1)
        feed = await store.get_changes()
    _turn_into_format_2(tmp_path, feed)
    with closing(sqlite3.connect(tmp_path / "journal.db")) as connection:
        connection.execute("CREATE TABLE spans_2 (in_the_way)")
    with pytest.raises(
        StoreError, match=r"has format 2 and cannot be brought to 4 \(.*already.*\); make room"
    ):
        LocalStore(tmp_path)
    with closing(sqlite3.connect(tmp_path / "journal.db")) as connection:
        connection.execute("DROP TABLE spans_2")
    async with LocalStore(tmp_path) as store:
        assert await store.get_changes() == feed


async def test_the_feed_leaves_out_the_spans_of_deleted_rollouts_and_goes_on(tmp_path: Path) -> None:
    async with LocalStore(tmp_path) as store:
        for rollout_id in ("gone", "kept"):
            started = await store.start_rollout("x", rollout_id=rollout_id)
            await store.add_span(make_span(started.attempt, 1))
            await store.update_attempt(rollout_id, "latest", status="succeeded")
        await store.delete_rollouts(["gone"])
        await store.compact()
    async with LocalStore(tmp_path) as store:
        feed = [
            (c.kind, c.rollout_id) for c in await store.get_changes() if c.kind not in ("rollout", "attempt")
        ]
        assert feed == [("spans", "kept"), ("deleted", "gone")]


async def test_a_cursor_older_than_the_feed_is_kept_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raybolt.store.journal.KEPT_CHANGES", 10)
    monkeypatch.setattr("raybolt.store.feed.RESIDENT_CHANGES", 0)
    async with LocalStore(tmp_path) as store:
        started = await store.start_rollout("x", rollout_id="r")  # 3 changes
        for number in range(17):
            await store.add_span(make_span(started.attempt, number))  # 2 more for the first
        assert (await store.get_changes("0"))[0].cursor == "1"
        await store.enqueue_rollout("y")
        with pytest.raises(
            InvalidValue, match="cursor is 0, but the feed is kept from 10 on; read the state"
        ):
            await store.get_changes("0")
        assert [int(change.cursor) for change in await store.get_changes("10")] == list(range(11, 24))
    with closing(sqlite3.connect(tmp_path / "journal.db")) as connection:
        assert connection.execute("SELECT min(position) FROM changes").fetchone() == (23,)


async def test_a_lease_that_ends_while_the_folder_is_closed_frees_the_group(tmp_path: Path) -> None:
    async with LocalStore(tmp_path) as store:
        await fill_group(store, "g", num_rollouts=1)
        assert len(await store.take_groups(1, lease_seconds=0.2)) == 1
    time.sleep(0.3)
    async with LocalStore(tmp_path) as store:
        assert [group.status for group in await store.wait_for_groups(["g"])] != ["open"]
        handles = []
        deadline = time.monotonic() + 30
        while not handles and time.monotonic() < deadline:
            handles = await store.take_groups(1)
        assert [handle.group_id for handle in handles] == ["g"]


async def test_a_limit_set_before_a_restart_holds_for_the_next_attempt(tmp_path: Path) -> None:
    config = RolloutConfig(timeout_seconds=0.2, max_attempts=2, retry_condition=("unresponsive",))
    async with LocalStore(tmp_path) as store:
        await store.start_rollout("x", rollout_id="r", config=config)
    async with LocalStore(tmp_path) as store:
        assert await store.dequeue_rollout() is not None
        ended = await store.wait_for_rollouts(["r"], timeout=60)
        assert [(r.status, r.config) for r in ended] == [("failed", config)]

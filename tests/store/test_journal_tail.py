"""Changes that are safe in a journal's tail before they are in its database."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from contextlib import closing
from pathlib import Path

import msgpack
import pytest
from store_samples import copy_of_killed, make_span

from raybolt.store import LocalStore, RolloutConfig, StoreError
from raybolt.store.journal_file import new_mark, open_database, settle
from raybolt.store.peek import count, read_attempts, read_rollouts
from raybolt.store.tail import Tail, read_tail

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def unsettled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing leaves the tail by itself."""
    monkeypatch.setattr("raybolt.store.keeper.SETTLE_SECONDS", 3600.0)


def in_database(folder: Path, table: str = "spans") -> int:
    """How many rows whoever looks at the database alone sees."""
    with closing(sqlite3.connect(folder / "journal.db")) as connection:
        (found,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(found)


async def numbers(store: LocalStore, rollout_id: str = "r") -> list[int]:
    return [span.sequence_id for span in await store.query_spans(rollout_id)]


@pytest.mark.usefixtures("unsettled")
async def test_every_kind_of_change_survives_in_the_tail(tmp_path: Path) -> None:
    async with LocalStore(tmp_path / "one") as store:
        await store.add_resources({"prompt": "p"}, resources_id="rs")
        await store.update_resources("rs", {"prompt": "q"})
        await store.declare_group("g", 1, task_id="t")
        await store.enqueue_rollout("x", rollout_id="r", group_id="g", task_id="t", metadata={"k": [1, None]})
        taken = await store.dequeue_rollout(worker_id="w")
        assert taken is not None
        await store.add_span(make_span(taken.attempt, 1))
        await store.update_attempt("r", "latest", status="succeeded", metadata={"é": 1.5})
        await store.enqueue_rollout("y", rollout_id="gone")
        await store.update_rollout("gone", status="cancelled")
        await store.delete_rollouts(["gone"])
        for table in ("rollouts", "spans", "changes"):
            assert in_database(tmp_path / "one", table) == 0
        killed = copy_of_killed(tmp_path / "one", tmp_path / "two")
        async with LocalStore(killed) as again:
            (rollout,) = await again.query_rollouts()
            assert (rollout.rollout_id, rollout.status, rollout.input) == ("r", "succeeded", "x")
            assert rollout.metadata == {"k": [1, None]}
            (attempt,) = await again.query_attempts("r")
            assert (attempt.status, attempt.worker_id, attempt.metadata) == ("succeeded", "w", {"é": 1.5})
            assert await numbers(again) == [1]
            assert await again.query_groups() == await store.query_groups()
            assert await again.query_resources() == await store.query_resources()
            assert await again.get_changes() == await store.get_changes()


@pytest.mark.usefixtures("unsettled")
async def test_what_is_in_the_database_already_does_not_come_again_from_the_tail(tmp_path: Path) -> None:
    async with LocalStore(tmp_path / "one") as store:
        started = await store.start_rollout("x", rollout_id="r")
        for number in (1, 2, 3):
            await store.add_span(make_span(started.attempt, number))
        await store.add_many_spans([make_span(started.attempt, number) for number in range(4, 24)])
        assert in_database(tmp_path / "one") == 23
        stale = copy_of_killed(tmp_path / "one", tmp_path / "stale")
        assert (stale / "journal.tail").stat().st_size > 500
        await store.add_span(make_span(started.attempt, 24))  # over the oldest of those
        mixed = copy_of_killed(tmp_path / "one", tmp_path / "mixed")
    async with LocalStore(stale) as again:
        assert await numbers(again) == list(range(1, 24))
        assert (await again.statistics())["spans"] == 23
    async with LocalStore(mixed) as again:
        assert await numbers(again) == list(range(1, 25))
        assert (await again.statistics())["spans"] == 24


@pytest.mark.usefixtures("unsettled")
async def test_a_tail_taken_in_twice_counts_once(tmp_path: Path) -> None:
    async with LocalStore(tmp_path / "one") as store:
        started = await store.start_rollout("x", rollout_id="r")
        await store.add_span(make_span(started.attempt, 1))
        killed = copy_of_killed(tmp_path / "one", tmp_path / "two")
        tail = (killed / "journal.tail").read_bytes()
    async with LocalStore(killed, keep_in_flight=True):
        pass
    assert not (killed / "journal.tail").exists()
    (killed / "journal.tail").write_bytes(tail)  # as if the process had died before it could delete it
    async with LocalStore(killed) as again:
        assert await numbers(again) == [1]
    assert not (killed / "journal.tail").exists()


async def test_the_tail_is_moved_into_the_database_soon_though_nobody_asks(tmp_path: Path) -> None:
    async with LocalStore(tmp_path) as store:
        started = await store.start_rollout("x", rollout_id="r")
        for number in (1, 2):
            await store.add_span(make_span(started.attempt, number))
            deadline = time.monotonic() + 30
            while in_database(tmp_path) < number:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)


@pytest.mark.usefixtures("unsettled")
@pytest.mark.parametrize(("limit", "most"), [("MOST_WAITING", 10), ("MOST_WAITING_BYTES", 5_000)])
async def test_the_tail_is_moved_into_the_database_when_it_is_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, most: int
) -> None:
    monkeypatch.setattr(f"raybolt.store.journal.{limit}", most)
    async with LocalStore(tmp_path) as store:
        started = await store.start_rollout("x", rollout_id="r")
        for number in range(30):
            await store.add_span(make_span(started.attempt, number, text="x" * 500))
            assert in_database(tmp_path) >= number - 10
            assert (tmp_path / "journal.tail").stat().st_size < 15_000


@pytest.mark.usefixtures("unsettled")
async def test_many_changes_at_once_go_into_the_database_behind_those_of_the_tail(tmp_path: Path) -> None:
    async with LocalStore(tmp_path) as store:
        started = await store.start_rollout("x", rollout_id="r")
        await store.add_span(make_span(started.attempt, 1))
        await store.add_many_spans([make_span(started.attempt, 2 + number) for number in range(20)])
        assert in_database(tmp_path) == 21
        assert in_database(tmp_path, "rollouts") == 1


@pytest.mark.usefixtures("unsettled")
async def test_what_waits_in_the_tail_can_be_read_when_memory_has_let_go_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raybolt.store.feed.RESIDENT_CHANGES", 2)
    async with LocalStore(tmp_path, cache_bytes=0) as store:
        for rollout_id in ("r", "s", "t"):
            started = await store.start_rollout("x", rollout_id=rollout_id)
            for number in (1, 2):
                await store.add_span(make_span(started.attempt, number))
            await store.update_attempt(rollout_id, "latest", status="succeeded")
        assert [await numbers(store, rollout_id) for rollout_id in ("r", "s", "t")] == [[1, 2]] * 3
        changes = await store.get_changes()
        assert [int(change.cursor) for change in changes] == list(range(1, len(changes) + 1))
        assert [change.span_ids for change in changes if change.kind == "spans"] == [
            ("span-1",),
            ("span-2",),
        ] * 3
        assert await store.delete_rollouts(["r"]) == 1
        assert (await store.statistics())["spans"] == 4
        await store.compact()
        assert in_database(tmp_path) == 4


@pytest.mark.usefixtures("unsettled")
async def test_the_first_change_of_a_turn_is_written_at_once_and_the_others_together(
    tmp_path: Path, unsettled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries: list[bytes] = []
    append = Tail.append

    def noted(self: Tail, entry: bytes) -> None:
        entries.append(entry)
        append(self, entry)

    monkeypatch.setattr(Tail, "append", noted)
    async with LocalStore(tmp_path) as store:
        attempt = (await store.start_rollout("x", rollout_id="r")).attempt
        for first in (1, 7, 13):
            await asyncio.sleep(0)
            entries.clear()
            spans = [make_span(attempt, first + place) for place in range(6)]
            await asyncio.gather(*map(store.add_span, spans))
            written = [[span for span in spans if span.span_id.encode() in entry] for entry in entries]
            assert written == [spans[:1], spans[1:]]
        turns: list[int] = []
        asyncio.get_running_loop().call_soon(turns.append, 1)
        for number in range(19, 22):  # by which nobody keeps others from their turn
            await store.add_span(make_span(attempt, number))
        assert turns == [1]


async def test_a_closed_folder_has_no_tail(tmp_path: Path) -> None:
    async with LocalStore(tmp_path) as store:
        await store.enqueue_rollout("x")
        assert (tmp_path / "journal.tail").exists()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["journal.db", "journal.lock"]
    assert in_database(tmp_path, "rollouts") == 1


async def test_who_looks_from_outside_sees_all_that_was_acknowledged(tmp_path: Path) -> None:
    async with LocalStore(tmp_path) as store:
        started = await store.start_rollout("x", rollout_id="r")
        for number in range(1, 6):
            await store.add_span(make_span(started.attempt, number))
            ((attempt, spans),) = await asyncio.to_thread(read_attempts, tmp_path, "r")
            assert [span.sequence_id for span in spans] == list(range(1, number + 1))
            assert attempt.status == "running"


@pytest.mark.usefixtures("unsettled")
async def test_who_looks_at_a_killed_stores_folder_sees_all_and_gives_up_nothing(tmp_path: Path) -> None:
    async with LocalStore(tmp_path / "one") as store:
        started = await store.start_rollout("x", rollout_id="r", config=RolloutConfig(max_attempts=2))
        await store.add_span(make_span(started.attempt, 1))
        killed = copy_of_killed(tmp_path / "one", tmp_path / "two")
    assert count(killed)["spans"] == 1
    (data,) = read_rollouts(killed / "journal.db")
    assert (data.rollout.status, len(data.spans)) == ("running", 1)
    async with LocalStore(killed, keep_in_flight=True) as again:
        assert await numbers(again) == [1]


async def test_who_looks_while_the_owner_hangs_is_told_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raybolt.store.journal_file._SETTLING_SECONDS", 0.2)
    owner = textwrap.dedent(
        """
        import asyncio, sys
        from raybolt.store import LocalStore, keeper
        keeper.SETTLE_SECONDS = 3600.0

        async def main():
            store = LocalStore(sys.argv[1])
            await store.start_rollout("x", rollout_id="r")
            print("ready", flush=True)
            sys.stdin.read()

        asyncio.run(main())
        """
    )
    command = [sys.executable, "-c", owner, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        with pytest.raises(
            StoreError, match=r"journal\.tail has changes that journal\.db lacks.*end that process"
        ):
            count(tmp_path)
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert count(tmp_path)["rollouts"] == {"preparing": 1}


async def test_a_tail_of_another_format_is_refused_and_kept(tmp_path: Path) -> None:
    async with LocalStore(tmp_path):
        pass
    with closing(Tail(tmp_path)) as tail:
        tail.append(msgpack.packb((99, 0, [])))
    with pytest.raises(StoreError, match=r"journal\.tail has format 99, not 4; open the folder once with"):
        LocalStore(tmp_path)
    assert (tmp_path / "journal.tail").stat().st_size > 0


async def test_a_tail_for_which_the_database_has_no_room_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raybolt.store.keeper.SETTLE_SECONDS", 3600.0)
    async with LocalStore(tmp_path / "one") as store:
        started = await store.start_rollout("x", rollout_id="r")
        await store.add_span(make_span(started.attempt, 1))
        killed = copy_of_killed(tmp_path / "one", tmp_path / "two")
    with monkeypatch.context() as patched:
        patched.setattr("raybolt.store.journal_file.write", _no_room)
        with pytest.raises(StoreError, match=r"cannot be written \(database or disk is full\); make room"):
            LocalStore(killed)
        with pytest.raises(StoreError, match="make room"):
            count(killed)
    async with LocalStore(killed) as again:
        assert await numbers(again) == [1]


def _no_room(*_: object) -> None:
    raise sqlite3.OperationalError("database or disk is full")


def test_entries_are_read_up_to_the_first_that_is_torn(tmp_path: Path) -> None:
    changes = [[("progress", ("running", None, number, "r"))] for number in range(3)]
    with closing(Tail(tmp_path)) as tail:
        sizes = []
        for each in changes:
            tail.append(tail.entry(7, each))
            sizes.append(tail.num_bytes)
    whole = (tmp_path / "journal.tail").read_bytes()
    expected = {0: 0, 1: 0, sizes[0] - 1: 0, sizes[0]: 1, sizes[0] + 5: 1, sizes[1]: 2, sizes[2] - 1: 2}
    for size, num_changes in {**expected, sizes[2]: 3}.items():
        (tmp_path / "journal.tail").write_bytes(whole[:size])
        assert read_tail(tmp_path, 7) == [change for each in changes[:num_changes] for change in each]
    assert read_tail(tmp_path, 8) == []
    torn = bytearray(whole)
    torn[sizes[1] - 1] ^= 1
    (tmp_path / "journal.tail").write_bytes(torn)
    assert read_tail(tmp_path, 7) == changes[0]


def test_an_entry_that_is_written_in_part_only_is_no_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.write
    with closing(Tail(tmp_path)) as tail:
        tail.append(tail.entry(7, []))
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", lambda file, data: whole(file, data[:10]))
            with pytest.raises(OSError, match="No space left"):
                tail.append(tail.entry(7, [("drop group", ("g",))]))
    assert read_tail(tmp_path, 7) == []


def test_who_looks_need_not_wait_for_what_came_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tail of a busy store is never empty; it is enough that it was moved once."""
    with closing(open_database(tmp_path / "journal.db")), closing(Tail(tmp_path)) as tail:
        tail.append(tail.entry(0, [("drop group", ("g",))]))
        marks = iter([0, 0, 5])
        monkeypatch.setattr("raybolt.store.journal_file._take_over", lambda path: False)
        monkeypatch.setattr("raybolt.store.journal_file.mark_of", lambda connection: next(marks))
        monkeypatch.setattr("raybolt.store.journal_file.read_tail", lambda folder, mark: [("mark", (mark,))])
        settle(tmp_path / "journal.db")
    assert next(marks, None) is None


def test_marks_are_never_the_same() -> None:
    assert len({new_mark() for _ in range(1000)}) == 1000

"""`raybolt store` on stores that are at work: behind a server, or on Ray; and how its output looks."""

from __future__ import annotations

import asyncio
import http.server
import io
import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from store_samples import make_span, run_one
from typer.testing import CliRunner

from raybolt import console_store
from raybolt.cli import app
from raybolt.store import HttpStore, LocalStore, RolloutConfig, serve
from raybolt.store.types import Attempt, Rollout

NUM_ENDED = 20
"""More than are asked for at once."""


def run(*arguments: object, token: str | None = None):
    env = {"COLUMNS": "300", "TERM": "dumb", "RAYBOLT_STORE_TOKEN": token}
    return CliRunner().invoke(app, ["store", *map(str, arguments)], env=env)


def printed(*arguments: object, token: str | None = None) -> str:
    result = run(*arguments, token=token)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments: object, token: str | None = None) -> str:
    result = run(*arguments, token=token)
    assert result.exit_code == 2, result.output
    return " ".join(result.output.split())


async def fill(store: LocalStore) -> None:
    for index in range(NUM_ENDED):
        config = RolloutConfig()
        await store.enqueue_rollout({"n": index}, mode="train", config=config, rollout_id=f"ended-{index}")
        await run_one(store, status="failed" if index % 5 == 4 else "succeeded")
    await store.enqueue_many_rollouts([])
    for index in range(3):
        await store.enqueue_rollout(
            {"n": index}, mode="val", rollout_id=f"waits-{index}", task_id=f"t{index}"
        )
    at_work = await store.start_rollout("x", rollout_id="at-work", group_id="g")
    await store.add_span(make_span(at_work.attempt, 1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Iterator[Path]:
    """A folder that a store has open all the while."""
    made = tmp_path_factory.mktemp("stores") / "served"
    store = LocalStore(made)
    asyncio.run(fill(store))
    with serve(store, port=0) as server, serve(store, port=0, tokens=["secret"]) as guarded:
        made.with_name("url").write_text(server.url)
        made.with_name("guarded").write_text(guarded.url)
        yield made
    asyncio.run(store.close())


@pytest.fixture(params=["folder", "url"])
def where(request, folder: Path) -> str:
    return str(folder) if request.param == "folder" else folder.with_name("url").read_text()


def ids(*arguments: object) -> list[str]:
    return [each["rollout_id"] for each in json.loads(printed("ls", *arguments, "--json"))]


def test_ls_of_a_server_lists_what_that_of_its_folder_does(where, monkeypatch):
    monkeypatch.setattr("raybolt.store_source._PAGE", 7)
    everything = [*(f"ended-{i}" for i in range(NUM_ENDED)), "waits-0", "waits-1", "waits-2", "at-work"]
    assert ids(where) == everything
    assert ids(where, "--limit", "2") == ["waits-2", "at-work"]
    assert ids(where, "--status", "failed") == ["ended-4", "ended-9", "ended-14", "ended-19"]
    assert ids(where, "--status", "queuing", "--status", "running") == everything[-4:]
    assert ids(where, "--mode", "val", "--task", "t1") == ["waits-1"]
    assert ids(where, "--group", "g") == ["at-work"]
    assert ids(where, "--contains", "ended-1", "--limit", "3") == ["ended-17", "ended-18", "ended-19"]
    (shown,) = json.loads(printed("ls", where, "--json", "--limit", "1"))
    assert (shown["rollout_id"], shown["attempt"]["status"]) == ("at-work", "running")
    assert "and earlier ones" in printed("ls", where, "--limit", "23")
    assert "earlier" not in printed("ls", where, "--limit", "24")


def test_what_was_enqueued_at_one_moment_keeps_its_order(tmp_path):
    async def enqueue(store):
        requests = [{"input": index, "rollout_id": f"r{index}"} for index in range(6)]
        from raybolt.store import EnqueueRolloutRequest

        await store.enqueue_many_rollouts([EnqueueRolloutRequest(**each) for each in requests])

    store = LocalStore(tmp_path)
    asyncio.run(enqueue(store))
    with serve(store, port=0) as server:
        for where in (tmp_path, server.url):
            assert ids(where) == [f"r{index}" for index in range(6)]
            assert ids(where, "--limit", "2") == ["r4", "r5"]
    asyncio.run(store.close())


def test_show_finds_a_rollout_of_either(where):
    found = json.loads(printed("show", where, "at-w", "--json"))
    assert [span["name"] for span in found["spans"]] == ["chat"]
    assert found["attempt"]["sequence_id"] == 1
    assert "chat" in printed("show", where, "at-work")
    assert "no spans" in printed("show", where, "waits-1")
    assert "3 rollouts begin with 'waits'" in refused("show", where, "waits")
    assert "no rollout has the id 'nobody'" in refused("show", where, "nobody")


def test_stats_say_what_waits_and_what_is_at_work(where):
    counts = json.loads(printed("stats", where, "--json"))
    expected = {
        "rollouts": {"succeeded": 16, "failed": 4, "queuing": 3, "running": 1},
        "groups": {"open": 1},
        "attempts": 21,
        "attempts_in_flight": 1,
        "queued": 3,
        "spans": 21,
        "num_shards": 1,
    }
    assert {name: counts[name] for name in expected} == expected
    assert 0 < counts["oldest_queued_seconds"] < 3600
    assert counts["journal_bytes"] > 10_000
    lines = dict(
        re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in printed("stats", where).splitlines()
    )
    assert lines["rollouts"] == "24 (16 succeeded, 4 failed, 3 queuing, 1 running)"
    assert (lines["queued"], lines["in flight"], lines["shards"]) == ("3", "1", "1")
    assert re.fullmatch(r"\d+ (s|min.*)", lines["oldest waits"])
    assert lines["on disk"].endswith(("kB", "MB"))


def test_an_export_of_a_server_is_that_of_its_folder(folder, tmp_path):
    url = folder.with_name("url").read_text()
    for name, where in (("a", folder), ("b", url)):
        assert "24 rollouts, 21 attempts, 1 groups" in printed("export", where, tmp_path / name)
        printed("export", where, tmp_path / f"{name}.jsonl", "--format", "chats")
        assert "24 rollouts" in printed("import", tmp_path / name, tmp_path / f"{name}-copy")
        assert ids(tmp_path / f"{name}-copy") == ids(folder)
    assert (tmp_path / "a.jsonl").read_text() == (tmp_path / "b.jsonl").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a", "a-copy", "a.jsonl", "b", "b-copy", "b.jsonl",
    ]  # fmt: skip


def test_every_run_of_a_store_at_work_is_read_for_jsonl(folder, monkeypatch):
    from raybolt.store_source import LiveSource, Wanted

    monkeypatch.setattr("raybolt.store_source._PAGE", 9)
    store = HttpStore(folder.with_name("url").read_text())
    runs = list(LiveSource(store).runs(Wanted(mode="train")))
    assert [run.rollout.rollout_id for run in runs] == [f"ended-{index}" for index in range(NUM_ENDED)]
    assert all(len(run.spans) == 1 and run.attempt is not None for run in runs)
    asyncio.run(store.close())


def test_a_token_is_taken_from_the_option_or_the_environment(folder):
    url = folder.with_name("guarded").read_text()
    assert "token is missing or wrong; give it by --token, RAYBOLT_STORE_TOKEN" in refused("ls", url)
    assert "token is missing or wrong" in refused("export", url, folder.with_name("x"), "--token", "wrong")
    assert not folder.with_name("x").exists()
    assert "at-work" in printed("ls", url, "--token", "secret")
    assert "at-work" in printed("ls", url, token="secret")


def test_compacting_is_left_to_the_store_at_work(folder):
    assert " before, " in printed("compact", folder.with_name("url").read_text())
    assert "reach that one by its address" in refused("compact", folder)


def test_what_is_no_store_says_what_to_give(tmp_path, folder):
    assert "is `raybolt store serve` running there?" in refused("ls", "http://127.0.0.1:1")
    assert "127.0.0.1:1 is no folder; give an address as http://127.0.0.1:1" in refused("ls", "127.0.0.1:1")
    url = folder.with_name("url").read_text()
    assert f"{url} is a store at work; give a folder" in refused("import", tmp_path, url)
    assert "--status is 'done'; give one of queuing" in refused("ls", folder, "--status", "done")
    assert "--mode is 'dev'; give one of train" in refused("ls", folder, "--mode", "dev")
    (tmp_path / "file").touch()
    for arguments in (["export", folder], ["export", folder, "--format", "chats"]):
        message = refused(*arguments, tmp_path / "file" / "out")
        assert "out cannot be written" in message
        assert "give another place" in message
    assert "is a folder; give a file for sft" in refused("export", folder, tmp_path, "--format", "sft")
    assert "url is 'http://host:port'; give one such as" in refused("ls", "http://host:port")
    assert "ca is 'no.pem', which cannot be used" in refused("ls", "https://127.0.0.1:1", "--ca", "no.pem")
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        message = refused("stats", f"http://127.0.0.1:{other.server_port}")
        other.shutdown()
    assert "answers with status 404; is it the server of a store?" in message


@pytest.mark.usefixtures("ray_session")
def test_a_store_on_ray_is_looked_at_by_its_name(tmp_path):
    from raybolt.store import RayStore, blocking

    store = RayStore.create(tmp_path / "ray", name="looked-at", num_shards=2)
    try:
        for index in range(4):
            blocking(store.start_rollout("x", rollout_id=f"r{index}"))
        assert ids("ray://looked-at") == ["r0", "r1", "r2", "r3"]
        assert json.loads(printed("stats", "ray://looked-at", "--json"))["num_shards"] == 2
        assert "4 rollouts" in printed("export", "ray://looked-at", tmp_path / "out")
        assert " before, " in printed("compact", "ray://looked-at")
        message = refused("ls", "ray://nobody")
        assert "no store named 'nobody' runs in this cluster (it has: " in message
        assert "'looked-at'" in message
    finally:
        blocking(store.destroy())


def listed(width: int | None, found: list[tuple[Rollout, Attempt | None]], monkeypatch) -> list[str]:
    """What a terminal of this width shows; a pipe for None."""
    screen = io.StringIO()
    # TERM as of a terminal: of a dumb one, as CI's is, Rich takes the width to be 80.
    kind = {"TERM": "xterm"}
    terminal = Console(
        file=screen, force_terminal=width is not None, width=width, no_color=True, _environ=kind
    )
    monkeypatch.setattr(console_store, "out", terminal)
    console_store.print_rollouts(found, has_more=False)
    plain = re.sub(r"\x1b\[[\d;]*m", "", screen.getvalue())
    return [line.rstrip() for line in plain.splitlines()]


def outline(rollout_id: str, start_time: float) -> tuple[Rollout, Attempt]:
    rollout = Rollout(
        rollout_id=rollout_id, input=None, task_id="held_out-00017-of-many", group_id="evaluation-00004/22",
        mode="val", status="succeeded", start_time=start_time, end_time=start_time + 2.5,
    )  # fmt: skip
    told = {"num_calls": 3, "num_tokens": 12345, "reward": 0.5}
    return rollout, Attempt(
        rollout_id=rollout_id, attempt_id="a", sequence_id=1, start_time=start_time, metadata=told
    )


def test_a_line_fits_the_terminal_and_a_pipe_gets_all_of_it(monkeypatch):
    made_up = "ro-0123456789abcdef0123456789abcdef"
    now = time.time()
    found = [outline(made_up, 86_400.0), outline("mine", now)]
    head, first, second = listed(80, found, monkeypatch)
    assert head.split() == ["rollout", "status", "task", "tokens", "reward", "seconds", "enqueued"]
    assert first.startswith("ro-01234567  succeeded  held_out…of-many")
    assert re.search(r"  12,345   0\.500      2\.5  01-0\d \d\d:\d\d$", first)
    assert second.endswith(time.strftime("%H:%M:%S", time.localtime(now)))
    assert max(map(len, (head, first, second))) <= 80
    assert "group" not in head
    assert "evaluation-00004/22" in listed(140, found, monkeypatch)[1]
    piped = listed(None, found, monkeypatch)[1]
    assert piped.startswith(made_up)
    assert "held_out-00017-of-many  evaluation-00004/22" in piped
    assert re.search(r"19\d\d-01-0\d \d\d:\d\d:\d\d$", piped)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3600, "1 h"), (90_061, "1 d 1 h"), (172_800, "2 d")],
)
def test_durations_are_told_in_their_two_largest_units(seconds, shown):
    assert console_store._duration(seconds) == shown


@pytest.mark.parametrize(
    ("num_bytes", "shown"), [(0, "0.0 kB"), (12_345, "12.3 kB"), (1e6, "1.0 MB"), (2.5e9, "2.5 GB")]
)
def test_sizes_are_told_in_their_unit(num_bytes, shown):
    assert console_store.size(int(num_bytes)) == shown

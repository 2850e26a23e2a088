"""`raybolt store ls`, `show`, `stats`, `export`, `import` and `compact` on stores that real runs left."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import view_agents as agents
from recorded_runs import record
from typer.testing import CliRunner

import raybolt
from raybolt.cli import app
from raybolt.env.codec import codec_for
from raybolt.env.rereward import re_reward
from raybolt.store import LocalStore

WIDE = {"COLUMNS": "300", "TERM": "dumb"}


async def numbered(task, policy):
    reply = await policy.complete(agents.asking("writer", task.input))
    with raybolt.operation("judge", text=reply.message.content):
        raybolt.emit_reward(0.5)
    return task.metadata["number"]


def run(*arguments: object):
    return CliRunner().invoke(app, ["store", *map(str, arguments)], env=WIDE)


def printed(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("stores") / "first"
    codec = codec_for("tiny")
    asyncio.run(record(made, numbered, codec, num_groups=2, group_size=2))
    asyncio.run(record(made, agents.fails_late, codec, num_groups=1, group_size=1, mode="val"))
    return made


def rollouts(folder: Path, *filters: str) -> list[dict]:
    return json.loads(printed("ls", folder, "--json", *filters))


def test_ls_lists_rollouts_in_order_and_filters_them(folder):
    everything = rollouts(folder)
    assert [(each["task_id"], each["mode"], each["status"]) for each in everything] == [
        ("t0", "train", "succeeded"),
        ("t0", "train", "succeeded"),
        ("t1", "train", "succeeded"),
        ("t1", "train", "succeeded"),
        ("t0", "val", "failed"),
    ]
    assert rollouts(folder, "--status", "failed") == everything[4:]
    assert rollouts(folder, "--mode", "train", "--task", "t1") == everything[2:4]
    assert rollouts(folder, "--group", "val") == everything[4:]
    assert rollouts(folder, "--contains", everything[1]["rollout_id"]) == everything[1:2]
    assert rollouts(folder, "--limit", "2") == everything[3:]
    text = printed("ls", folder, "--limit", "2")
    assert everything[4]["rollout_id"] in text
    assert everything[2]["rollout_id"] not in text
    assert "and earlier ones; --limit 0 shows all" in text
    assert "earlier" not in printed("ls", folder, "--limit", "5")
    assert len(rollouts(folder, "--limit", "0")) == 5


def test_show_prints_the_tree_of_spans(folder):
    first = rollouts(folder)[0]["rollout_id"]
    lines = printed("show", folder, first).splitlines()
    (root,) = [index for index, line in enumerate(lines) if line.startswith("invoke_agent scripted")]
    assert "chat writer" in lines[root + 1]
    assert "tokens" in lines[root + 1]
    assert "answer 0" in lines[root + 1]
    assert lines[root + 2].startswith("├── judge")
    assert lines[root + 3].startswith("│   └── reward")
    assert lines[root + 3].endswith("0.5")
    assert lines[root + 4].startswith("└── reward")
    assert any(line.split() == ["status", "succeeded"] for line in lines)


def test_show_finds_a_rollout_by_how_its_id_begins_and_prints_json(folder):
    first = rollouts(folder)[0]["rollout_id"]
    found = json.loads(printed("show", folder, first[:20], "--json"))
    assert found["rollout_id"] == first
    assert found["spans"][1]["attributes"]["raybolt.response_ids"]
    for given, message in (("ro-", "5 rollouts begin with 'ro-'"), ("x", "no rollout has the id 'x'")):
        result = run("show", folder, given)
        assert result.exit_code == 2
        assert message in result.output
    result = run("show", folder, first, "--attempt", "2")
    assert f"--attempt is 2; rollout {first} has 1 attempts" in result.output


def test_a_reward_given_later_is_shown_with_its_version(folder, tmp_path):
    asyncio.run(record(tmp_path / "own", numbered, codec_for("tiny"), num_groups=1, group_size=1))

    async def judge_again():
        async with LocalStore(tmp_path / "own") as store:
            await re_reward(store, lambda *_: 9)

    asyncio.run(judge_again())
    (only,) = rollouts(tmp_path / "own")
    assert only["attempt"]["metadata"]["reward"] == 9.5
    assert "9 (version 1)" in printed("show", tmp_path / "own", only["rollout_id"])


def test_stats_count_what_there_is(folder):
    counts = json.loads(printed("stats", folder, "--json"))
    assert counts["rollouts"] == {"succeeded": 4, "failed": 1}
    assert counts["modes"] == {"train": 4, "val": 1}
    assert (counts["attempts"], counts["num_shards"]) == (5, 1)
    assert (counts["queued"], counts["oldest_queued_seconds"], counts["attempts_in_flight"]) == (0, None, 0)
    assert counts["journal_bytes"] > 10_000
    assert "5 (4 succeeded, 1 failed)" in printed("stats", folder)


def test_parquet_goes_out_and_comes_back(folder, tmp_path):
    out = printed("export", folder, tmp_path / "files")
    assert "5 rollouts, 5 attempts" in out
    assert "5 rollouts, 5 attempts" in printed("import", tmp_path / "files", tmp_path / "again")
    assert rollouts(tmp_path / "again") == rollouts(folder)
    result = run("import", tmp_path / "files", tmp_path / "again")
    assert result.exit_code == 2
    assert "holds a store already; give a new folder" in result.output
    result = run("export", folder, tmp_path / "filtered", "--mode", "val")
    assert "Parquet holds the whole store" in result.output


@pytest.mark.parametrize(
    ("form", "filters", "num_rows"),
    [
        ("chats", [], 5),
        ("chats", ["--mode", "train", "--task", "t1"], 2),
        ("sft", [], 4),
        ("sft", ["--min-reward", "2.5"], 2),
        ("preferences", [], 2),
        ("preferences", ["--min-margin", "1"], 0),
    ],
)
def test_runs_go_out_as_jsonl(folder, tmp_path, form, filters, num_rows):
    out = printed("export", folder, tmp_path / "rows.jsonl", "--format", form, *filters)
    assert out.startswith(f"{num_rows} {form} in ")
    rows = list(map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines()))
    assert len(rows) == num_rows
    for row in rows:
        assert set(row) >= ({"prompt", "chosen", "rejected"} if form == "preferences" else {"messages"})


def test_compact_needs_the_store_for_itself_and_reading_does_not(folder, tmp_path):
    assert " before, " in printed("compact", folder)
    holder = LocalStore(folder, keep_in_flight=True)
    try:
        assert len(rollouts(folder)) == 5
        result = run("compact", folder)
        assert result.exit_code == 2
        assert "reach that one by its address (http://… or ray://NAME)" in " ".join(result.output.split())
    finally:
        asyncio.run(holder.close())


@pytest.mark.parametrize("command", ["ls", "stats", "compact"])
def test_what_is_no_store_is_said_in_one_line(tmp_path, command):
    result = run(command, tmp_path / "nothing")
    assert result.exit_code == 2
    assert "there is no store at" in result.output
    (tmp_path / "journal.db").write_text("not a database at all, " * 99)
    result = run(command, tmp_path)
    assert result.exit_code == 2
    assert "is no journal" in result.output
    assert not list(tmp_path.glob("*.parquet"))

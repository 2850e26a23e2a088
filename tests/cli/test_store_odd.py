"""`raybolt store` on what a store takes from anybody: values of other types, control codes, circles."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.json
import pytest
from store_samples import make_span
from typer.testing import CliRunner

from raybolt.cli import app
from raybolt.env.exports import write_jsonl
from raybolt.store import LocalStore, RolloutConfig, Span, names

INTERRUPTIBLE = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
PARENTS = {"self": "self", "a": "c", "b": "a", "c": "b", "leaf": "c", "root": None}
ODD = [
    {names.OUTPUT_MESSAGES: '[{"role": "assistant"}]'},
    {names.OUTPUT_MESSAGES: [{"role": "assistant", "content": None, "tool_calls": [{"id": "no function"}]}]},
    {names.OUTPUT_MESSAGES: [{"content": ["parts"], "tool_calls": "text"}]},
    {names.OUTPUT_MESSAGES: [7]},
    {names.OUTPUT_MESSAGES: {"role": "assistant"}},
    {names.TOOL_RESULT: np.array([1.5, np.nan], np.float32)},
    {names.TOOL_RESULT: {"a": float("inf")}},
    {names.TOOL_RESULT: "[/red] and [bold] are text \\"},
    {names.REWARD: "good", names.REWARD_VERSION: [1]},
    {names.REWARD: float("nan")},
    {names.REWARD: 10**400, names.REWARD_VERSION: True},
    {names.INPUT_TOKENS: "many", names.OUTPUT_TOKENS: None},
    {names.CALL_ID: "c"},
    {names.CALL_ID: ["c"], names.AGENT_NAME: 5, names.OUTPUT_MESSAGES: [], names.FINISH_REASONS: ["stop"]},
    {names.OPERATION: names.INVOKE_AGENT, names.ERROR_ORIGIN: 3},
]


def run(*arguments: object):
    return CliRunner().invoke(app, ["store", *map(str, arguments)], env={"COLUMNS": "300", "TERM": "dumb"})


def printed(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


async def fill(folder: Path) -> None:
    async with LocalStore(folder) as store:
        for index, told in enumerate(
            [
                {"reward": "good", "num_tokens": "many", "num_calls": [1]},
                {"reward": float("nan"), "num_tokens": None, "num_calls": True},
                {"reward": 10**400, "num_tokens": -1.5, "x": float("nan")},
                {"reward": 2.0, "num_tokens": 30, "num_calls": 4},
            ]
        ):
            ran = await store.start_rollout(
                {"nan": float("nan")}, rollout_id=f"r{index}", task_id="a\x1b[31mred\nnext", group_id="[/]"
            )
            spans = [
                Span(
                    rollout_id=ran.rollout_id,
                    attempt_id=ran.attempt.attempt_id,
                    sequence_id=number,
                    trace_id="0" * 32,
                    span_id=f"{number:016x}",
                    name=f"odd {number} \x1b]0;title\x07",
                    start_time=1.0,
                    end_time=2.0,
                    attributes=attributes,
                )
                for number, attributes in enumerate(ODD, 1)
            ]
            await store.add_many_spans(spans)
            await store.update_attempt(ran.rollout_id, "latest", "succeeded", metadata=told)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("odd") / "store"
    asyncio.run(fill(made))
    return made


def test_odd_values_are_shown_as_they_are_and_left_out_of_sums(folder):
    text = printed("ls", folder)
    assert "a\\x1b[31mred\\nnext" in text
    assert "[/]" in text
    assert "good" in text
    listed = json.loads(printed("ls", folder, "--json"), parse_constant=refuse)
    assert [each["attempt"]["metadata"]["reward"] for each in listed] == ["good", None, 10**400, 2.0]
    counts = json.loads(printed("stats", folder, "--json"), parse_constant=refuse)
    assert (counts["calls"], counts["tokens"], counts["reward_mean"]) == (4, 29, 2.0)
    assert "\x1b" not in printed("stats", folder)
    tree = printed("show", folder, "r0")
    assert "\x1b" not in tree
    assert "\x07" not in tree
    for number in range(1, len(ODD) + 1):
        assert f"odd {number} \\x1b]0;title\\x07" in tree
    assert "[/red] and [bold] are text \\" in tree
    json.loads(printed("show", folder, "r2", "--json"), parse_constant=refuse)


@pytest.mark.parametrize("form", ["chats", "sft", "preferences", "parquet"])
def test_odd_values_stop_no_export(folder, tmp_path, form):
    printed("export", folder, tmp_path / "out", "--format", form)
    assert (tmp_path / "out").exists()


def test_spans_that_are_their_own_ancestors_are_shown_once(tmp_path):
    async def fill() -> None:
        async with LocalStore(tmp_path) as store:
            ran = await store.start_rollout("x", rollout_id="r")
            span = make_span(ran.attempt, 1)
            for name, parent in PARENTS.items():
                await store.add_span(replace(span, span_id=name, parent_id=parent, name=f"<{name}>"))

    asyncio.run(fill())
    tree = printed("show", tmp_path, "r")
    for name in PARENTS:
        assert tree.count(f"<{name}>") == 1
    assert tree.count("is below itself") == 2
    assert tree.index("<a>") < tree.index("<b>") < tree.index("<c>") < tree.index("<leaf>")


def test_the_folder_one_stands_in_is_not_replaced(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("export", folder, ".")
    assert result.exit_code == 2
    assert "is the current folder; give a new folder in it" in " ".join(result.output.split())
    printed("export", folder, "here")
    printed("import", "here", ".")
    assert len(json.loads(printed("ls", ".", "--json"))) == 4


@pytest.mark.parametrize("where", ["x" * 5000, "x" * 300])
def test_a_path_that_can_be_none_is_said_in_one_line(folder, tmp_path, where):
    for arguments in (["ls", where], ["export", folder, where], ["import", tmp_path, where]):
        result = run(*arguments)
        assert (result.exit_code, type(result.exception)) == (2, SystemExit)
        assert "name too long" in result.output.lower() or "there is no" in result.output


def test_a_file_of_lines_is_there_once_it_is_whole_and_every_line_is_json(tmp_path):
    def rows():
        yield {"a": float("nan"), "b": [1.5, float("inf")]}
        raise KeyError("broken")

    path = tmp_path / "rows.jsonl"
    path.write_text("before")
    with pytest.raises(KeyError):
        write_jsonl(path, rows())
    assert [each.name for each in tmp_path.iterdir()] == ["rows.jsonl"]
    assert path.read_text() == "before"
    assert write_jsonl(path, [{"a": float("nan"), "b": [1.5, float("inf")]}, {"a": 2.0, "b": []}]) == 2
    assert pyarrow.json.read_json(path).to_pylist() == [{"a": None, "b": [1.5, None]}, {"a": 2.0, "b": []}]


async def fill_large(folder: Path) -> None:
    async with LocalStore(folder) as store:
        for number in range(400):
            ran = await store.start_rollout("x", rollout_id=f"r{number}", config=RolloutConfig())
            await store.add_many_spans([make_span(ran.attempt, index) for index in range(100)])


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("large") / "store"
    asyncio.run(fill_large(made))
    return made


def command(*arguments: object) -> list[str]:
    code = f"{INTERRUPTIBLE}sys.argv = ['raybolt', *sys.argv[1:]]; from raybolt.cli import main; main()"
    return [sys.executable, "-c", code, *map(str, arguments)]


@pytest.mark.parametrize("form", ["parquet", "chats"])
def test_an_export_that_is_interrupted_says_so_and_leaves_nothing(large, tmp_path, form):
    going_on = subprocess.Popen(
        command("store", "export", large, tmp_path / "out", "--format", form),
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(tmp_path.glob(".out.*.partial/*")):
        assert going_on.poll() is None
        time.sleep(0.002)
    going_on.send_signal(signal.SIGINT)
    _, said = going_on.communicate(timeout=60)
    assert (going_on.returncode, said) == (130, "error: interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_leaves_early_sees_no_traceback(large):
    listing = subprocess.Popen(
        command("store", "ls", large, "--limit", "0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    with listing:
        assert listing.stdout is not None
        assert listing.stderr is not None
        listing.stdout.readline()
        listing.stdout.close()
        assert listing.stderr.read() == b""

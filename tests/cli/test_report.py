from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raybolt.benchmarks.report import pick_examples, plot_rewards, trajectory_text, versions, write_json
from raybolt.env.chat import ChatMessage
from raybolt.env.trajectory import Call, Trajectory
from raybolt.store.types import Span


@dataclass
class Score:
    mean: float
    paths: dict[str, Path]


def tool_span(arguments: object, result: str) -> Span:
    return Span(
        rollout_id="r", attempt_id="a", sequence_id=1, trace_id="t", span_id="s", parent_id=None,
        name="run_sql", start_time=0.0, end_time=1.0,
        attributes={"gen_ai.tool.call.arguments": arguments, "gen_ai.tool.call.result": result},
    )  # fmt: skip


def trajectory(*tools: Span, says: str = "Done.") -> Trajectory:
    ids = np.zeros(1, dtype=np.int32)
    call = Call(
        call_id="c", role="sql", prompt_ids=ids, response_ids=ids, reply=ChatMessage("assistant", says)
    )
    return Trajectory(rollout_id="r", attempt_id="a", calls=(call,), tool_spans=tools, status="succeeded")


def test_a_report_is_json_even_without_a_score(tmp_path):
    write_json(tmp_path / "new" / "report.json", Score(mean=math.nan, paths={"log": Path("runs/log")}))
    assert json.loads((tmp_path / "new" / "report.json").read_text()) == {
        "mean": None,
        "paths": {"log": "runs/log"},
    }


def test_a_plot_is_a_png_that_needs_no_display(tmp_path, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    plot_rewards(tmp_path / "curve.png", {"LightningRL": [0.1, 0.4]}, {"before": 0.0}, title="A run")
    assert (tmp_path / "curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_examples_show_a_question_learned_one_known_and_one_not():
    before = {"a": 0.0, "b": 1.0, "c": 0.0, "d": 0.0}
    after = {"a": 0.0, "b": 1.0, "c": 1.0, "d": 1.0}
    assert pick_examples(before, after) == ["c", "b", "a"]


def test_examples_fill_up_where_a_kind_is_missing():
    assert pick_examples({"a": 0.0, "b": None, "c": 0.0}, {"a": 0.0, "b": 0.0, "c": 0.0}) == ["a", "b", "c"]


def test_a_trajectory_shows_each_query_with_its_rows_and_the_verdict():
    run = trajectory(
        tool_span({"query": "SELECT nme"}, "Error: no such column: nme"),
        tool_span('{"query": "SELECT 1"}', "1"),
    )
    assert trajectory_text("before", run, right=True).splitlines() == [
        "  before: right",
        "    SQL    SELECT nme",
        "           Error: no such column: nme",
        "    SQL    SELECT 1",
        "           1",
        "    says   Done.",
    ]  # fmt: skip


def test_a_failed_trajectory_says_of_what():
    run = Trajectory(rollout_id="r", attempt_id="a", status="failed", error="TimeoutError: 120 s")
    assert trajectory_text("after", run, right=None) == "  after: failed: TimeoutError: 120 s"


def test_versions_name_what_the_numbers_depend_on():
    assert {"python", "machine", "raybolt", "ray", "torch", "transformers"} <= versions().keys()

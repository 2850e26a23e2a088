from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

RAYBOLT = Path(sys.executable).with_name("raybolt")
SETTINGS = "algorithm: {iterations: 1, tasks_per_iteration: 2, rollouts_per_task: 2, max_new_tokens: 16}"


@pytest.mark.slow
def test_a_benchmark_trains_scores_and_reports(tmp_path):
    (tmp_path / "bench.yaml").write_text(SETTINGS)
    command = [
        RAYBOLT, "bench", "--suite", "sql", "--data", "generated", "--model", "tiny", "--seed", "1",
        "--algorithm", "lightningrl", "--config", "bench.yaml", "--limit", "4", "--report", "report.json",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    assert "on 4 questions of generated" in done.stdout

    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["suite"], report["data"], report["model"], report["seed"]) == (
        "sql",
        "generated",
        "tiny",
        1,
    )
    assert (report["algorithm"]["kind"], report["algorithm"]["iterations"]) == ("lightningrl", 1)
    assert 0 <= report["accuracy"] <= 1
    assert report["evaluation"]["num_tasks"] == 4
    assert len(report["reward_curve"]) == 1
    assert report["tokens"]["sampled"] > 0
    assert (tmp_path / "runs" / "bench-sql-lightningrl-1" / "model" / "config.json").is_file()

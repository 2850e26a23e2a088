from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

RAYBOLT = Path(sys.executable).with_name("raybolt")


@pytest.mark.slow
def test_a_short_demo_leaves_a_full_report_and_everything_it_names(tmp_path):
    command = [
        RAYBOLT,
        "demo",
        "--short",
        "--control",
        "--seed",
        "3",
        "--out",
        "run",
        "--report",
        "report.json",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr

    report = json.loads((tmp_path / "report.json").read_text())
    scores = report["held_out"]
    assert (scores["questions"], scores["databases"] > 1) == (24, True)
    assert all(0 <= scores[phase] <= 1 for phase in ("before", "sft", "rl", "control"))
    assert report["seconds"].keys() == {"total", "rollouts", "learning", "sync"}
    assert len(report["reward_curve"]) == 2
    assert report["tokens"]["sampled"] > 0
    assert report["seed"] == 3
    for name in ("checkpoint", "store", "plot", "log"):
        assert (tmp_path / report["paths"][name]).exists()

    assert "after LightningRL" in done.stdout
    assert done.stdout.count("  before: ") == 3
    assert "LightningRL: iteration 4 of 4, reward" in done.stdout

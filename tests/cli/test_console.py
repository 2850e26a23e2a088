from __future__ import annotations

import io
from types import SimpleNamespace

from rich.console import Console

from raybolt import console


def test_a_log_gets_a_line_per_iteration():
    written = io.StringIO()
    with console.ProgressView(Console(file=written, width=80)).running() as view:
        view.stage("Training")
        view.step(SimpleNamespace(phase="rl", iteration=1, iterations=3, reward_mean=0.25))
    assert written.getvalue() == "Training …\nLightningRL: iteration 1 of 3, reward 0.250\n"


def test_a_terminal_shows_the_running_reward():
    written = io.StringIO()
    terminal = Console(file=written, width=120, force_terminal=True, color_system=None)
    with console.ProgressView(terminal).running() as view:
        view.stage("Training")
        view.step(SimpleNamespace(phase="rl", iteration=2, iterations=3, reward_mean=0.5))
    assert "2/3 reward 0.500" in written.getvalue()


def test_square_brackets_of_a_message_are_kept(monkeypatch):
    written = io.StringIO()
    monkeypatch.setattr(console, "err", Console(file=written, width=80, soft_wrap=True))
    console.print_error("input[0] is [bold],\n  expected [x]")
    assert written.getvalue() == "error: input[0] is [bold], expected [x]\n"


def test_seconds_and_percent_are_short():
    assert console.seconds({"total": 61.4, "rollouts": 40.2}) == "61 total, 40 rollouts"
    assert console.percent(0.7125) == "71.2 %"

"""Training whose store is behind a server: runners write to it, learners fetch sealed groups from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import training_agents as agents

from raybolt.adapters.wrap import wrap
from raybolt.env.models import resolve_model
from raybolt.env.task import Task
from raybolt.rl.recipes import LightningRL
from raybolt.rl.results import FitResult, Progress
from raybolt.rl.trainer import Trainer
from raybolt.store import HttpStore, LocalStore, StoreServer, blocking, names, serve

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.slow]

TASKS = [Task(f"task-{index}", f"Say something about {index}.") for index in range(4)]
TALKER = wrap(agents.short_talker, reward=agents.evenness)
TOKEN = "a-secret-token"


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalStore]:
    store = LocalStore(tmp_path / "store")
    yield store
    blocking(store.close())


@pytest.fixture
def server(local: LocalStore) -> Iterator[StoreServer]:
    with serve(local, port=0, tokens=[TOKEN]) as running:
        yield running


def train(store: Any, folder: Path, *, iterations: int, resume: bool = False, **options: Any) -> FitResult:
    recipe = LightningRL(
        tasks_per_iteration=2, rollouts_per_task=4, max_new_tokens=12, lr=1e-3, iterations=iterations
    )
    settings = {"store": store, "folder": folder, "num_runners": 1, "concurrency": 8, **options}
    with Trainer(TALKER, algorithm=recipe, **settings) as trainer:
        return trainer.fit(TASKS, resume=resume)


def distance_from_the_beginning(result: FitResult) -> float:
    from transformers import AutoModelForCausalLM

    parts = []
    paths = (result.paths["model"], resolve_model("tiny").path)
    for parameters in zip(
        *(AutoModelForCausalLM.from_pretrained(p).parameters() for p in paths), strict=True
    ):
        now, then = (parameter.detach().numpy() for parameter in parameters)
        parts.append(np.abs(now - then).ravel())
    return float(np.mean(np.concatenate(parts)))


def sampled_tokens(local: LocalStore) -> int:
    spans = [
        span
        for rollout in blocking(local.query_rollouts(mode="train"))
        for span in blocking(local.query_spans(rollout.rollout_id, "latest"))
    ]
    return sum(len(span.attributes.get(names.RESPONSE_IDS, ())) for span in spans)


def test_a_run_learns_from_what_its_runners_wrote_to_a_server_and_is_resumed(
    local: LocalStore, server: StoreServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Progress] = []
    store = HttpStore(server.url, token=TOKEN)
    first = train(store, tmp_path / "run", iterations=1, on_progress=seen.append)

    assert blocking(store.statistics())["rollouts"] == {"succeeded": 8}  # the trainer left it open
    blocking(store.close())
    assert 0 < seen[0].tokens["trained"] == seen[0].tokens["sampled"] == sampled_tokens(local)
    moved = distance_from_the_beginning(first)
    assert moved > 0
    assert sorted(first.paths) == ["checkpoint", "log", "model"]

    monkeypatch.setenv("RAYBOLT_STORE_TOKEN", TOKEN)
    resumed = train(server.url, tmp_path / "run", iterations=2, resume=True, on_progress=seen.append)

    assert [progress.iteration for progress in seen] == [1, 2]
    assert len(resumed.reward_curve) == 2
    assert distance_from_the_beginning(resumed) > moved
    assert sum(progress.tokens["sampled"] for progress in seen) == sampled_tokens(local)
    assert blocking(local.statistics())["groups"] == {"taken": 4}
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert [path for path in files if TOKEN.encode() in path.read_bytes()] == []

"""Runners whose store's disk is full: they stand still, and go on when there is room. A real small disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from scripted_runs import HELLO, Program

from raybolt.env.agent_env import AgentEnv
from raybolt.env.codec import codec_for
from raybolt.env.policy import PolicyPort
from raybolt.env.task import Task
from raybolt.rl import rollouts
from raybolt.rl.engines.base import Engine, GenerateRequest, Generation
from raybolt.rl.rollouts import RolloutCrew, Speaker
from raybolt.store import HttpStore, LightningStore, LocalStore, RayStore, patience, serve

RESERVE_BYTES = 40 * 2**20


class SaysHello(Engine):
    """Gives the same reply to everything."""

    async def generate(self, request: GenerateRequest) -> Generation:
        reply = np.array([*codec_for("tiny").tokenizer.encode("hello"), *request.stop_ids[:1]], np.int32)
        return Generation(reply, np.zeros(len(reply), np.float32), "stop", 3)

    def set_weights_version(self, version: int) -> None:
        """Weightless."""

    def close(self) -> None:
        """Nothing to close."""


@asynccontextmanager
async def opened(kind: str, folder: Path) -> AsyncIterator[LightningStore]:
    """A store of this kind in the folder."""
    if kind == "ray":
        shards = RayStore.create(
            folder, name=f"full-{uuid4().hex}", num_shards=2, reserve_bytes=RESERVE_BYTES
        )
        yield shards
        await shards.destroy()
        return
    async with LocalStore(folder, reserve_bytes=RESERVE_BYTES) as local:
        if kind == "folder":
            yield local
            return
        with serve(local, port=0) as server:
            async with HttpStore(server.url) as remote:
                yield remote


class Runner:
    """A crew of one. Its agent fills the disk to its reserve between its calls, if it is told "fill"."""

    def __init__(self, store: LightningStore, filler: Path) -> None:
        self.store = store
        self.envs: list[AgentEnv] = []
        self._filler = filler
        self.crew = RolloutCrew(
            make_env=self._make_env,
            store=store,
            speaker_of=lambda role: Speaker(SaysHello(), codec_for("tiny").stop_ids),
            concurrency=1,
            worker_id="test",
        )

    async def enqueue(self, *inputs: str) -> None:
        """Queues a rollout for each input, which is its id, too."""
        resources = await self.store.add_resources({"sampling": {"temperature": 1.0, "max_new_tokens": 4}})
        for text in inputs:
            await self.store.enqueue_rollout(
                text, rollout_id=text, task_id="t", resources_id=resources.resources_id
            )

    async def _work(self, task: Task, policy: PolicyPort) -> float:
        for _ in range(3):
            await policy.complete(HELLO)
            if task.input == "fill":
                self._filler.write_bytes(b"x" * RESERVE_BYTES)
        return 1.0

    def _make_env(self) -> AgentEnv:
        self.envs.append(AgentEnv(Program(self._work), codec=codec_for("tiny")))
        return self.envs[-1]


async def until_refused(store: LightningStore, rollout_id: str) -> None:
    """Returns when spans of the rollout have been refused, which the store takes for a sign of life."""
    while True:
        attempt = await store.get_latest_attempt(rollout_id)
        if attempt is not None and attempt.status == "running":
            return
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("kind", ["folder", "http", "ray"])
async def test_a_runner_waits_for_room_in_mid_rollout_and_loses_nothing(
    kind: str,
    small_disk: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if kind == "ray":
        request.getfixturevalue("ray_session")
    monkeypatch.setattr(patience, "_FIRST_PAUSE_SECONDS", 0.05)
    filler = small_disk / "filler"
    async with opened(kind, small_disk / "store") as store:
        runner = Runner(store, filler)
        await runner.enqueue("fill", "after")
        working = asyncio.create_task(runner.crew.drain())
        await until_refused(store, "fill")
        while "fill stand still" not in caplog.text:
            await asyncio.sleep(0.02)
        assert [one.status for one in await store.query_rollouts()] == ["running", "queuing"]
        assert await store.query_spans("fill") == []
        filler.unlink()
        await working
        assert [one.status for one in await store.query_rollouts()] == ["succeeded", "succeeded"]
        recorded = [[(span.span_id, span.sequence_id) for span in env.spans] for env in runner.envs]
        assert [len(spans) for spans in recorded] == [5, 5]  # the run, three calls, the reward
        for rollout_id, spans in zip(("fill", "after"), recorded, strict=True):
            kept = await store.query_spans(rollout_id)
            assert [(span.span_id, span.sequence_id) for span in kept] == spans
    assert str(small_disk / "store") in caplog.text
    assert "make room (prune and compact, or another disk)" in caplog.text
    assert "There is room again: Rollouts fill go on." in caplog.messages


async def test_a_runner_gives_a_rollout_up_after_the_limit_and_takes_the_next(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollouts, "report", partial(rollouts.report, limit_seconds=0.2))
    async with opened("folder", small_disk / "store") as store:
        runner = Runner(store, small_disk / "filler")
        await runner.enqueue("fill", "after")
        await runner.crew.drain()
        for rollout_id in ("fill", "after"):
            attempt = await store.get_latest_attempt(rollout_id)
            assert attempt is not None
            assert (attempt.status, attempt.metadata["origin"]) == ("failed", "store")
            assert (
                "its 5 spans found no room in the store within 0.2 s: the disk of"
                in attempt.metadata["error"]
            )
            assert await store.query_spans(rollout_id) == []


async def test_a_runner_that_is_stopped_while_it_waits_ends_the_attempt(small_disk: Path) -> None:
    async with opened("folder", small_disk / "store") as store:
        runner = Runner(store, small_disk / "filler")
        await runner.enqueue("fill", "after")
        working = asyncio.create_task(runner.crew.drain())
        await until_refused(store, "fill")
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        attempt = await store.get_latest_attempt("fill")
        assert attempt is not None
        assert (attempt.status, attempt.metadata["origin"]) == ("failed", "store")
        assert attempt.metadata["error"].startswith("it was cancelled while its 5 spans waited for room")
        assert [one.status for one in await store.query_rollouts()] == ["failed", "queuing"]

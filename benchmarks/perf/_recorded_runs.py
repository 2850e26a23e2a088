"""Runs to record: what agents left behind, to be added to any store under the ids of its rollouts."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np

from raybolt.adapters.wrap import wrap
from raybolt.benchmarks.perf.rollout_throughput import QUESTION, REPLY_TOKENS, TOOL_ANSWER, openai_client
from raybolt.benchmarks.perf.store_comparison import make_span
from raybolt.env.models import resolve_model
from raybolt.env.report import report
from raybolt.env.trajectory import Trajectory
from raybolt.rl.checkpoint import load_causal_lm
from raybolt.rl.engines.transformers import TransformersEngine
from raybolt.rl.rollouts import RolloutCrew, Speaker
from raybolt.store import Attempt, EnqueueRolloutRequest, LightningStore, LocalStore, Span

GROUP_SIZE, SPANS_PER_ROLLOUT, CONCURRENCY = 8, 20, 16
Run = list[Span]
"""The spans of one run."""


def plain_runs(num_runs: int) -> list[Run]:
    """Runs of 20 spans of 900 token ids."""
    nobody = Attempt(rollout_id="", attempt_id="", sequence_id=1, start_time=0.0)
    return [[make_span(nobody, number) for number in range(SPANS_PER_ROLLOUT)] for _ in range(num_runs)]


def tiny_model_runs(num_runs: int, num_turns: int) -> list[Run]:
    """Conversations of the tiny model with something that answers like a tool, of so many turns."""
    model = load_causal_lm(resolve_model("tiny").path).eval()

    async def agent(question: str) -> None:
        messages: list[Any] = [{"role": "user", "content": question}]
        for _ in range(num_turns):
            reply = await openai_client().chat.completions.create(model="policy", messages=messages)
            messages += [reply.choices[0].message, {"role": "user", "content": TOOL_ANSWER}]

    wrapped = wrap(agent, reward=_evenness, name="perf")

    async def run() -> list[Run]:
        engine = TransformersEngine(model, max_batch=CONCURRENCY)
        speaker = Speaker(engine, stop_ids=())  # replies of full length
        async with LocalStore() as store:
            await enqueue(store, "tiny", num_runs)
            crew = RolloutCrew(
                make_env=lambda: wrapped.env("tiny"),
                store=store,
                speaker_of=lambda role: speaker,
                concurrency=CONCURRENCY,
                worker_id="perf",
            )
            await crew.drain()
            rollouts = await store.query_rollouts(status_in=("succeeded",))
            assert len(rollouts) == num_runs, await store.statistics()
            return [await store.query_spans(rollout.rollout_id) for rollout in rollouts]

    return asyncio.run(run())


def _evenness(task: Any, result: Any, trajectory: Trajectory) -> float:
    """A reward that differs from rollout to rollout, so that each has something to teach."""
    return float(np.mean([(call.response_ids % 2).mean() for call in trajectory.calls]))


async def enqueue(store: LightningStore, label: str, num_rollouts: int) -> list[str]:
    """Enqueues rollouts; returns the ids of their groups, which begin with the label."""
    sampling = {"sampling": {"temperature": 1.0, "max_new_tokens": REPLY_TOKENS}}
    resources_id = (await store.add_resources(sampling)).resources_id
    group_ids = [f"{label}/{index // GROUP_SIZE}" for index in range(num_rollouts)]
    for group_id, size in Counter(group_ids).items():
        await store.declare_group(group_id, size)
    await store.enqueue_many_rollouts(
        [
            EnqueueRolloutRequest(
                input=QUESTION.format(group_id),
                task_id=group_id,
                group_id=group_id,
                resources_id=resources_id,
                metadata={"seed": index},
            )
            for index, group_id in enumerate(group_ids)
        ]
    )
    return list(dict.fromkeys(group_ids))


async def record(store: LightningStore, runs: list[Run]) -> None:
    """Records the runs as a runner does that has 16 of them going on at once."""
    left = iter(runs)

    async def one_after_another() -> None:
        while taken := await store.dequeue_rollout():
            attempt = taken.attempt
            rollout_id, attempt_id = attempt.rollout_id, attempt.attempt_id
            spans = [replace(span, rollout_id=rollout_id, attempt_id=attempt_id) for span in next(left)]
            await report(store, rollout_id, attempt_id, spans, {})

    await asyncio.gather(*(one_after_another() for _ in range(CONCURRENCY)))

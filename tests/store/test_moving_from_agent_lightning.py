"""Code as users of Agent Lightning 0.3's store write it, with nothing but its imports changed."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from raybolt.store import (
    LLM,
    UNSET,
    AttemptedRollout,
    EnqueueRolloutRequest,
    LightningStore,
    PromptTemplate,
    RolloutConfig,
    Span,
    serve,
)
from raybolt.store import HttpStore as LightningStoreClient
from raybolt.store import LocalStore as InMemoryLightningStore


@pytest.fixture(params=["in memory", "client"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[LightningStore]:
    async with InMemoryLightningStore() as kept:
        if request.param == "in memory":
            yield kept
            return
        with serve(kept, port=0) as server:
            async with LightningStoreClient(server.url) as client:
                yield client


def span_of(attempted: AttemptedRollout, sequence_id: int, name: str) -> Span:
    return Span(
        rollout_id=attempted.rollout_id,
        attempt_id=attempted.attempt.attempt_id,
        sequence_id=sequence_id,
        trace_id="0" * 31 + "1",
        span_id=f"{sequence_id:016x}",
        parent_id=None,
        name=name,
        attributes={"agentlightning.reward.0.value": sequence_id / 2},
        start_time=1.0,
        end_time=2.0,
    )


async def test_a_runner_works_off_the_queue_and_the_algorithm_waits(store: LightningStore) -> None:
    async def runner(worker_id: str) -> int:
        num_done = 0
        while (rollout := await store.dequeue_rollout(worker_id=worker_id)) is not None:
            await store.update_worker(worker_id, {"cpu": 0.5})
            number = await store.get_next_span_sequence_id(rollout.rollout_id, rollout.attempt.attempt_id)
            await store.add_span(span_of(rollout, number, "openai.chat.completion"))
            status: Any = "succeeded" if rollout.input["question"] != "hard" else "failed"
            await store.update_attempt(rollout.rollout_id, rollout.attempt.attempt_id, status=status)
            num_done += 1
        return num_done

    ids = []
    for question in ("easy", "hard", "easier"):
        rollout = await store.enqueue_rollout(input={"question": question}, mode="train")
        assert rollout.status == "queuing"
        ids.append(rollout.rollout_id)
    assert await store.wait_for_rollouts(rollout_ids=ids, timeout=0.0) == []
    done, finished = await asyncio.gather(
        runner("runner-0"), store.wait_for_rollouts(rollout_ids=ids, timeout=60)
    )
    assert done == 3
    assert {one.input["question"]: one.status for one in finished} == {
        "easy": "succeeded",
        "hard": "failed",
        "easier": "succeeded",
    }
    worker = await store.get_worker_by_id("runner-0")
    assert worker is not None
    assert (worker.status, worker.heartbeat_stats, worker.current_rollout_id) == ("idle", {"cpu": 0.5}, None)


async def test_a_runner_that_finds_nothing_is_idle(store: LightningStore) -> None:
    assert await store.dequeue_rollout(worker_id="runner") is None
    assert await store.dequeue_many_rollouts(limit=-1, worker_id="runner") == []
    worker = await store.get_worker_by_id("runner")
    assert worker is not None
    assert worker.status == "idle"
    assert worker.last_dequeue_time is not None
    assert worker.last_idle_time is not None
    assert worker.last_busy_time is None


async def test_a_batch_of_requests_keeps_its_order(store: LightningStore) -> None:
    requests = [EnqueueRolloutRequest(input=i, mode="val", metadata={"i": i}) for i in range(5)]
    rollouts = await store.enqueue_many_rollouts(requests)
    assert [(one.input, one.mode, one.metadata) for one in rollouts] == [
        (i, "val", {"i": i}) for i in range(5)
    ]
    first = await store.dequeue_many_rollouts(limit=2, worker_id="w")
    assert [one.input for one in first] == [0, 1]
    assert [one.input for one in await store.dequeue_many_rollouts()] == [2]
    assert await store.enqueue_many_rollouts([]) == []


async def test_a_rollout_is_retried_as_its_config_says(store: LightningStore) -> None:
    config = RolloutConfig(max_attempts=3, retry_condition=["failed", "timeout"])  # type: ignore[arg-type]
    rollout = await store.enqueue_rollout("task", config=config)
    seen = []
    while (taken := await store.dequeue_rollout()) is not None:
        await store.update_attempt(taken.rollout_id, taken.attempt.attempt_id, "failed")
        after = await store.get_rollout_by_id(rollout.rollout_id)
        assert isinstance(after, AttemptedRollout)
        seen.append((after.status, after.attempt.sequence_id))
    assert seen == [("requeuing", 1), ("requeuing", 2), ("failed", 3)]
    attempts = await store.query_attempts(rollout.rollout_id)
    assert [(one.sequence_id, one.status) for one in attempts] == [
        (1, "failed"),
        (2, "failed"),
        (3, "failed"),
    ]
    with pytest.raises(ValueError, match="max_attempts"):
        RolloutConfig(max_attempts=0)


async def test_a_runner_retries_outside_the_queue(store: LightningStore) -> None:
    rollout = await store.start_rollout(input="task", worker_id="a")
    assert (rollout.status, rollout.attempt.last_heartbeat_time) == ("preparing", None)
    second = await store.start_attempt(rollout.rollout_id, "b")
    await store.update_attempt(rollout.rollout_id, rollout.attempt.attempt_id, status="failed")
    going_on = await store.get_rollout_by_id(rollout.rollout_id)
    assert isinstance(going_on, AttemptedRollout)
    assert (going_on.status, going_on.attempt.attempt_id) == ("preparing", second.attempt.attempt_id)
    latest = await store.update_attempt(rollout.rollout_id, "latest", status="succeeded", metadata={"k": 1})
    assert (latest.sequence_id, latest.worker_id, latest.metadata) == (2, "b", {"k": 1})
    assert latest.end_time is not None


async def test_an_update_leaves_what_is_unset(store: LightningStore) -> None:
    rollout = await store.enqueue_rollout("task", mode="train", metadata={"a": 1})
    updated = await store.update_rollout(
        rollout.rollout_id, UNSET, "val", config=RolloutConfig(max_attempts=4)
    )
    assert (updated.input, updated.mode, updated.config.max_attempts) == ("task", "val", 4)
    updated = await store.update_rollout(rollout.rollout_id, input=None, mode=None)
    assert (updated.input, updated.mode, updated.metadata) == (None, None, {"a": 1})
    cancelled = await store.update_rollout(rollout.rollout_id, status="cancelled")
    assert cancelled.end_time is not None
    assert await store.dequeue_rollout() is None


async def test_a_tracers_spans_are_taken_and_read_back(store: LightningStore) -> None:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("agent")
    with (
        tracer.start_as_current_span("openai.chat.completion", attributes={"ids": [1, 2]}),
        tracer.start_as_current_span("agentlightning.annotation") as reward,
    ):
        reward.set_attribute("agentlightning.reward.0.value", 0.5)
    rollout = await store.start_rollout("task")
    for readable in exporter.get_finished_spans():
        added = await store.add_otel_span(rollout.rollout_id, rollout.attempt.attempt_id, readable)
        assert added is not None
        again = await store.add_otel_span(rollout.rollout_id, rollout.attempt.attempt_id, readable)
        assert again is None
    spans = await store.query_spans(rollout.rollout_id)
    assert [span.name for span in spans] == ["agentlightning.annotation", "openai.chat.completion"]
    assert spans[0].parent_id == spans[1].span_id
    assert [span.attributes["agentlightning.reward.0.value"] for span in spans[:1]] == [0.5]
    (chat,) = await store.query_spans(rollout.rollout_id, "latest", name_contains="chat")
    assert chat.attributes["ids"] == [1, 2]
    after = await store.get_rollout_by_id(rollout.rollout_id)
    assert after is not None
    assert after.status == "running"


async def test_spans_are_filtered_sorted_and_paged(store: LightningStore) -> None:
    rollout = await store.start_rollout("task")
    assert await store.query_spans(rollout.rollout_id, "latest") == []
    await store.add_many_spans([span_of(rollout, 3, "c"), span_of(rollout, 1, "a"), span_of(rollout, 2, "b")])

    async def names(*args: Any, **query: Any) -> list[str]:
        return [span.name for span in await store.query_spans(rollout.rollout_id, *args, **query)]

    assert await names() == ["a", "b", "c"]
    assert await names(sort_by="name", sort_order="desc", limit=2) == ["c", "b"]
    assert await names(name="a", span_id=f"{3:016x}", filter_logic="or") == ["a", "c"]
    assert await names("latest", offset=1, limit=1) == ["b"]
    pairs = [(rollout.rollout_id, rollout.attempt.attempt_id)] * 2
    assert await store.get_many_span_sequence_ids(pairs) == [4, 5]
    queued = await store.enqueue_rollout("another")
    assert await store.query_spans(queued.rollout_id, attempt_id="latest") == []


async def test_rollouts_are_filtered_sorted_and_paged(store: LightningStore) -> None:
    rollouts = [await store.enqueue_rollout(i, mode="train" if i % 2 else "val") for i in range(5)]
    taken = await store.dequeue_rollout()
    assert taken is not None

    async def inputs(**query: Any) -> list[int]:
        return [rollout.input for rollout in await store.query_rollouts(**query)]

    assert await inputs(status_in=["queuing", "requeuing"]) == [1, 2, 3, 4]
    assert await inputs(sort_by="start_time", sort_order="desc", limit=2, offset=1) == [3, 2]
    assert await inputs(rollout_id_in=[rollouts[3].rollout_id, rollouts[1].rollout_id]) == [1, 3]
    part = rollouts[2].rollout_id[4:]
    assert await inputs(rollout_id_contains=part, status_in=["preparing"], filter_logic="or") == [0, 2]
    (found,) = await store.query_rollouts(status_in=["preparing"])
    assert isinstance(found, AttemptedRollout)
    assert found.attempt.attempt_id == taken.attempt.attempt_id


async def test_prompts_are_optimised_by_versions_of_resources(store: LightningStore) -> None:
    assert await store.get_latest_resources() is None
    rewards = {}
    for words in ("Answer: {question}", "Think, then answer: {question}"):
        prompt = PromptTemplate(template=words, engine="f-string")
        update = await store.update_resources("candidate", {"main_prompt": prompt})
        queued = await store.enqueue_rollout(input="why?", mode="train", resources_id=update.resources_id)
        taken = await store.dequeue_rollout()
        assert taken is not None
        assert taken.rollout_id == queued.rollout_id
        resources = await store.get_resources_by_id(str(taken.resources_id))
        assert resources is not None
        rewards[update.version] = resources.resources["main_prompt"].format(question=taken.input)
    assert rewards == {1: "Answer: why?", 2: "Think, then answer: why?"}


async def test_a_rollout_without_resources_gets_the_latest(store: LightningStore) -> None:
    llm = LLM(endpoint="http://localhost:8000/v1", model="qwen", sampling_parameters={"temperature": 0.7})
    added = await store.add_resources({"main_llm": llm})
    assert (added.version, added.resources_id[:3]) == (1, "rs-")
    rollout = await store.start_rollout("task")
    assert rollout.resources_id == added.resources_id
    latest = await store.get_latest_resources()
    assert latest is not None
    read = latest.resources["main_llm"]
    assert (read.model, read.sampling_parameters, read.api_key) == ("qwen", {"temperature": 0.7}, None)
    assert read.get_base_url(rollout.rollout_id, rollout.attempt.attempt_id) == "http://localhost:8000/v1"
    assert [one.resources_id for one in await store.query_resources(limit=1)] == [added.resources_id]


async def test_a_dashboard_asks_for_workers_and_counts(store: LightningStore) -> None:
    for worker_id in ("w2", "w1"):
        await store.update_worker(worker_id, heartbeat_stats={"load": 1})
    rollout = await store.start_rollout("task", worker_id="w1")
    await store.add_span(span_of(rollout, 1, "a"))
    await store.add_resources({})
    assert [one.worker_id for one in await store.query_workers(sort_by="worker_id")] == ["w1", "w2"]
    (busy,) = await store.query_workers(status_in=["busy"])
    assert (busy.worker_id, busy.current_attempt_id) == ("w1", rollout.attempt.attempt_id)
    counts = await store.statistics()
    names = ("total_rollouts", "total_attempts", "total_spans", "total_resources", "total_workers")
    assert [counts[name] for name in names] == [1, 1, 1, 1, 2]
    assert counts["uptime"] >= 0
    if store.capabilities.get("otlp_traces", False):
        assert store.otlp_traces_endpoint().endswith("/v1/traces")


async def test_unknown_ids_raise_value_errors(store: LightningStore) -> None:
    rollout = await store.start_rollout("task")
    for call in (
        store.update_rollout("nobody", mode="val"),
        store.start_attempt("nobody"),
        store.update_attempt(rollout.rollout_id, "nobody", status="failed"),
        store.add_span(replace(span_of(rollout, 1, "a"), attempt_id="nobody")),
        store.wait_for_rollouts(rollout_ids=["nobody"], timeout=0.01),
        store.get_next_span_sequence_id("nobody", "nobody"),
    ):
        with pytest.raises(ValueError, match="nobody"):
            await call
    assert await store.get_rollout_by_id("nobody") is None
    assert await store.get_worker_by_id("nobody") is None
    assert await store.get_resources_by_id("nobody") is None


async def test_an_attempt_that_takes_too_long_is_retried_and_a_late_span_changes_nothing(
    store: LightningStore,
) -> None:
    config = RolloutConfig(timeout_seconds=0.2, max_attempts=2, retry_condition=["timeout"])  # type: ignore[arg-type]
    rollout = await store.enqueue_rollout("task", config=config)
    slow = await store.dequeue_rollout()
    assert slow is not None
    while not (requeued := await store.query_rollouts(status_in=["requeuing"])):
        await asyncio.sleep(0.02)
    assert isinstance(requeued[0], AttemptedRollout)
    assert requeued[0].attempt.status == "timeout"
    await store.update_rollout(rollout.rollout_id, config=RolloutConfig(max_attempts=2))
    second = await store.dequeue_rollout()
    assert second is not None
    assert second.attempt.sequence_id == 2
    assert (await store.add_span(span_of(slow, 1, "late"))) is not None
    after = await store.get_rollout_by_id(rollout.rollout_id)
    assert isinstance(after, AttemptedRollout)
    assert (after.status, after.attempt.attempt_id) == ("preparing", second.attempt.attempt_id)


async def test_a_silent_attempt_revives_with_its_next_span(store: LightningStore) -> None:
    rollout = await store.start_rollout("task", worker_id="w")
    await store.update_attempt(rollout.rollout_id, "latest", status="unresponsive")
    await store.add_span(span_of(rollout, 1, "alive"))
    attempt = await store.get_latest_attempt(rollout.rollout_id)
    assert attempt is not None
    assert (attempt.status, attempt.last_heartbeat_time is not None) == ("running", True)

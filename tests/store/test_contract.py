"""The store's contract, over every implementation."""

import asyncio

import numpy as np
import pytest
from store_samples import fill_group, make_call_span, make_span, run_one

from raybolt.store import (
    UNSET,
    EnqueueRolloutRequest,
    InvalidTransition,
    InvalidValue,
    LightningStore,
    RolloutConfig,
    SpanEvent,
    UnknownAttempt,
    UnknownGroup,
    UnknownResources,
    UnknownRollout,
    names,
)

# Rollouts


async def test_an_enqueued_rollout_waits_and_keeps_what_it_was_given(store: LightningStore) -> None:
    config = RolloutConfig(max_attempts=3, retry_condition=("timeout",), timeout_seconds=9.0)
    await store.add_resources({"prompt": "p"}, resources_id="rs")
    rollout = await store.enqueue_rollout(
        {"question": "?", "ids": (1, 2)},
        task_id="t1",
        group_id="g1",
        mode="val",
        resources_id="rs",
        config=config,
        metadata={"seed": 7},
    )
    assert rollout.status == "queuing"
    assert rollout.input == {"question": "?", "ids": [1, 2]}
    assert (rollout.task_id, rollout.group_id, rollout.mode) == ("t1", "g1", "val")
    assert (rollout.resources_id, rollout.config, rollout.metadata) == ("rs", config, {"seed": 7})
    assert rollout.end_time is None
    assert await store.get_rollout_by_id(rollout.rollout_id) == rollout


async def test_the_queue_is_first_in_first_out_and_never_blocks(store: LightningStore) -> None:
    await store.enqueue_many_rollouts([EnqueueRolloutRequest(input=i, rollout_id=f"r{i}") for i in range(3)])
    first = await store.dequeue_rollout("w")
    assert first is not None
    assert (first.rollout_id, first.status) == ("r0", "preparing")
    assert (first.attempt.sequence_id, first.attempt.status, first.attempt.worker_id) == (1, "preparing", "w")
    rest = await store.dequeue_many_rollouts(5)
    assert [taken.rollout_id for taken in rest] == ["r1", "r2"]
    assert await store.dequeue_rollout() is None


async def test_many_takers_at_once_get_each_rollout_once(store: LightningStore) -> None:
    await store.enqueue_many_rollouts([EnqueueRolloutRequest(input=i) for i in range(40)])
    taken = await asyncio.gather(*(store.dequeue_rollout() for _ in range(50)))
    inputs = [one.input for one in taken if one is not None]
    assert sorted(inputs) == list(range(40))


async def test_a_started_rollout_is_never_queued(store: LightningStore) -> None:
    started = await store.start_rollout("x", mode="train", worker_id="me")
    assert (started.status, started.attempt.worker_id) == ("preparing", "me")
    assert await store.dequeue_rollout() is None


async def test_enqueuing_an_id_again_returns_the_first_unless_it_differs(store: LightningStore) -> None:
    first = await store.enqueue_rollout("a", rollout_id="r")
    assert await store.enqueue_rollout("a", rollout_id="r") == first
    with pytest.raises(InvalidValue, match="rollout_id 'r' is taken"):
        await store.enqueue_rollout("b", rollout_id="r")
    with pytest.raises(InvalidValue, match="rollout_id 's' is taken"):
        await store.enqueue_many_rollouts([EnqueueRolloutRequest(input=i, rollout_id="s") for i in "ab"])
    assert await store.get_rollout_by_id("s") is None


async def test_input_that_is_no_json_is_refused_by_field(store: LightningStore) -> None:
    with pytest.raises(InvalidValue, match=r"input cannot be stored: .*object"):
        await store.enqueue_rollout(object())
    with pytest.raises(InvalidValue, match="mode is 'training'; give one of train, val, test, demo, or None"):
        await store.enqueue_rollout("x", mode="training")  # type: ignore[arg-type]


async def test_a_stored_input_does_not_follow_the_callers_object(store: LightningStore) -> None:
    question = {"q": [1]}
    rollout = await store.enqueue_rollout(question)
    question["q"].append(2)
    stored = await store.get_rollout_by_id(rollout.rollout_id)
    assert stored is not None
    assert stored.input == {"q": [1]}


async def test_an_update_leaves_unset_fields_alone(store: LightningStore) -> None:
    await store.add_resources({"prompt": "p"}, resources_id="rs")
    rollout = await store.enqueue_rollout("x", mode="train", resources_id="rs", metadata={"a": 1})
    changed = await store.update_rollout(rollout.rollout_id, mode=None, resources_id=UNSET, metadata={"b": 2})
    assert (changed.mode, changed.resources_id, changed.metadata) == (None, "rs", {"b": 2})
    assert (changed.input, changed.status) == ("x", "queuing")


async def test_a_cancelled_rollout_leaves_the_queue_and_stays_cancelled(store: LightningStore) -> None:
    rollout = await store.enqueue_rollout("x")
    cancelled = await store.update_rollout(rollout.rollout_id, status="cancelled")
    assert cancelled.end_time is not None
    assert await store.dequeue_rollout() is None
    with pytest.raises(InvalidTransition, match="ended as cancelled and cannot become queuing"):
        await store.update_rollout(rollout.rollout_id, status="queuing")
    with pytest.raises(InvalidTransition, match="ended as cancelled and cannot become preparing"):
        await store.start_attempt(rollout.rollout_id)


async def test_queries_filter_page_and_keep_the_order_of_enqueuing(store: LightningStore) -> None:
    await store.enqueue_many_rollouts(
        [
            EnqueueRolloutRequest(
                input=i, rollout_id=f"r{i}", group_id=f"g{i % 2}", mode="train" if i < 4 else "val"
            )
            for i in range(6)
        ]
    )
    await store.dequeue_rollout()

    async def ids(**filters: object) -> list[str]:
        return [rollout.rollout_id for rollout in await store.query_rollouts(**filters)]  # type: ignore[arg-type]

    assert await ids() == ["r0", "r1", "r2", "r3", "r4", "r5"]
    assert await ids(status_in=["preparing"]) == ["r0"]
    assert await ids(rollout_id_in=["r5", "r1", "nobody"]) == ["r1", "r5"]
    assert await ids(group_id_in=["g1", "g0"], mode="val") == ["r4", "r5"]
    assert await ids(group_id_in=["g1"], rollout_id_in=["r0", "r3"]) == ["r3"]
    assert await ids(limit=2, offset=1) == ["r1", "r2"]
    with pytest.raises(InvalidValue, match="status_in is the string 'queuing'; give a list"):
        await ids(status_in="queuing")
    with pytest.raises(InvalidValue, match="offset is -1"):
        await ids(offset=-1)


async def test_waiting_ends_when_all_have_ended(store: LightningStore) -> None:
    rollouts = await store.enqueue_many_rollouts([EnqueueRolloutRequest(input=i) for i in range(2)])
    waiting = asyncio.ensure_future(store.wait_for_rollouts([r.rollout_id for r in rollouts], timeout=60))
    await run_one(store)
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await run_one(store, status="failed")
    assert [rollout.status for rollout in await waiting] == ["succeeded", "failed"]


async def test_waiting_gives_up_after_the_timeout_with_those_that_ended(store: LightningStore) -> None:
    rollouts = await store.enqueue_many_rollouts([EnqueueRolloutRequest(input=i) for i in range(2)])
    await run_one(store)
    ended = await store.wait_for_rollouts([r.rollout_id for r in rollouts], timeout=0.05)
    assert [rollout.rollout_id for rollout in ended] == [rollouts[0].rollout_id]


# Attempts


async def test_the_first_span_sets_attempt_and_rollout_running(store: LightningStore) -> None:
    started = await store.start_rollout("x")
    await store.add_span(make_span(started.attempt))
    attempt = await store.get_latest_attempt(started.rollout_id)
    rollout = await store.get_rollout_by_id(started.rollout_id)
    assert attempt is not None
    assert rollout is not None
    assert (attempt.status, rollout.status) == ("running", "running")


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [("succeeded", "succeeded"), ("failed", "failed"), ("timeout", "failed"), ("unresponsive", "failed")],
)
async def test_without_retries_the_attempts_outcome_ends_the_rollout(
    store: LightningStore, outcome: str, expected: str
) -> None:
    rollout = await store.enqueue_rollout("x")
    await run_one(store, status=outcome)
    ended = await store.get_rollout_by_id(rollout.rollout_id)
    assert ended is not None
    assert ended.status == expected
    assert ended.end_time is not None


async def test_a_retry_queues_the_rollout_until_its_attempts_are_used_up(store: LightningStore) -> None:
    rollout = await store.enqueue_rollout(
        "x", config=RolloutConfig(max_attempts=2, retry_condition=("failed",))
    )
    await run_one(store, status="failed")
    assert [r.status for r in await store.query_rollouts()] == ["requeuing"]
    second = await run_one(store, status="failed")
    assert second.attempt.sequence_id == 2
    assert [r.status for r in await store.query_rollouts()] == ["failed"]
    assert [a.status for a in await store.query_attempts(rollout.rollout_id)] == ["failed", "failed"]


async def test_a_superseded_attempt_changes_nothing_but_itself(store: LightningStore) -> None:
    first = await store.start_rollout("x")
    second = await store.start_attempt(first.rollout_id)
    assert await store.add_span(make_span(first.attempt))
    await store.update_attempt(first.rollout_id, first.attempt.attempt_id, status="failed")
    assert [r.status for r in await store.query_rollouts()] == ["preparing"]
    await store.update_attempt(first.rollout_id, "latest", status="succeeded")
    assert [r.status for r in await store.query_rollouts()] == ["succeeded"]
    assert [a.status for a in await store.query_attempts(second.rollout_id)] == [
        "failed",
        "succeeded",
    ]


async def test_an_ended_attempt_cannot_change_its_outcome(store: LightningStore) -> None:
    started = await store.start_rollout("x")
    await store.update_attempt(started.rollout_id, "latest", status="failed")
    await store.update_attempt(started.rollout_id, "latest", status="failed")
    with pytest.raises(InvalidTransition, match="ended as failed and cannot become succeeded"):
        await store.update_attempt(started.rollout_id, "latest", status="succeeded")
    with pytest.raises(InvalidValue, match="status is 'done'; give one of preparing, running"):
        await store.update_attempt(started.rollout_id, "latest", status="done")  # type: ignore[arg-type]


async def test_an_unresponsive_attempt_revives_with_a_span_and_leaves_the_queue(
    store: LightningStore,
) -> None:
    config = RolloutConfig(max_attempts=2, retry_condition=("unresponsive",))
    started = await store.start_rollout("x", config=config)
    await store.update_attempt(started.rollout_id, "latest", status="unresponsive")
    assert [r.status for r in await store.query_rollouts()] == ["requeuing"]
    await store.add_span(make_span(started.attempt))
    assert [r.status for r in await store.query_rollouts()] == ["running"]
    assert await store.dequeue_rollout() is None


async def test_latest_attempts_are_read_for_many_rollouts_at_once(store: LightningStore) -> None:
    first = await store.start_rollout("x")
    second = await store.start_attempt(first.rollout_id)
    waiting = await store.enqueue_rollout("y")
    latest = await store.get_latest_attempts([waiting.rollout_id, first.rollout_id])
    assert latest == [None, second.attempt]
    with pytest.raises(UnknownRollout, match="nobody"):
        await store.get_latest_attempts(["nobody"])


# Spans


async def test_a_span_is_read_back_as_it_was_recorded(store: LightningStore) -> None:
    started = await store.start_rollout("x")
    span = make_span(
        started.attempt,
        **{
            names.PROMPT_IDS: np.array([1, 2, 3], np.int32),
            names.LOGPROBS: np.array([-1.5], np.float32),
            "empty": np.array([], np.int32),
            "plain": {"a": [1, None, True, "é"]},
            "scalar": np.float32(0.5),
        },
    )
    object.__setattr__(span, "events", (SpanEvent("retry", 10.5, {"n": 1}),))
    await store.add_span(span)
    (back,) = await store.query_spans(started.rollout_id)
    assert (back.name, back.start_time, back.end_time, back.status) == ("chat", 10.0, 11.5, "ok")
    assert (back.trace_id, back.span_id, back.parent_id, back.status_message) == (
        "trace-1",
        "span-1",
        None,
        None,
    )
    assert back.events == (SpanEvent("retry", 10.5, {"n": 1}),)
    arrays = {key: value for key, value in back.attributes.items() if isinstance(value, np.ndarray)}
    assert {key: (value.dtype.name, value.tolist()) for key, value in arrays.items()} == {
        names.PROMPT_IDS: ("int32", [1, 2, 3]),
        names.LOGPROBS: ("float32", [-1.5]),
        "empty": ("int32", []),
    }
    assert back.attributes["plain"] == {"a": [1, None, True, "é"]}
    assert back.attributes["scalar"] == 0.5


async def test_a_span_sent_twice_is_kept_once(store: LightningStore) -> None:
    started = await store.start_rollout("x")
    spans = [make_span(started.attempt, i) for i in (2, 1)]
    assert [s.span_id for s in await store.add_many_spans([*spans, spans[0]])] == ["span-2", "span-1"]
    assert await store.add_many_spans(spans) == []
    assert await store.add_span(spans[0]) is None
    kept = await store.query_spans(started.rollout_id, "latest")
    assert [span.sequence_id for span in kept] == [1, 2]


async def test_spans_are_read_by_attempt(store: LightningStore) -> None:
    first = await store.start_rollout("x")
    second = await store.start_attempt(first.rollout_id)
    await store.add_many_spans([make_span(second.attempt, 1), make_span(first.attempt, 2)])
    rollout_id = first.rollout_id

    async def attempts_of(attempt_id: str | None) -> list[str]:
        return [span.attempt_id for span in await store.query_spans(rollout_id, attempt_id)]

    assert await attempts_of(None) == [first.attempt.attempt_id, second.attempt.attempt_id]
    assert await attempts_of("latest") == [second.attempt.attempt_id]
    assert await attempts_of(first.attempt.attempt_id) == [first.attempt.attempt_id]


async def test_an_array_the_store_cannot_keep_is_refused_by_name(store: LightningStore) -> None:
    started = await store.start_rollout("x")
    with pytest.raises(InvalidValue, match=r"attribute 'm' is an array of shape \(1, 2\); give a 1-D array"):
        await store.add_span(make_span(started.attempt, m=np.zeros((1, 2), np.float32)))
    with pytest.raises(
        InvalidValue, match="attribute 'm' is an array of complex128; convert it to one of int32"
    ):
        await store.add_span(make_span(started.attempt, m=np.zeros(2, np.complex128)))
    with pytest.raises(InvalidValue, match="attributes of span 'chat' cannot be stored"):
        await store.add_span(make_span(started.attempt, m=[np.zeros(2)]))
    assert await store.query_spans(started.rollout_id) == []


async def test_a_batch_with_one_unknown_attempt_adds_nothing(store: LightningStore) -> None:
    started = await store.start_rollout("x")
    stranger = make_span(started.attempt, 2)
    object.__setattr__(stranger, "attempt_id", "nobody")
    with pytest.raises(UnknownAttempt, match="has no attempt 'nobody'"):
        await store.add_many_spans([make_span(started.attempt, 1), stranger])
    assert await store.query_spans(started.rollout_id) == []


async def test_unknown_ids_raise_by_kind(store: LightningStore) -> None:
    queued = await store.enqueue_rollout("x")
    with pytest.raises(UnknownRollout, match="no rollout has the id 'nobody'"):
        await store.update_rollout("nobody", mode=None)
    with pytest.raises(UnknownRollout, match="nobody"):
        await store.query_spans("nobody")
    with pytest.raises(UnknownRollout, match="nobody"):
        await store.wait_for_rollouts(["nobody"], timeout=0)
    with pytest.raises(UnknownAttempt, match="no attempt 'latest'"):
        await store.update_attempt(queued.rollout_id, "latest", status="failed")
    with pytest.raises(UnknownResources, match="nobody"):
        await store.update_resources("nobody", {})
    with pytest.raises(UnknownGroup, match="nobody"):
        await store.get_group("nobody")
    assert await store.get_rollout_by_id("nobody") is None
    assert await store.get_latest_attempt(queued.rollout_id) is None
    assert await store.get_resources_by_id("nobody") is None


# Resources


async def test_resources_have_versions_and_a_latest(store: LightningStore) -> None:
    assert await store.get_latest_resources() is None
    first = await store.add_resources({"prompt": "hi"}, resources_id="a")
    await store.add_resources({"prompt": "ho"})
    updated = await store.update_resources("a", {"prompt": "hello"})
    assert (first.version, updated.version, updated.resources) == (1, 2, {"prompt": "hello"})
    assert await store.get_latest_resources() == updated
    assert await store.get_resources_by_id("a") == updated
    with pytest.raises(InvalidValue, match="resources_id 'a' is taken; change it by update_resources"):
        await store.add_resources({"prompt": "other"}, resources_id="a")


# The store itself


async def test_statistics_count_everything(store: LightningStore) -> None:
    await fill_group(store, "g", num_rollouts=1)
    await store.enqueue_rollout("waiting")
    await store.start_rollout("at work")
    await store.update_worker("another")
    counts = await store.statistics()
    assert counts.pop("uptime") > 0
    assert counts.pop("total_span_bytes") > 0
    assert counts == {
        "name": type(store).__name__,
        "rollouts": {"succeeded": 1, "preparing": 1, "queuing": 1},
        "attempts": 2,
        "spans": 1,
        "groups": {"complete": 1},
        "lost": {"requeued": [], "failed": []},
        "total_rollouts": 3,
        "total_attempts": 2,
        "total_spans": 1,
        "total_resources": 0,
        "total_workers": 2,
    }


async def test_concurrent_writers_lose_nothing(store: LightningStore) -> None:
    started = await asyncio.gather(*(store.start_rollout(i) for i in range(8)))

    async def write(index: int) -> None:
        attempt = started[index].attempt
        for batch in range(5):
            spans = [make_call_span(attempt, 10 * batch + i) for i in range(10)]
            assert await store.add_many_spans(spans) == spans

    await asyncio.gather(*(write(index) for index in range(8)))
    for one in started:
        kept = await store.query_spans(one.rollout_id)
        assert [span.sequence_id for span in kept] == list(range(50))

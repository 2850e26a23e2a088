"""Questions that change nothing are answered at once, unless something is still to be journalled."""

from pathlib import Path

import pytest
from store_samples import make_span

from raybolt.store import LocalStore


async def test_a_query_of_a_store_that_is_journalled_waits_for_nothing(tmp_path: Path) -> None:
    async with LocalStore(tmp_path) as store:
        started = await store.start_rollout("x")
        await store.add_span(make_span(started.attempt, 1))
        with pytest.raises(StopIteration) as answered:
            store.query_spans(started.rollout_id).__await__().__next__()
        assert [span.sequence_id for span in answered.value.value] == [1]


async def test_a_query_waits_until_what_it_saw_is_journalled(tmp_path: Path) -> None:
    async with LocalStore(tmp_path) as store:
        started = await store.start_rollout("x", rollout_id="r")
        adding = store.add_span(make_span(started.attempt, 1)).__await__()
        next(adding)  # done in memory, and not yet in the journal
        querying = store.query_spans("r").__await__()
        next(querying)
        with pytest.raises(StopIteration) as answered:
            next(querying)
        assert [span.sequence_id for span in answered.value.value] == [1]
        with pytest.raises(StopIteration):
            next(adding)


async def test_a_store_that_is_only_read_keeps_no_more_spans_in_memory_than_it_may(tmp_path: Path) -> None:
    async with LocalStore(tmp_path) as store:
        for name in ("r0", "r1", "r2", "r3"):
            started = await store.start_rollout("x", rollout_id=name)
            await store.add_span(make_span(started.attempt, 1, text="x" * 10_000))
    async with LocalStore(tmp_path, cache_bytes=25_000) as store:
        for name in ("r0", "r1", "r2", "r3"):
            assert len(await store.query_spans(name)) == 1
            assert (await store.statistics())["total_span_bytes"] < 25_000

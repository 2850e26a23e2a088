"""What a full store does with spans that it refuses, over every implementation that has a disk."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from store_samples import make_span

from raybolt.store import (
    HttpStore,
    LightningStore,
    LocalStore,
    RayStore,
    StoreFull,
    UnknownAttempt,
    UnknownRollout,
    serve,
)

NO_ROOM = 2**60
"""A reserve that no disk has."""


@pytest.fixture(scope="module")
def full_shards(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayStore]:
    folder = tmp_path_factory.mktemp("full")
    store = RayStore.create(folder, name=f"full-{uuid4().hex}", num_shards=2, reserve_bytes=NO_ROOM)
    yield store
    asyncio.run(store.destroy())


@pytest.fixture(params=["folder", "http", "ray-2"])
async def full_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LightningStore]:
    if request.param == "ray-2":
        yield RayStore.connect(request.getfixturevalue("full_shards").name)
        return
    async with LocalStore(tmp_path, reserve_bytes=NO_ROOM) as local_store:
        if request.param == "folder":
            yield local_store
            return
        with serve(local_store, port=0) as server:
            async with HttpStore(server.url) as http_store:
                yield http_store


async def test_a_refused_span_is_a_sign_of_life_of_its_attempt(full_store: LightningStore) -> None:
    started = await full_store.start_rollout("x")
    with pytest.raises(StoreFull, match="bytes free"):
        await full_store.add_span(make_span(started.attempt, 1))
    (attempt,) = await full_store.query_attempts(started.rollout_id)
    assert attempt.status == "running"
    assert attempt.last_heartbeat_time is not None
    assert attempt.last_heartbeat_time > attempt.start_time
    assert await full_store.query_spans(started.rollout_id) == []


async def test_a_silent_attempt_revives_when_its_spans_are_refused(full_store: LightningStore) -> None:
    started = await full_store.start_rollout("x")
    await full_store.update_rollout(started.rollout_id, status="requeuing")
    await full_store.update_attempt(started.rollout_id, started.attempt.attempt_id, "unresponsive")
    with pytest.raises(StoreFull):
        await full_store.add_many_spans([make_span(started.attempt, 1), make_span(started.attempt, 2)])
    (attempt,) = await full_store.query_attempts(started.rollout_id)
    assert attempt.status == "running"
    assert await full_store.dequeue_rollout() is None


async def test_refused_spans_of_several_rollouts_are_a_sign_of_life_of_each(
    full_store: LightningStore,
) -> None:
    started = [await full_store.start_rollout(i) for i in range(4)]
    with pytest.raises(StoreFull):
        await full_store.add_many_spans([make_span(one.attempt, 1) for one in started])
    latest = await full_store.get_latest_attempts([one.rollout_id for one in started])
    assert [attempt.status for attempt in latest if attempt] == ["running"] * 4


async def test_a_full_store_says_what_is_wrong_with_a_span_before_it_says_that_it_is_full(
    full_store: LightningStore,
) -> None:
    started = await full_store.start_rollout("x")
    span = make_span(started.attempt, 1)
    with pytest.raises(UnknownAttempt):
        await full_store.add_many_spans([span, replace(span, attempt_id="nobody")])
    with pytest.raises(UnknownRollout):
        await full_store.add_many_spans([replace(span, rollout_id="nobody")])
    (attempt,) = await full_store.query_attempts(started.rollout_id)
    assert attempt.status == "preparing"


async def test_no_spans_find_room_everywhere(full_store: LightningStore) -> None:
    assert await full_store.add_many_spans([]) == []

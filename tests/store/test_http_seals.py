"""What a server seals: once for as many as fetch it, as long as it has room for it."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from store_http import request, served
from store_samples import fill_group, make_call_span

from raybolt.store import GroupHandle, HttpStore, LocalStore, UnknownGroup, blocks, read_group, serve
from raybolt.store.server import seals


@pytest.fixture
async def local() -> AsyncIterator[LocalStore]:
    async with LocalStore() as store:
        yield store


@pytest.fixture
def sealed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each group has been sealed."""
    times: Counter[str] = Counter()
    encode = blocks.encode_rows

    def counted(group_id: str, *arguments: object) -> object:
        times[group_id] += 1
        return encode(group_id, *arguments)  # type: ignore[arg-type]  # passed on as they come

    monkeypatch.setattr(blocks, "encode_rows", counted)
    return times


async def num_spans(*handles: GroupHandle) -> list[int]:
    """Reads all at the same time; returns how many spans each has."""
    groups = await asyncio.gather(*(asyncio.to_thread(read_group, handle) for handle in handles))
    return [sum(len(member.spans) for member in group.rollouts) for group in groups]


async def test_a_group_is_sealed_once_for_all_that_fetch_it(local: LocalStore, sealed: Counter[str]) -> None:
    for group_id in ("a", "b"):
        await fill_group(local, group_id, num_rollouts=2, num_spans=3)
    with served(local) as server:
        async with HttpStore(server.url) as store:
            first, second = await store.take_groups(2)
            assert await num_spans(first, second, first, second, first) == [6] * 5
            assert await num_spans(await store.get_group("a")) == [6]
    assert sealed == {"a": 2, "b": 1}  # get_group may find another content, so it seals for itself


async def test_a_handle_stands_for_what_was_sealed_and_not_for_what_came_later(local: LocalStore) -> None:
    await fill_group(local, "g", num_rollouts=1, num_spans=2)
    with served(local) as server:
        async with HttpStore(server.url) as store:
            (before,) = await store.take_groups(1)
            rollout_id = (await store.query_rollouts())[0].rollout_id
            attempt = await store.get_latest_attempt(rollout_id)
            assert attempt is not None
            await store.add_span(make_call_span(attempt, 50))
            assert await num_spans(before, await store.get_group("g")) == [2, 3]


async def test_what_was_acknowledged_is_sealed_again_once_for_those_that_come_together(
    local: LocalStore, sealed: Counter[str]
) -> None:
    await fill_group(local, "g", num_rollouts=1)
    with served(local) as server:
        async with HttpStore(server.url) as store:
            (handle,) = await store.take_groups(1, lease_seconds=60)
            assert await num_spans(handle) == [1]
            await store.acknowledge_groups([handle])
            assert sealed["g"] == 1
            assert await num_spans(*[handle] * 6) == [1] * 6
    assert sealed["g"] == 2


async def test_what_was_used_longest_ago_makes_room_and_is_sealed_again(
    local: LocalStore, sealed: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for group_id in ("a", "b"):
        await fill_group(local, group_id, num_rollouts=1)
    with served(local) as server:
        block = await asyncio.to_thread(request, server, "GET", "/v1/groups/a/block")
    monkeypatch.setattr(seals, "MAX_BYTES", 3 * len(block.body) // 2)  # room for one
    with served(local) as server:
        async with HttpStore(server.url) as store:
            a, b = await store.take_groups(2)
            await num_spans(a)
            before = sealed["a"]
            await num_spans(a)
            assert sealed["a"] == before
            assert await num_spans(b) == [1]
            assert await num_spans(a) == [1]
            assert sealed["a"] == before + 1


async def test_a_group_that_is_gone_says_so_also_to_those_that_have_a_handle(local: LocalStore) -> None:
    started = await local.start_rollout("x", group_id="g")
    await local.add_span(make_call_span(started.attempt))
    await local.update_attempt(started.rollout_id, "latest", status="succeeded")
    with served(local) as server:
        async with HttpStore(server.url) as store:
            handle = await store.get_group("g")
            stranger = replace(handle, ref=replace(handle.ref, url=handle.ref.url.split("?")[0]))
            assert await num_spans(handle, stranger) == [1, 1]
            await store.delete_rollouts([started.rollout_id])
            assert await num_spans(handle) == [1]  # what is sealed stays, as in Ray's object store
            with pytest.raises(UnknownGroup, match="'g'"):
                await num_spans(stranger)


async def test_a_group_whose_shard_was_killed_is_sealed_again(ray_session: None, tmp_path: Path) -> None:
    import ray

    from raybolt.store import RayStore

    behind = RayStore.create(tmp_path, name="sealed-over-http")
    with serve(behind, port=0) as server:
        async with HttpStore(server.url) as store:
            await fill_group(store, "g", num_rollouts=2)
            (handle,) = await store.take_groups(1)
            pid = await asyncio.to_thread(
                ray.get, behind._links[0].actor.__ray_call__.remote(lambda _: os.getpid())
            )
            os.kill(pid, signal.SIGKILL)
            assert await num_spans(handle) == [2]
    await behind.destroy()

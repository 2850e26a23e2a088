"""Leases of groups that outlive the process which gave them."""

import asyncio
import pickle
import time
from dataclasses import replace
from pathlib import Path

import pytest
from store_samples import fill_group
from store_sharded import ShardedStore

from raybolt.store import HttpStore, InvalidTransition, LocalStore, serve


async def test_a_taker_acknowledges_after_the_store_was_opened_again(tmp_path: Path) -> None:
    async with LocalStore(tmp_path) as store:
        await fill_group(store, "g", num_rollouts=1)
        taken = await store.take_groups(1, lease_seconds=1e6)
    async with LocalStore(tmp_path) as store:
        (group,) = await store.query_groups()
        assert (group.status, group.taken_by) == ("taken", taken[0].claim)
        with pytest.raises(InvalidTransition, match="'g' is taken by another, no longer taken by claim 'c'"):
            await store.acknowledge_groups([replace(taken[0], claim="c")])
        await store.acknowledge_groups(taken)
        (group,) = await store.query_groups()
        assert (group.status, group.lease_end) == ("taken", None)


async def test_a_lease_that_ran_out_while_the_folder_was_closed_is_late(tmp_path: Path) -> None:
    async with LocalStore(tmp_path) as store:
        await fill_group(store, "g", num_rollouts=1)
        taken = await store.take_groups(1, lease_seconds=0.05)
    time.sleep(0.1)
    async with LocalStore(tmp_path) as store:
        for _ in range(600):  # until the store's clock has looked
            (group,) = await store.query_groups()
            if group.status == "complete":
                break
            await asyncio.sleep(0.05)
        with pytest.raises(InvalidTransition, match="'g' is complete, no longer taken by claim"):
            await store.acknowledge_groups(taken)


async def test_on_several_shards_all_acknowledgements_count_or_none() -> None:
    async with ShardedStore(3) as store:
        ids = [f"g{index}" for index in range(6)]
        for group_id in ids:
            await fill_group(store, group_id, num_rollouts=1)
        taken = await store.take_groups(6, lease_seconds=1e6)
        before = await store.query_groups()
        for index in range(6):
            late = [replace(handle, claim="c") if at == index else handle for at, handle in enumerate(taken)]
            with pytest.raises(InvalidTransition, match=f"'{ids[index]}' is taken by another"):
                await store.acknowledge_groups(late)
            assert await store.query_groups() == before
        await store.acknowledge_groups(taken)
        assert {group.lease_end for group in await store.query_groups()} == {None}


async def test_a_handle_that_travelled_says_whose_it_is(tmp_path: Path) -> None:
    async with LocalStore() as served:
        await fill_group(served, "g", num_rollouts=1)
        with serve(served, port=0) as server:
            async with HttpStore(server.url) as taker, HttpStore(server.url) as another:
                (handle,) = await taker.take_groups(1, lease_seconds=1e6)
                (group,) = await another.query_groups()
                assert handle.claim == group.taken_by
                assert (await another.get_group("g")).claim is None
                await another.acknowledge_groups([pickle.loads(pickle.dumps(handle))])
                (group,) = await taker.query_groups()
                assert group.lease_end is None

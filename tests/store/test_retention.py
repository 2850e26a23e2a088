"""A store with a retention deletes by itself what ended long ago, and nothing that is still wanted."""

import asyncio
import re
import signal
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from store_samples import fill_group

from raybolt.store import HttpStore, InvalidValue, LightningStore, LocalStore, keeper

PATIENCE_SECONDS = 60


async def end(store: LightningStore, rollout_id: str) -> None:
    await store.start_rollout("x", rollout_id=rollout_id)
    await store.update_attempt(rollout_id, "latest", "succeeded")


async def only(store: LightningStore, rollout_ids: set[str]) -> bool:
    """True, once the store has these rollouts and no others."""

    async def looked() -> bool:
        while {rollout.rollout_id for rollout in await store.query_rollouts()} != rollout_ids:
            await asyncio.sleep(0.02)
        return True

    return await asyncio.wait_for(looked(), PATIENCE_SECONDS)


async def test_what_ended_is_deleted_after_its_time_and_what_is_wanted_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "PRUNE_SECONDS", 0.02)
    async with LocalStore(tmp_path, retention_seconds=0.3) as store:
        await fill_group(store, "open", num_rollouts=1)
        await fill_group(store, "leased", num_rollouts=1)
        handles = await store.take_groups(1, group_id_in=["leased"], lease_seconds=1000)
        (in_open,) = await store.query_rollouts(group_id_in=["open"])
        (in_leased,) = await store.query_rollouts(group_id_in=["leased"])
        await store.enqueue_rollout("x", rollout_id="waits")
        await store.start_rollout("x", rollout_id="runs")
        await end(store, "plain")
        wanted = {"waits", "runs", in_open.rollout_id}
        assert await only(store, {*wanted, in_leased.rollout_id})
        await store.acknowledge_groups(handles)
        assert await only(store, wanted)
        assert [group.group_id for group in await store.query_groups()] == ["open"]
        deleted = [each for each in await store.get_changes() if each.kind == "deleted"]
        assert [each.rollout_id for each in deleted] == ["plain", in_leased.rollout_id, None]
        assert deleted[-1].group_id == "leased"
    async with LocalStore(tmp_path) as again:
        assert await only(again, wanted)


async def test_a_retention_is_a_time_since_the_end_and_without_one_nothing_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeper, "PRUNE_SECONDS", 0.01)
    async with LocalStore() as without, LocalStore(retention_seconds=3600) as within:
        for store in (without, within):
            await end(store, "ended")
        await asyncio.sleep(0.1)  # some ten times
        assert await only(without, {"ended"})
        assert await only(within, {"ended"})


async def test_the_shards_of_a_ray_store_have_one_too(ray_session: None, tmp_path: Path) -> None:
    from raybolt.store import RayStore

    with pytest.raises(InvalidValue, match="retention_seconds is -1; give 0 seconds or more"):
        RayStore.create(tmp_path, retention_seconds=-1)
    for wrong in (0, 1.5, "2"):
        with pytest.raises(InvalidValue, match="num_shards is"):
            RayStore.create(tmp_path, num_shards=wrong)  # type: ignore[arg-type]
    async with LocalStore(tmp_path) as before:
        await end(before, "ended")
    store = RayStore.create(tmp_path, name=f"kept-{uuid4().hex}", retention_seconds=0)
    try:
        assert await only(store, set())
    finally:
        await store.destroy()


async def test_a_server_takes_one_in_days(tmp_path: Path) -> None:
    serve = [sys.executable, "-m", "raybolt.cli", "store", "serve"]
    async with LocalStore(tmp_path) as before:
        await end(before, "ended")
    server = subprocess.Popen(
        [*serve, str(tmp_path), "--port", "0", "--retention-days", "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        address = re.search(r"http://\S+:\d+", await asyncio.to_thread(server.stdout.readline))
        assert address is not None
        async with HttpStore(address[0]) as store:
            assert await only(store, set())
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=PATIENCE_SECONDS)


def test_a_store_on_ray_has_that_of_its_start() -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "raybolt.cli", "store", "serve", "ray://any", "--retention-days", "3"],
        capture_output=True, text=True, timeout=PATIENCE_SECONDS,
    )  # fmt: skip
    assert refused.returncode == 2
    assert "--retention-days is 3, but ray://any runs already" in " ".join(refused.stderr.split())

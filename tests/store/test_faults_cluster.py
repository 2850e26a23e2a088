"""A store in a cluster of its own: drivers die, a node is lost, groups outgrow the object store.

The cluster's processes are started here; its drivers are processes, too, and print what they saw as JSON.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from small_disk import SMALL_DISK_BYTES, mounted

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parents[1]
PATIENCE_SECONDS = 120
PRELUDE = """
import asyncio, json, sys
import numpy as np
import ray
from raybolt.store import (
    LocalStore, RayStore, StoreError, StoreFull, add_when_room, names, read_group
)
from store_samples import make_call_span, make_span

folder = sys.argv[2]
ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)

def say(**said):
    print(json.dumps(said), flush=True)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head node with the smallest object store that Ray allows."""
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="raybolt-", dir="/tmp")  # short, since sockets lie in it
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        head = {
            "num_cpus": 4,
            "object_store_memory": 80 * 2**20,
            "include_dashboard": False,
            "_system_config": {"health_check_period_ms": 500, "health_check_initial_delay_ms": 500},
        }
        started = Cluster(initialize_head=True, head_node_args=head)
        yield started
        started.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


class Driver:
    """A process that runs a script in the cluster, as a driver of its own."""

    def __init__(self, cluster: Any, script: str, folder: Path) -> None:
        code = PRELUDE + textwrap.dedent(script) + "\nasyncio.run(main())\n"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, cluster.address, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(TESTS)},
        )

    def __enter__(self) -> "Driver":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def hears(self) -> Any:
        """Returns what the driver says next."""
        assert self.process.stdout is not None
        for line in iter(self.process.stdout.readline, ""):
            if line.startswith("{"):  # Ray prints here, too, when a node dies
                return json.loads(line)
        raise AssertionError(self.process.communicate(timeout=PATIENCE_SECONDS)[1])

    def go_on(self) -> None:
        """Answers the script's ``input()``."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


def test_a_new_driver_goes_on_with_the_store_of_one_that_was_killed(cluster: Any, tmp_path: Path) -> None:
    first = """
        async def main():
            store = RayStore.create(folder, name="lasting", num_shards=2)
            await store.declare_group("g", 1)
            await store.enqueue_rollout("waits", rollout_id="w", group_id="h")
            started = await store.start_rollout("x", rollout_id="r", group_id="g")
            for number in range(10**9):
                await store.add_span(make_call_span(started.attempt, number))
                say(acknowledged=number)
        """
    second = """
        async def main():
            store = RayStore.connect("lasting")
            say(
                kept=[span.sequence_id for span in await store.query_spans("r")],
                statuses={each.rollout_id: each.status for each in await store.query_rollouts()},
                lost=(await store.statistics())["lost"],
            )
            await store.update_attempt("r", "latest", status="succeeded")
            (handle,) = await store.take_groups(5)
            (taken,) = await store.dequeue_many_rollouts(5)
            say(taken=handle.group_id, num_spans=handle.num_spans, dequeued=taken.rollout_id)
            await store.destroy()
            say(destroyed=True)
        """
    with Driver(cluster, first, tmp_path) as driver:
        said = [driver.hears()["acknowledged"] for _ in range(30)]
        driver.process.kill()
        rest, _ = driver.process.communicate(timeout=PATIENCE_SECONDS)
        said += [json.loads(line)["acknowledged"] for line in rest.splitlines() if line.endswith("}")]
    with Driver(cluster, second, tmp_path) as driver:
        found = driver.hears()
        assert found["kept"] == list(range(len(found["kept"])))
        assert len(said) <= len(found["kept"]) <= len(said) + 1  # one may have been on its way
        assert found["statuses"] == {"r": "running", "w": "queuing"}
        assert found["lost"] == {"requeued": [], "failed": []}
        assert driver.hears() == {"taken": "g", "num_spans": len(found["kept"]), "dequeued": "w"}
        assert driver.hears() == {"destroyed": True}


def test_a_store_on_a_lost_node_is_gone_and_its_folder_has_everything(cluster: Any, tmp_path: Path) -> None:
    script = """
        @ray.remote(resources={"second": 1}, num_cpus=0)
        def create_there():
            return RayStore.create(folder, name="elsewhere", num_shards=2)

        async def main():
            store = await create_there.remote()
            started = [await store.start_rollout(i, rollout_id=f"r{i}") for i in range(4)]
            for number in range(10):
                for one in started:
                    await store.add_span(make_call_span(one.attempt, number))
            say(written=40)
            input()
            async def error_of(ask):
                try:
                    await ask()
                except StoreError as error:
                    return str(error)

            while (error := await error_of(store.statistics)) is None:  # workers outlive a raylet
                await asyncio.sleep(0.1)
            say(error=error)
            say(error=await error_of(store.query_rollouts))
            say(error=await error_of(store.destroy))
            try:
                RayStore.connect("elsewhere")
            except StoreError as error:
                say(error=str(error))
            input()
            again = RayStore.create(folder, name="elsewhere")
            kept = {}
            for one in started:
                spans = await again.query_spans(one.rollout_id)
                kept[one.rollout_id] = [span.sequence_id for span in spans]
            say(kept=kept, num_shards=again.num_shards, lost=(await again.statistics())["lost"])
            await again.destroy()
            say(destroyed=True)
        """
    node = cluster.add_node(num_cpus=1, resources={"second": 1}, object_store_memory=80 * 2**20)
    with Driver(cluster, script, tmp_path) as driver:
        assert driver.hears() == {"written": 40}
        cluster.remove_node(node, allow_graceful=False)
        driver.go_on()
        for _ in ("statistics", "query_rollouts", "destroy"):
            assert "the store named 'elsewhere' is gone" in driver.hears()["error"]
        assert "no store named 'elsewhere' runs in this cluster" in driver.hears()["error"]
        driver.go_on()
        found = driver.hears()
        assert found["kept"] == {f"r{i}": list(range(10)) for i in range(4)}
        assert found["num_shards"] == 2
        assert sorted(found["lost"]["failed"]) == ["r0", "r1", "r2", "r3"]  # nobody knows who still runs them
        assert driver.hears() == {"destroyed": True}


@contextmanager
def narrow_node(cluster: Any, folder: Path, num_bytes: int) -> Iterator[None]:
    """A node of the folder's name, with 80 MiB of object store that spills to a disk of this size."""
    with mounted(folder, num_bytes) as disk:
        node = cluster.add_node(
            num_cpus=1,
            resources={folder.name: 1},
            object_store_memory=80 * 2**20,
            object_spilling_directory=str(disk),
        )
        try:
            yield
        finally:
            cluster.remove_node(node)


def test_groups_that_outgrow_the_object_store_are_spilled_and_let_go(cluster: Any, tmp_path: Path) -> None:
    """Spilled objects go to a disk of the test's own: Ray spills nothing to one that is nearly full."""
    script = """
        @ray.remote(resources={"roomy": 1}, num_cpus=0)
        def create_there():
            return RayStore.create(folder, name="large")

        def num_references(shard):
            return len(ray._private.worker.global_worker.core_worker.get_all_reference_counts())

        async def main():
            store = await create_there.remote()
            shard = store._links[0].actor
            for index in range(12):  # 120 MB in an object store of 80 MiB
                started = await store.start_rollout(index, rollout_id=f"r{index}", group_id=f"g{index}")
                span = make_span(started.attempt, 1)
                span.attributes[names.PROMPT_IDS] = np.full(2_500_000, index, np.int32)
                await store.add_span(span)
                await store.update_attempt(f"r{index}", "latest", status="succeeded")
                await store.declare_group(f"g{index}", 1)
            before = await shard.__ray_call__.remote(num_references)
            handles = await store.take_groups(12, lease_seconds=600)
            held = await shard.__ray_call__.remote(num_references)
            num_bytes = sum(handle.nbytes for handle in handles)
            say(num_taken=len(handles), num_bytes=num_bytes, held=held - before)
            sums = []
            for handle in handles:
                (data,) = (await asyncio.to_thread(read_group, handle)).rollouts
                sums.append(int(data.spans[0].attributes[names.PROMPT_IDS].sum()))
                del data
            say(sums=sums)
            from ray._private.internal_api import memory_summary
            say(spilled="Spilled" in memory_summary(sys.argv[1], stats_only=True))
            await store.acknowledge_groups(handles)
            del handle, handles
            while await shard.__ray_call__.remote(num_references) > before:
                await asyncio.sleep(0.1)
            say(let_go=True)
            await store.destroy()
            say(destroyed=True)
        """
    with (
        narrow_node(cluster, tmp_path / "roomy", 2**30),
        Driver(cluster, script, tmp_path / "store") as driver,
    ):
        taken = driver.hears()
        assert (taken["num_taken"], taken["held"]) == (12, 12)
        assert taken["num_bytes"] > 120_000_000
        assert driver.hears() == {"sums": [2_500_000 * index for index in range(12)]}
        assert driver.hears() == {"spilled": True}
        assert driver.hears() == {"let_go": True}
        assert driver.hears() == {"destroyed": True}


def test_groups_that_fit_neither_memory_nor_disk_are_refused_until_others_are_let_go(
    cluster: Any, tmp_path: Path
) -> None:
    """Spilled objects go to a disk of 160 MiB; the store's own folder lies on another."""
    script = """
        @ray.remote(resources={"narrow": 1}, num_cpus=0)
        def create_there():
            return RayStore.create(folder, name="narrow")

        @ray.remote(resources={"narrow": 1}, num_cpus=0)
        def sum_there(handle):  # where reading takes room in the object store that is full
            (data,) = read_group(handle).rollouts
            return int(data.spans[0].attributes[names.PROMPT_IDS].sum())

        async def main():
            store = await create_there.remote()
            for index in range(30):  # 300 MB for an object store of 80 MiB that spills to 160 MiB
                started = await store.start_rollout(index, rollout_id=f"r{index}", group_id=f"g{index}")
                span = make_span(started.attempt, 1)
                span.attributes[names.PROMPT_IDS] = np.full(2_500_000, index, np.int32)
                await store.add_span(span)
                await store.update_attempt(f"r{index}", "latest", status="succeeded")
                await store.declare_group(f"g{index}", 1)
            handles = await store.take_groups(30, lease_seconds=600)
            refusals = []
            for ask in (store.take_groups(30), store.get_group("g29")):
                try:
                    await ask
                except StoreFull as error:
                    refusals.append(str(error))
            groups = (await store.statistics())["groups"]
            say(taken=len(handles), refusals=refusals, groups=groups)
            sums = []
            while handles or len(sums) < 30:
                while handles:
                    handle = handles.pop(0)
                    sums.append(await sum_there.remote(handle))
                    await store.acknowledge_groups([handle])
                    del handle
                try:
                    handles = await store.take_groups(4, lease_seconds=600)
                except StoreFull:  # Ray lets go of what was read a little later
                    await asyncio.sleep(0.1)
            say(sums=sums)
            await store.destroy()
            say(destroyed=True)
        """
    with (
        narrow_node(cluster, tmp_path / "narrow", 160 * 2**20),
        Driver(cluster, script, tmp_path / "store") as driver,
    ):
        said = driver.hears()
        num_taken = said["taken"]
        assert 5 < num_taken < 30
        assert said["groups"] == {"taken": num_taken, "complete": 30 - num_taken}
        assert len(said["refusals"]) == 2
        for refusal in said["refusals"]:
            assert "is full, and so is the disk it spills to: a group of" in refusal
        assert driver.hears() == {"sums": [2_500_000 * index for index in range(30)]}
        assert driver.hears() == {"destroyed": True}


def test_a_full_object_store_lets_spans_and_ends_through_and_refuses_only_what_is_too_large(
    cluster: Any, tmp_path: Path
) -> None:
    script = """
        @ray.remote(resources={"filled": 1}, num_cpus=0)
        def write_there():
            return asyncio.run(write())

        async def write():
            store = RayStore.create(folder, name="filled")
            started = await store.start_rollout("x", rollout_id="r")

            def large_span(number, num_mb):
                span = make_span(started.attempt, number)
                span.attributes[names.PROMPT_IDS] = np.full(num_mb * 250_000, number, np.int32)
                return span

            await store.add_span(large_span(1, 12))
            objects = []
            for num_bytes in (10_000_000, 1_000_000, 120_000):
                try:
                    while True:
                        objects.append(ray.put(np.ones(num_bytes, np.uint8)))
                except ray.exceptions.OutOfDiskError:
                    pass
            added = await store.add_span(large_span(2, 3)) is not None  # more than Ray sends within a call
            heard = [(await store.query_attempts("r"))[0].last_heartbeat_time]
            outcomes = await asyncio.gather(
                store.add_span(large_span(3, 12)),
                store.query_spans("r"),
                store.update_attempt("r", "latest", metadata={"said": "meanwhile"}),
                return_exceptions=True,
            )
            (attempt,) = await store.query_attempts("r")
            heard.append(attempt.last_heartbeat_time)
            waiting = asyncio.create_task(add_when_room(store, [large_span(3, 12)]))
            await asyncio.sleep(0)
            objects.clear()
            await waiting
            numbers = None
            while numbers is None:
                try:
                    numbers = [span.sequence_id for span in await store.query_spans("r")]
                except StoreFull:  # Ray may still be letting go
                    await asyncio.sleep(0.1)
            return dict(
                added=added,
                refusals=[str(one) for one in outcomes if isinstance(one, StoreFull)],
                said=attempt.metadata,
                heard_from=heard[0] < heard[1],
                numbers=numbers,
            )

        async def main():
            say(**await write_there.remote())
            await RayStore.connect("filled").destroy()
            say(destroyed=True)
        """
    with (
        narrow_node(cluster, tmp_path / "filled", SMALL_DISK_BYTES),
        Driver(cluster, script, tmp_path / "store") as driver,
    ):
        said = driver.hears()
        refusals = said.pop("refusals")
        assert said == {
            "added": True,
            "said": {"said": "meanwhile"},
            "heard_from": True,
            "numbers": [1, 2, 3],
        }
        assert ["'add_rows'" in refusals[0], "'rows'" in refusals[1]] == [True, True]
        assert all("is too large to travel without; let go of handles" in each for each in refusals)
        assert driver.hears() == {"destroyed": True}

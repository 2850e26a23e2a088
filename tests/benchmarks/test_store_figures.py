"""The scripts that measure the store measure what they say, at tiny sizes."""

import numpy as np
import pytest

from raybolt.benchmarks.perf.store_shards import compare
from raybolt.store import LocalStore, names


async def test_runs_are_recorded_under_the_ids_of_the_stores_rollouts():
    from raybolt.benchmarks.perf._recorded_runs import enqueue, plain_runs, record

    async with LocalStore() as store:
        assert await enqueue(store, "g", 9) == ["g/0", "g/1"]
        await record(store, plain_runs(9))
        rollouts = await store.query_rollouts(status_in=["succeeded"])
        assert [rollout.group_id for rollout in rollouts] == ["g/0"] * 8 + ["g/1"]
        spans = await store.query_spans(rollouts[8].rollout_id, "latest")
    assert len(spans) == 20
    assert len(spans[0].attributes[names.PROMPT_IDS]) + len(spans[0].attributes[names.RESPONSE_IDS]) == 900


def test_every_store_and_operation_has_its_figures(ray_session):
    stores = compare([1], num_writers=1, num_groups=1, repeats=1)
    assert list(stores) == ["LocalStore", "RayStore, 1"]
    for operations in stores.values():
        assert list(operations) == [
            "add_span",
            "add_span_concurrent",
            "add_many_spans",
            "take_groups",
            "read_group",
        ]
        assert all(figures["spans_per_s"] > 0 for figures in operations.values())
    assert stores["RayStore, 1"]["add_span"]["store_cpu_s_per_1000"] > 0


def test_a_learner_reads_the_tokens_where_they_lie_in_shared_memory(ray_session):
    from raybolt.benchmarks.perf._recorded_runs import plain_runs
    from raybolt.benchmarks.perf.store_bytes import measure

    found = measure("perf", plain_runs(8))
    assert found["tokens"] == {"recorded": 8 * 20 * 900, "sampled": 8 * 20 * 450}
    stages = {stage: figures["times_arrays"] for stage, figures in found["stages"].items()}
    assert stages["not shared"] == 0.0
    assert stages["arrays"] == 1.0
    assert found["stages"]["arrays"]["bytes_per_token_recorded"] == 4.0
    assert 1.0 < stages["tables"] < stages["objects"] < 1.3
    assert 1.0 < stages["messages"] < 1.2
    assert 1.0 < stages["folder"] < stages["written"]


def test_an_array_outside_of_shared_memory_counts_as_a_copy(ray_session):
    import ray

    from raybolt.benchmarks.perf.store_bytes import lies_in, shared_memory

    array = ray.get(ray.put(np.arange(1000, dtype=np.int32)))
    shared = shared_memory()
    assert lies_in(shared, array)
    assert lies_in(shared, array[10:20])
    assert not lies_in(shared, array.copy())


def test_copies_are_counted_by_the_process_that_makes_them():
    import subprocess
    import sys

    from raybolt.benchmarks.perf._copies import counting

    with counting() as variables:
        if not variables:
            pytest.skip("there is no C compiler")
        done = subprocess.run(
            [sys.executable, "-c", COPIES], env=variables, capture_output=True, text=True, check=True
        )
    assert done.stdout == "1000000 True True\n"


COPIES = """
import ctypes, os
count = ctypes.CDLL(os.environ["RAYBOLT_COPIES"]).bytes_in_memory
count.restype = ctypes.c_uint64
original = bytes(1_000_000)
before = count()
copy = bytearray(original)
counted = count() - before
text = bytes(index % 251 for index in range(2000))
forward, back = ctypes.create_string_buffer(text), ctypes.create_string_buffer(text)
ctypes.memmove(ctypes.addressof(forward) + 100, forward, 1900)
ctypes.memmove(back, ctypes.addressof(back) + 100, 1900)
print(counted, forward.raw[:-1] == text[:100] + text[:1900], back.raw[:-1] == text[100:] + text[1900:])
"""

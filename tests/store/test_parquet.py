"""A store as Parquet files and back."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from store_samples import fill_group, make_call_span, make_span, run_one

from raybolt.store import InvalidValue, LocalStore, RolloutConfig, SpanEvent, StoreError, read_group
from raybolt.store.parquet import export_parquet, import_parquet
from raybolt.store.rows import pack_span
from raybolt.store.types import Span


async def fill(folder, prefix="a"):
    """A store with some of everything; nothing in flight, since opening would give that up."""
    async with LocalStore(folder) as store:
        await store.add_resources({"prompt": "be brief"}, resources_id="first")
        await store.add_resources({"prompt": "be kind"}, resources_id="second")
        await store.update_resources("first", {"prompt": "be both", "n": [1, None]})
        await fill_group(store, f"{prefix}-taken", num_rollouts=2, num_spans=3)
        await store.take_groups(1)
        await fill_group(store, f"{prefix}-complete", num_rollouts=1)
        await store.declare_group(f"{prefix}-open", 5)
        config = RolloutConfig(max_attempts=2, retry_condition=("failed",), timeout_seconds=9.5)
        retried = await store.enqueue_rollout(
            ["x", {"ü": 1}], mode="val", config=config, metadata={"k": [True]}, rollout_id=f"{prefix}-retried"
        )
        taken = await run_one(store, status="failed")
        assert taken.rollout_id == retried.rollout_id
        await store.enqueue_rollout("last", rollout_id=f"{prefix}-last")
        second = await store.dequeue_rollout("worker-2")
        odd = make_span(
            second.attempt,
            7,
            text="[ü]",
            floats=np.array([0.1, np.nan], np.float64),
            none=np.zeros(0, np.uint8),
        )
        event = SpanEvent("exception", 12.5, {"why": ["a", 1]})
        values = {name: getattr(odd, name) for name in Span.__dataclass_fields__}
        await store.add_many_spans(
            [
                Span(
                    **{
                        **values,
                        "events": (event,),
                        "status": "error",
                        "status_message": "no",
                        "parent_id": "p",
                    }
                )
            ]
        )
        await store.update_attempt(second.rollout_id, "latest", status="failed", metadata={"error": "boom"})


async def contents(folder):
    """Everything that can be asked of a store."""
    async with LocalStore(folder) as store:
        rollouts = await store.query_rollouts()
        attempts, spans = [], []
        for rollout in rollouts:
            attempts += await store.query_attempts(rollout.rollout_id)
            spans += [plain(span) for span in await store.query_spans(rollout.rollout_id)]
        counts = await store.statistics()
        found = {
            "rollouts": rollouts,
            "attempts": [
                (a.attempt_id, a.status, a.start_time, a.end_time, a.worker_id, a.metadata) for a in attempts
            ],
            "spans": spans,
            "groups": await store.query_groups(),
            "resources": await store.query_resources(),
            "latest": await store.get_latest_resources(),
            "counts": {name: counts[name] for name in ("rollouts", "groups", "spans", "attempts")},
        }
        found["feed"] = await store.get_changes(limit=9999)
        found["queue"] = [taken.rollout_id for taken in await store.dequeue_many_rollouts(9)]
        return found


def plain(span):
    """A span as a value: its arrays by name, dtype and bytes."""
    row = pack_span(span)
    arrays = sorted(
        (name, str(value.dtype), value.tobytes())
        for name, value in span.attributes.items()
        if isinstance(value, np.ndarray)
    )
    return (*row[:11], json.loads(row.attributes), row.events, arrays)


async def test_a_store_comes_back_from_parquet_as_it_was(tmp_path):
    await fill(tmp_path / "one")
    counts = export_parquet(tmp_path / "one", tmp_path / "files")
    assert counts == {
        "rollouts": 5, "attempts": 5, "groups": 3, "resources": 2, "changes": 44, "spans": 9,
    }  # fmt: skip
    assert import_parquet(tmp_path / "files", tmp_path / "two") == counts
    one, two = await contents(tmp_path / "one"), await contents(tmp_path / "two")
    for name in one:
        assert two[name] == one[name], name
    assert one["queue"] == ["a-last"]


async def test_groups_can_be_taken_and_read_from_an_imported_store(tmp_path):
    await fill(tmp_path / "one")
    export_parquet(tmp_path / "one", tmp_path / "files")
    import_parquet(tmp_path / "files", tmp_path / "two")
    async with LocalStore(tmp_path / "two") as store:
        (handle,) = await store.take_groups(9)
        assert handle.group_id == "a-complete"
        (data,) = read_group(handle).rollouts
        np.testing.assert_array_equal(data.spans[0].attributes["raybolt.prompt_ids"], [5, 6, 7])


async def test_tokens_are_list_columns_that_any_reader_understands(tmp_path):
    await fill(tmp_path / "one")
    export_parquet(tmp_path / "one", tmp_path / "files")
    spans = pq.read_table(tmp_path / "files" / "spans.parquet")
    assert [name for name in spans.column_names if ":" in name] == [
        "floats:float64",
        "none:uint8",
        "raybolt.logprobs:float32",
        "raybolt.prompt_ids:int32",
        "raybolt.response_ids:int32",
    ]
    assert spans.column("raybolt.response_ids:int32").to_pylist() == [[8, 9]] * 8 + [None]
    assert spans.column("none:uint8").to_pylist()[-1] == []


async def test_the_shards_of_a_folder_become_one_store(tmp_path):
    root = tmp_path / "sharded"
    root.mkdir()
    (root / "shards.json").write_text('{"num_shards": 2}')
    for index, prefix in enumerate("ab"):
        await fill(root / f"shard-{index}", prefix)
    export_parquet(root, tmp_path / "files")
    import_parquet(tmp_path / "files", tmp_path / "one")
    parts = [await contents(root / f"shard-{index}") for index in range(2)]
    whole = await contents(tmp_path / "one")
    for name in ("rollouts", "attempts", "spans", "groups"):
        assert sorted(map(repr, whole[name])) == sorted(repr(each) for part in parts for each in part[name])
    times = [rollout.start_time for rollout in whole["rollouts"]]
    assert times == sorted(times)
    assert whole["queue"] == [id for part in parts for id in part["queue"]]
    assert [r.resources_id for r in whole["resources"]] == ["second", "first"]


async def test_progress_is_told_in_spans(tmp_path, monkeypatch):
    monkeypatch.setattr("raybolt.store.parquet.BATCH_ROWS", 4)
    await fill(tmp_path / "one")
    told, read = [], []
    export_parquet(tmp_path / "one", tmp_path / "files", on_progress=lambda *step: told.append(step))
    import_parquet(tmp_path / "files", tmp_path / "two", on_progress=lambda *step: read.append(step))
    assert told == [(4, 9), (8, 9), (9, 9)]
    assert read == [(6, 9), (9, 9)]  # those that came in one call come back in one


async def test_a_store_in_use_can_be_exported(tmp_path):
    async with LocalStore(tmp_path / "one") as store:
        started = await store.start_rollout("x")
        await store.add_span(make_call_span(started.attempt))
        assert export_parquet(tmp_path / "one", tmp_path / "files")["spans"] == 1


async def test_what_is_no_store_no_export_or_no_free_folder_is_refused(tmp_path):
    await fill(tmp_path / "one")
    with pytest.raises(StoreError, match="there is no store at"):
        export_parquet(tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(InvalidValue, match="is not empty; give a new folder"):
        export_parquet(tmp_path / "one", tmp_path / "one")
    export_parquet(tmp_path / "one", tmp_path / "files")
    with pytest.raises(InvalidValue, match="holds a store already; give a new folder"):
        import_parquet(tmp_path / "files", tmp_path / "one")
    with pytest.raises(StoreError, match=r"rollouts.parquet cannot be read"):
        import_parquet(tmp_path, tmp_path / "two")
    table = pq.read_table(tmp_path / "files" / "groups.parquet").replace_schema_metadata(None)
    pq.write_table(table, tmp_path / "files" / "groups.parquet")
    with pytest.raises(StoreError, match=r"groups.parquet is none of raybolt's"):
        import_parquet(tmp_path / "files", tmp_path / "two")
    assert not (tmp_path / "two").exists()


@pytest.mark.parametrize("move", ["export", "import"])
async def test_what_is_interrupted_leaves_nothing_under_the_name(tmp_path, monkeypatch, move):
    monkeypatch.setattr("raybolt.store.parquet.BATCH_ROWS", 4)
    await fill(tmp_path / "one")
    export_parquet(tmp_path / "one", tmp_path / "files")

    def interrupt(done, total):
        assert done < total == 9
        assert not (tmp_path / "new" / "journal.db").exists()
        assert move == "import" or not (tmp_path / "new").exists()
        raise KeyboardInterrupt

    run, source = (export_parquet, "one") if move == "export" else (import_parquet, "files")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / source, tmp_path / "new", on_progress=interrupt)
    assert [path.name for path in tmp_path.rglob("*") if "partial" in path.name] == []
    assert not (tmp_path / "new").exists() or list((tmp_path / "new").iterdir()) == []
    run(tmp_path / source, tmp_path / "new")


async def test_a_store_that_somebody_opens_meanwhile_is_not_replaced(tmp_path):
    await fill(tmp_path / "one")
    export_parquet(tmp_path / "one", tmp_path / "files")
    with pytest.raises(InvalidValue, match="holds a store already"):
        import_parquet(
            tmp_path / "files", tmp_path / "two", on_progress=lambda *_: LocalStore(tmp_path / "two")
        )
    assert [path.name for path in (tmp_path / "two").iterdir() if "partial" in path.name] == []

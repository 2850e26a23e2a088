"""Which stores a run takes, and what it does to what it finds in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raybolt.rl.run_store import RunStore
from raybolt.store import HttpStore, LocalStore, StoreError, blocking, serve
from raybolt.store.errors import InvalidValue


def test_a_run_leaves_what_it_makes_with_its_store_or_below_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert RunStore(tmp_path / "mine").default_folder == tmp_path / "mine"
    assert RunStore("https://store.example.org:4747/a/").default_folder == (
        tmp_path / "runs" / "store.example.org-4747-a"
    )
    store = HttpStore("http://127.0.0.1:4747")
    assert RunStore(store).default_folder == tmp_path / "runs" / "127.0.0.1-4747"


@pytest.mark.parametrize("kind", ["LocalStore", "int"])
def test_a_store_that_only_this_process_reaches_is_refused(kind: str) -> None:
    given: Any = LocalStore() if kind == "LocalStore" else 7
    with pytest.raises(InvalidValue, match=f"store is a {kind}, .*; give a folder, the address of"):
        RunStore(given)


def test_what_an_earlier_run_left_queued_on_a_server_is_cancelled() -> None:
    local = LocalStore()
    blocking(local.enqueue_rollout("x", rollout_id="old", group_id="iteration-00003-abc123/0"))
    with serve(local, port=0) as server:
        run_store = RunStore(server.url)
        store = run_store.open()
        assert [rollout.status for rollout in blocking(store.query_rollouts())] == ["cancelled"]
        run_store.close()
        run_store.close()
        with pytest.raises(StoreError, match="is closed"):
            blocking(store.statistics())


def test_rollouts_of_others_on_a_server_are_neither_taken_nor_cancelled() -> None:
    local = LocalStore()
    blocking(local.enqueue_rollout("x", rollout_id="theirs"))
    with serve(local, port=0) as server:
        run_store = RunStore(server.url)
        with pytest.raises(InvalidValue, match=r"has 1 rollouts that are not over .*'theirs' for one"):
            run_store.open()
        run_store.close()
    (rollout,) = blocking(local.query_rollouts())
    assert rollout.status == "queuing"


def test_a_ray_store_that_was_given_goes_on_when_the_run_has_ended(ray_session: None) -> None:
    from raybolt.store import RayStore

    store = RayStore.create(None, name="given-to-a-run")
    run_store = RunStore(store)
    assert run_store.folder is None
    assert run_store.default_folder.name == "given-to-a-run"
    assert run_store.open() is store
    run_store.close()
    assert blocking(store.query_rollouts()) == []
    blocking(store.destroy())

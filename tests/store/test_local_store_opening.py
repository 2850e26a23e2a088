"""What stores say when they are opened, served or called the wrong way, and calls from plain threads."""

import asyncio
import os
import pickle
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raybolt.store import HttpStore, InvalidValue, LocalStore, StoreError, blocking, serve


def test_a_path_that_is_a_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InvalidValue, match=r"path is '.*notes.txt', .* \(File exists\)"):
        LocalStore(tmp_path / "notes.txt")
    with pytest.raises(InvalidValue, match=r"path is '.*/store', .* \(Not a directory\); give another"):
        LocalStore(tmp_path / "notes.txt" / "store")


@pytest.mark.parametrize("path", ["", 5])
def test_what_is_no_path_is_refused_with_what_to_give(path: Any) -> None:
    with pytest.raises(InvalidValue, match=f"path is {path!r}; give a folder, or None to keep"):
        LocalStore(path)


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    store = LocalStore("~/runs/mine")
    assert (tmp_path / "runs" / "mine" / "journal.db").exists()
    assert repr(store) == f"LocalStore({str(tmp_path / 'runs' / 'mine')!r})"
    blocking(store.close())


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("cache_bytes", "big"),
        ("cache_bytes", -1),
        ("retention_seconds", "a day"),
        ("retention_seconds", -1),
        ("reserve_bytes", 0.5),
        ("reserve_bytes", -1),
    ],
)
def test_options_of_the_wrong_kind_are_refused_by_name_before_anything_is_made(
    tmp_path: Path, option: str, value: Any
) -> None:
    with pytest.raises(InvalidValue, match=f"{option} is {value!r}; give "):
        LocalStore(tmp_path / "store", **{option: value})
    assert not (tmp_path / "store").exists()


def test_a_pickled_local_store_says_how_others_reach_it() -> None:
    with pytest.raises(StoreError, match=r"serve it .* give them an HttpStore, or use a RayStore"):
        pickle.dumps(LocalStore())


def test_a_closed_store_says_so_and_may_be_closed_again(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    blocking(store.close())
    blocking(store.close())
    with pytest.raises(StoreError, match=f"the store at {tmp_path} is closed; open a new one"):
        blocking(store.enqueue_rollout("x"))


async def test_closing_a_store_ends_those_who_wait() -> None:
    store = LocalStore()
    rollout = await store.enqueue_rollout("x", group_id="g")
    (*_, last) = await store.get_changes()
    waiting = [
        asyncio.ensure_future(store.wait_for_rollouts([rollout.rollout_id])),
        asyncio.ensure_future(store.wait_for_groups(["g"])),
        asyncio.ensure_future(store.get_changes(last.cursor, timeout=None)),
    ]
    await asyncio.sleep(0)
    await store.close()
    for one in waiting:
        with pytest.raises(StoreError, match="the store in memory is closed"):
            await asyncio.wait_for(one, 60)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"store": "runs/mine"}, "store is 'runs/mine'; give a store"),
        ({"port": "4747"}, "port is '4747'; give a number below 65536"),
        ({"port": 70_000}, "port is 70000; give a number below 65536"),
        ({"tokens": "secret"}, "tokens is a string; give a list of them"),
    ],
)
def test_serving_the_wrong_thing_says_what_to_give(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        serve(**{"store": LocalStore(), "port": 0, **arguments})


@pytest.mark.parametrize("url", ["localhost:4747", "", 5, "ftp://localhost"])
def test_what_is_no_address_is_refused_with_one_that_would_do(url: Any) -> None:
    with pytest.raises(InvalidValue, match=f"url is {url!r}; give one such as http://127.0.0.1:4747"):
        HttpStore(url)


def test_plain_threads_share_a_store() -> None:
    store = LocalStore()
    threads = [
        threading.Thread(target=lambda: [blocking(store.enqueue_rollout(i)) for i in range(25)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(rollout.input for rollout in blocking(store.query_rollouts())) == sorted([*range(25)] * 4)


@pytest.mark.parametrize("what", [5, LocalStore.statistics])
def test_blocking_on_what_is_no_call_says_what_to_give(what: Any) -> None:
    with pytest.raises(InvalidValue, match=r"call is .*; give a call, such as blocking\(store\."):
        blocking(what)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C is heard, also where the tests run in the background of a shell, which has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_a_blocking_call() -> None:
    store = LocalStore()
    rollout = blocking(store.enqueue_rollout("x"))
    ended = threading.Event()

    async def wait() -> None:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            await store.wait_for_rollouts([rollout.rollout_id])
        except asyncio.CancelledError:
            ended.set()
            raise

    with pytest.raises(KeyboardInterrupt):
        blocking(wait())
    assert ended.wait(60)

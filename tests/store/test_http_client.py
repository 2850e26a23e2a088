"""HttpStore beyond the contract: what lies between it and the server."""

import asyncio
import pickle
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from store_http import served
from store_samples import fill_group, make_call_span

from raybolt.store import (
    EnqueueRolloutRequest,
    HttpStore,
    InvalidValue,
    LocalStore,
    StoreError,
    UnknownAttempt,
    blocking,
    http_store,
    read_group,
    routes,
    serve,
    span_mailbox,
)


@pytest.fixture
async def local() -> AsyncIterator[LocalStore]:
    async with LocalStore() as store:
        yield store


async def test_ids_may_hold_any_character(local: LocalStore) -> None:
    ids = ["a/b", "a%2Fb", "..", "{x}", "é ü", "q?a=b#c", "new\nline", "start", "search", "+", "a\\b"]
    with served(local) as server:
        async with HttpStore(server.url) as store:
            for id in ids:
                assert (await store.enqueue_rollout(1, rollout_id=id)).rollout_id == id
                found = await store.get_rollout_by_id(id)
                assert found is not None
                assert found.rollout_id == id
                await store.start_attempt(id)
                assert len(await store.query_attempts(id)) == 1
                await store.declare_group(id, 2)
            assert await store.get_rollout_by_id("") is None
            assert [group.group_id for group in await store.query_groups()] == ids
            with pytest.raises(InvalidValue, match="half of a character"):
                await store.get_rollout_by_id("\ud800")


async def test_more_than_one_request_may_take_is_taken_by_several(
    local: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_store, "MAX_TAKEN", 3)
    await local.enqueue_many_rollouts([EnqueueRolloutRequest(input=index) for index in range(12)])
    with served(local) as server:
        async with HttpStore(server.url) as store:
            for limit, expected in ((4, [0, 1, 2, 3]), (3, [4, 5, 6]), (99, [7, 8, 9, 10, 11])):
                taken = await store.dequeue_many_rollouts(limit, worker_id="w")
                assert [each.input for each in taken] == expected
            assert await store.dequeue_many_rollouts(99) == []
            assert [change.cursor for change in await store.get_changes(limit=99)] == ["1", "2", "3"]


async def test_pages_are_followed_to_the_end_and_to_the_limit(
    local: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = tuple(replace(route, page=route.page and 3) for route in routes.ROUTES)
    monkeypatch.setattr("raybolt.store.server.app.ROUTES", small)
    with served(local) as server:
        async with HttpStore(server.url) as store:
            await store.enqueue_many_rollouts(
                [EnqueueRolloutRequest(input=i, rollout_id=f"r{i}") for i in range(9)]
            )
            for limit, offset, expected in [
                (-1, 0, 9),
                (-1, 2, 7),
                (7, 0, 7),
                (3, 0, 3),
                (0, 0, 0),
                (99, 8, 1),
            ]:
                found = await store.query_rollouts(limit=limit, offset=offset)
                assert [r.input for r in found] == list(range(9))[offset : offset + expected]
            started = await store.start_rollout("x")
            await store.add_many_spans([make_call_span(started.attempt, i) for i in range(1, 8)])
            spans = await store.query_spans(started.rollout_id)
            assert [span.sequence_id for span in spans] == [1, 2, 3, 4, 5, 6, 7]


async def test_a_long_wait_is_split_and_still_ends_when_it_should(
    local: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_store, "POLL_SECONDS", 0.1)
    with served(local) as server:
        async with HttpStore(server.url) as store:
            rollout = await store.enqueue_rollout("x")
            assert await store.wait_for_rollouts([rollout.rollout_id], timeout=0.35) == []
            waiting = asyncio.ensure_future(store.wait_for_rollouts([rollout.rollout_id]))
            cursor = (await store.get_changes())[-1].cursor
            watching = asyncio.ensure_future(store.get_changes(cursor, timeout=None))
            await asyncio.sleep(0.5)
            assert not waiting.done()
            await local.update_rollout(rollout.rollout_id, status="cancelled")
            assert [ended.status for ended in await waiting] == ["cancelled"]
            assert [change.status for change in await watching] == ["cancelled"]


async def test_an_outcome_never_overtakes_the_spans_before_it(
    local: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(span_mailbox, "MAX_BYTES", 1)  # each span is a request
    with served(local) as server:
        async with HttpStore(server.url) as store:
            started = await store.start_rollout("x")
            await asyncio.gather(
                *(store.add_span(make_call_span(started.attempt, i)) for i in range(5)),
                store.update_attempt(started.rollout_id, "latest", status="succeeded"),
            )
    kinds = [(change.kind, change.status) for change in await local.get_changes()]
    assert kinds.count(("spans", None)) == 5
    assert kinds[-2:] == [("attempt", "succeeded"), ("rollout", "succeeded")]


async def test_one_wrong_span_among_those_that_share_a_request_fails_alone(local: LocalStore) -> None:
    with served(local) as server:
        async with HttpStore(server.url) as store:
            started = await store.start_rollout("x")
            good = [make_call_span(started.attempt, i) for i in range(6)]
            wrong = replace(good[0], attempt_id="nobody")
            results = await asyncio.gather(
                *(store.add_span(span) for span in (*good[:3], wrong, *good[3:], good[0])),
                return_exceptions=True,
            )
    assert isinstance(results[3], UnknownAttempt)
    assert [result is None for result in results] == [False] * 7 + [True]


async def test_more_spans_than_one_request_may_carry_travel_in_several(
    local: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(span_mailbox, "MAX_BYTES", 2000)
    with served(local, max_body_bytes=5000) as server:
        async with HttpStore(server.url) as store:
            started = await store.start_rollout("x")
            spans = [make_call_span(started.attempt, i) for i in range(1, 51)]
            assert await store.add_many_spans(spans[20:30]) == spans[20:30]
            assert await store.add_many_spans(spans) == spans[:20] + spans[30:]
            assert len(await store.query_spans(started.rollout_id)) == 50


async def test_a_group_is_read_from_elsewhere(local: LocalStore) -> None:
    await fill_group(local, "g/é", num_rollouts=2, num_spans=3)
    with served(local, tokens=["secret"]) as server:
        async with HttpStore(server.url, token="secret") as store:
            (handle,) = await store.take_groups(1)
            assert "secret" not in repr(handle)
            travelled = pickle.loads(pickle.dumps(handle))
            group = await asyncio.to_thread(read_group, travelled)
            assert handle.num_tokens == 12
            assert [len(member.spans) for member in group.rollouts] == [3, 3]
            stranger = replace(handle, ref=replace(handle.ref, token="wrong"))
            with pytest.raises(InvalidValue, match="the token is missing or wrong"):
                await asyncio.to_thread(read_group, stranger)


async def test_a_pickled_store_reaches_the_same_server(local: LocalStore) -> None:
    with served(local, tokens=["secret"]) as server:
        async with HttpStore(server.url, token="secret") as store:
            await store.enqueue_rollout("x", rollout_id="r")
            async with pickle.loads(pickle.dumps(store)) as other:
                assert [rollout.rollout_id for rollout in await other.query_rollouts()] == ["r"]


async def test_the_token_may_come_from_the_environment(
    local: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(local, tokens=["secret"]) as server:
        async with HttpStore(server.url) as store:
            with pytest.raises(InvalidValue, match="the token is missing or wrong"):
                await store.statistics()
        monkeypatch.setenv("RAYBOLT_STORE_TOKEN", "secret")
        async with HttpStore(server.url) as store:
            assert (await store.statistics())["spans"] == 0


async def test_requests_wait_for_a_server_that_comes_back(local: LocalStore) -> None:
    with served(local) as server:
        port = int(server.url.rsplit(":", 1)[1])
    async with HttpStore(server.url) as store:
        asking = asyncio.ensure_future(store.enqueue_rollout("x", rollout_id="r"))
        await asyncio.sleep(0.3)
        assert not asking.done()
        with serve(local, port=port):
            assert (await asking).rollout_id == "r"


async def test_a_server_that_stays_away_is_an_error_that_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    async with HttpStore(f"http://127.0.0.1:{port}", retry_seconds=0.2) as store:
        with pytest.raises(StoreError, match=r"cannot be reached .*; is `raybolt store serve` running there"):
            await store.statistics()
    with pytest.raises(StoreError, match="is closed; make a new HttpStore"):
        await store.statistics()


async def test_another_web_server_is_not_taken_for_a_store() -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with HTTPServer(("127.0.0.1", 0), Other) as other:
        thread = threading.Thread(target=other.handle_request)
        thread.start()
        async with HttpStore(f"http://127.0.0.1:{other.server_port}") as store:
            with pytest.raises(StoreError, match=r"status 404; is it the server of a store\?"):
                await store.statistics()
        thread.join()


async def test_compression_goes_both_ways(local: LocalStore) -> None:
    with served(local) as server:
        async with HttpStore(server.url, compress=True) as store:
            started = await store.start_rollout("a" * 5000)
            spans = [make_call_span(started.attempt, i) for i in range(100)]
            assert len(await store.add_many_spans(spans)) == 100
            assert len(await store.query_spans(started.rollout_id)) == 100
            assert [rollout.input for rollout in await store.query_rollouts()] == ["a" * 5000]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
async def test_tls_with_a_certificate_of_ones_own(local: LocalStore, tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    subprocess.run(
        [*command, "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=here",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    await fill_group(local, "g", num_rollouts=1)
    with served(local, cert=cert, key=key) as server:
        assert server.url.startswith("https://127.0.0.1:")
        async with HttpStore(server.url, ca=cert) as store:
            handle = await store.get_group("g")
            assert (await asyncio.to_thread(read_group, handle)).group_id == "g"
        async with HttpStore(server.url) as stranger:
            with pytest.raises(StoreError, match="cannot be trusted"):
                await stranger.statistics()
    locked = tmp_path / "locked.pem"
    subprocess.run(
        ["openssl", "pkey", "-in", key, "-out", locked, "-aes128", "-passout", "pass:secret"], check=True
    )
    with pytest.raises(InvalidValue, match="the key has a passphrase; give one without"):
        serve(local, port=0, cert=cert, key=locked)
    with pytest.raises(InvalidValue, match="one of cert and key is missing"):
        serve(local, port=0, cert=cert)
    with pytest.raises(InvalidValue, match="cannot be used"):
        serve(local, port=0, cert=key, key=cert)


def test_it_works_from_several_threads_and_without_a_loop() -> None:
    with served() as server:
        store = HttpStore(server.url)

        def enqueue() -> None:
            for _ in range(10):
                blocking(store.enqueue_rollout("x"))

        async def enqueue_here() -> None:
            await asyncio.gather(*(store.enqueue_rollout("x") for _ in range(10)))

        threads = [threading.Thread(target=enqueue) for _ in range(3)]
        threads.append(threading.Thread(target=lambda: asyncio.run(enqueue_here())))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(blocking(store.query_rollouts())) == 40
        blocking(store.close())


async def test_capabilities_say_whether_the_server_keeps_a_journal(tmp_path: Path) -> None:
    for path, durable in ((None, False), (tmp_path, True)):
        async with LocalStore(path) as kept:
            with served(kept) as server:
                async with HttpStore(server.url) as store:
                    assert store.capabilities["durable"] is durable
                    assert store.capabilities["otlp_traces"] is True


def test_a_wrong_address_is_refused_at_once() -> None:
    with pytest.raises(
        InvalidValue, match=r"url is 'localhost:4747'; give one such as http://127\.0\.0\.1:4747"
    ):
        HttpStore("localhost:4747")


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("http://me:secret@host:4747", "has a user or a password in it, .*; give token"),
        ("http://host/store?key=1", r"give it without what begins with \? or #"),
        ("http://host/store#top", r"give it without what begins with \? or #"),
    ],
)
def test_an_address_with_more_than_a_path_is_refused_at_once(url: str, remedy: str) -> None:
    with pytest.raises(InvalidValue, match=remedy) as refused:
        HttpStore(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("token", ["secret\n", "secret\r\nX-Other: 1", "sec\0ret"])
def test_a_token_that_no_header_can_hold_is_refused_at_once(token: str) -> None:
    with pytest.raises(InvalidValue, match="token has a line break or the like") as refused:
        HttpStore("http://127.0.0.1:1", token=token)
    assert "secret" not in str(refused.value)


def test_importing_the_room_loads_no_web_framework() -> None:
    code = (
        "import sys, raybolt.store; print({'aiohttp', 'opentelemetry', 'pyarrow', 'ray'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


async def test_a_call_that_is_cancelled_leaves_the_store_usable(local: LocalStore) -> None:
    with served(local) as server:
        async with HttpStore(server.url) as store:
            rollout = await store.enqueue_rollout("x")
            waiting = asyncio.ensure_future(store.wait_for_rollouts([rollout.rollout_id]))
            await asyncio.sleep(0.1)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert len(await store.query_rollouts()) == 1


async def test_a_ray_store_can_be_served(ray_session: None, tmp_path: Path) -> None:
    from raybolt.store import RayStore

    behind = RayStore.create(tmp_path, name="served-over-http", num_shards=2)
    with serve(behind, port=0) as server:
        async with HttpStore(server.url) as store:
            assert store.capabilities["durable"] is True
            await fill_group(store, "g", num_rollouts=2, num_spans=2)
            (handle,) = await store.take_groups(1)
            group = await asyncio.to_thread(read_group, handle)
            assert [len(member.spans) for member in group.rollouts] == [2, 2]
    await behind.destroy()


async def test_a_wait_over_a_restart_of_the_server_asks_for_the_time_that_is_left() -> None:
    asked: list[float] = []

    class Watched(LocalStore):
        async def _reach(self, operation: str, arguments: dict[str, Any]) -> Any:
            if operation == "wait_for_rollouts":
                asked.append(arguments["timeout"])
            return await super()._reach(operation, arguments)

    async with Watched(None) as local:
        await local.enqueue_rollout("x", rollout_id="r")
        server = serve(local, port=0)
        async with HttpStore(server.url) as store:
            waiting = asyncio.ensure_future(store.wait_for_rollouts(rollout_ids=["r"], timeout=3.0))
            while not asked:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)
            await asyncio.to_thread(server.close)  # which cuts what is under way
            with serve(local, port=int(server.url.rpartition(":")[2])):
                assert await waiting == []
    assert asked[0] > 2.9
    assert 0 <= asked[1] <= asked[0] - 0.3

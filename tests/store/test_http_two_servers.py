"""Two server processes over one store on Ray are one store, also when one of them is killed."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import pytest
from store_samples import fill_group, make_call_span

from raybolt.store import AttemptedRollout, HttpStore, RolloutConfig, StoreError, read_group
from raybolt.store.routes import BY_OPERATION
from raybolt.store.wire import dump

T = TypeVar("T")
NUM_CLIENTS, NUM_ROLLOUTS, SPANS_EACH = 4, 40, 6
KILLED_AFTER = 10
"""Rollouts that have ended when one of the servers is killed."""


@dataclass
class Server:
    """A process of `raybolt store serve`."""

    process: subprocess.Popen[str]
    url: str


def start_server(name: str) -> Server:
    """Runs the command on Ray's store of this name; returns when it says where it serves it."""
    import ray

    process = subprocess.Popen(
        [sys.executable, "-m", "raybolt.cli", "store", "serve", f"ray://{name}", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address},
    )
    assert process.stdout is not None
    said = process.stdout.readline()
    found = re.match(rf"serving ray://{name} at (http://\S+);", said)
    assert found, said
    return Server(process, found[1])


@pytest.fixture
async def servers(ray_session: None, tmp_path: Path) -> AsyncIterator[Sequence[Server]]:
    from raybolt.store import RayStore

    store = RayStore.create(tmp_path, name=f"served-{uuid4().hex}", num_shards=2)
    started = await asyncio.gather(*(asyncio.to_thread(start_server, store.name) for _ in range(2)))
    yield started
    for server in started:
        server.process.kill()
        server.process.communicate()
    await store.destroy()


class Client:
    """Asks the servers in turn and, once one is gone, the other for what the one left unanswered."""

    def __init__(self, servers: Sequence[Server], first: int) -> None:
        order = [servers[(first + index) % len(servers)] for index in range(len(servers))]
        self._stores = [HttpStore(server.url, retry_seconds=0.2) for server in order]
        self._gone: list[HttpStore] = []

    async def ask(self, call: Callable[[HttpStore], Awaitable[T]]) -> T:
        self._stores.append(self._stores.pop(0))
        while True:
            try:
                return await call(self._stores[0])
            except StoreError:
                self._gone.append(self._stores.pop(0))
                assert self._stores, "both servers are gone"

    async def close(self) -> None:
        for store in (*self._stores, *self._gone):
            await store.close()


async def work(client: Client, worker_id: str, acknowledged: dict[str, list[str]]) -> None:
    """Runs rollouts until all have ended; notes the spans that a server said it has, by attempt."""
    while True:
        taken = await client.ask(lambda store: store.dequeue_rollout(worker_id))
        if taken is not None:
            await run(client, taken, acknowledged)
        elif await client.ask(num_succeeded) == NUM_ROLLOUTS:
            return
        else:
            await asyncio.sleep(0.05)


async def num_succeeded(store: HttpStore) -> int:
    found: int = (await store.statistics())["rollouts"].get("succeeded", 0)
    return found


async def run(client: Client, taken: AttemptedRollout, acknowledged: dict[str, list[str]]) -> None:
    for number in range(1, SPANS_EACH + 1):
        span = make_call_span(taken.attempt, number)
        await client.ask(lambda store, span=span: store.add_span(span))  # type: ignore[misc]
        acknowledged.setdefault(taken.attempt.attempt_id, []).append(span.span_id)
    await client.ask(
        lambda store: store.update_attempt(taken.rollout_id, taken.attempt.attempt_id, status="succeeded")
    )


async def test_clients_of_two_server_processes_lose_nothing_when_one_is_killed(
    servers: Sequence[Server],
) -> None:
    one, two = servers
    limits = RolloutConfig(unresponsive_seconds=3.0, max_attempts=9, retry_condition=("unresponsive",))
    clients = [Client(servers, first=index) for index in range(NUM_CLIENTS)]
    acknowledged: dict[str, list[str]] = {}
    async with HttpStore(two.url) as store:
        for index in range(NUM_ROLLOUTS):
            await store.enqueue_rollout(index, rollout_id=f"r{index}", config=limits)
        workers = [
            asyncio.create_task(work(client, f"w{index}", acknowledged))
            for index, client in enumerate(clients)
        ]
        while await num_succeeded(store) < KILLED_AFTER:
            assert not any(worker.done() for worker in workers)
            await asyncio.sleep(0.01)
        one.process.kill()
        # The rollout of a dequeue whose answer was lost is silent, and thus run by another.
        await asyncio.gather(*workers)
        assert all(len(client._gone) == 1 for client in clients)

        kept: dict[str, list[str]] = {}
        for index in range(NUM_ROLLOUTS):
            attempts = await store.query_attempts(f"r{index}")
            assert sum(attempt.status == "succeeded" for attempt in attempts) >= 1
            for span in await store.query_spans(f"r{index}"):
                kept.setdefault(span.attempt_id, []).append(span.span_id)
        assert {each: sorted(kept[each]) for each in acknowledged} == {
            each: sorted(span_ids) for each, span_ids in acknowledged.items()
        }
        assert (
            (await store.statistics())["spans"] == sum(map(len, kept.values())) >= NUM_ROLLOUTS * SPANS_EACH
        )
    for client in clients:
        await client.close()


async def test_two_server_processes_are_one_store(servers: Sequence[Server]) -> None:
    async with HttpStore(servers[0].url) as one, HttpStore(servers[1].url) as two:
        started = await one.start_rollout("x", rollout_id="r")
        await one.add_span(make_call_span(started.attempt, 1))
        await two.add_span(make_call_span(started.attempt, 2))
        assert await one.add_span(make_call_span(started.attempt, 2)) is None
        assert [span.sequence_id for span in await one.query_spans("r")] == [1, 2]
        assert [span.sequence_id for span in await two.query_spans("r")] == [1, 2]
        waiting = asyncio.create_task(one.wait_for_rollouts(["r"], timeout=60))
        await two.update_attempt("r", started.attempt.attempt_id, status="succeeded")
        assert [ended.status for ended in await waiting] == ["succeeded"]

        for index in range(12):
            await fill_group((one, two)[index % 2], f"g{index}", num_rollouts=2)
        await check_that_groups_are_taken_once(one, two)
        await check_that_repetitions_are_harmless(one, two)


async def check_that_groups_are_taken_once(one: HttpStore, two: HttpStore) -> None:
    async def take(store: HttpStore) -> list[str]:
        taken = []
        while handles := await store.take_groups(1):
            (handle,) = handles
            group = await asyncio.to_thread(read_group, handle)
            assert len(group.rollouts) == 2
            taken.append(handle.group_id)
        return taken

    taken = await asyncio.gather(take(one), take(two), take(one), take(two))
    assert sorted(group_id for each in taken for group_id in each) == sorted(
        f"g{index}" for index in range(12)
    )


async def check_that_repetitions_are_harmless(one: HttpStore, two: HttpStore) -> None:
    """What one server carried out but could not answer is sent to the other: each question has its ids."""
    queued = [await one.enqueue_rollout(index, rollout_id=f"q{index}") for index in range(4)]
    assert [each.status for each in queued] == ["queuing"] * 4
    before = await one.statistics()
    questions = [
        ("dequeue", {"limit": 2, "worker_id": "w", "claim": "c"}),
        ("start_rollout", {"request": {"input": "y", "rollout_id": "s"}, "attempt_id": "at-s"}),
    ]
    for operation, body in questions:
        answers = [await posted(store, BY_OPERATION[operation].path, body) for store in (one, two, one)]
        assert answers[0] == answers[1] == answers[2]
    after = await two.statistics()
    assert after["total_rollouts"] - before["total_rollouts"] == 1
    assert after["total_attempts"] - before["total_attempts"] == 3


async def posted(store: HttpStore, path: str, body: object) -> bytes:
    import aiohttp

    async with (
        aiohttp.ClientSession(headers={"Idempotency-Key": "the same"}) as session,
        session.post(
            f"{store.url}{path}", data=dump(body), headers={"Content-Type": "application/json"}
        ) as answer,
    ):
        assert answer.status == 200, await answer.text()
        return await answer.read()

"""A store behind a reverse proxy: below a path, through restarts and broken answers, on two servers."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urljoin

import aiohttp
import pytest
from store_http import Reply, request, served
from store_proxy import Ways, proxied
from store_samples import fill_group, make_call_span

from raybolt.store import HttpStore, LightningStore, LocalStore, UnknownGroup, read_group, serve
from raybolt.store.check import check_store
from raybolt.store.check.deletion import DELETION
from raybolt.store.check.spans import SPANS

WAYS = {
    "buffering": Ways(),
    "streaming": Ways(prefix="/a/b", buffers=False),
    "compressing": Ways(zips=True),
    "as nginx": Ways(rewrites_paths=True),
}
HOSTILE_IDS = ["g/1", "../g", "a//b", "~x", "..", "100%", "%2F", "é ?#&=", "g"]


@pytest.fixture
async def local() -> AsyncIterator[LocalStore]:
    async with LocalStore() as store:
        yield store


@pytest.mark.parametrize("ways", WAYS.values(), ids=WAYS.keys())
async def test_groups_of_any_name_are_written_taken_and_read_through_it(
    local: LocalStore, ways: Ways
) -> None:
    with served(local, tokens=["secret"]) as server, proxied([server.url], ways) as proxy:
        async with HttpStore(f"{proxy.url}/", token="secret", compress=ways.zips) as store:
            for name in HOSTILE_IDS:
                await fill_group(store, name, num_rollouts=1, num_spans=40)
                assert (await store.get_group(name)).group_id == name
                await store.update_worker(name)
                assert (await store.get_worker_by_id(name)) is not None
            handles = await store.take_groups(len(HOSTILE_IDS), lease_seconds=60)
            groups = [await asyncio.to_thread(read_group, handle) for handle in handles]
            await store.acknowledge_groups(handles)
            with pytest.raises(UnknownGroup, match="'n/one'"):
                await store.get_group("n/one")
    assert [group.group_id for group in groups] == HOSTILE_IDS
    assert [len(group.rollouts[0].spans) for group in groups] == [40] * len(HOSTILE_IDS)


async def test_the_description_names_the_place_it_is_read_from(local: LocalStore) -> None:
    ways = Ways(prefix="/tools/store")
    with served(local) as server, proxied([server.url], ways) as proxy:
        async with aiohttp.ClientSession() as web:
            async with web.get(f"{proxy.url}/openapi.json") as answer:
                described = await answer.json()
            async with web.get(f"{proxy.url}/docs") as answer:
                page = await answer.text()
            (described_at,) = described["servers"]
            base = urljoin(f"{proxy.url}/openapi.json", described_at["url"])
            assert base == f"{proxy.url}/"
            async with web.get(base.rstrip("/") + "/v1/statistics") as answer:
                assert (await answer.json())["total_rollouts"] == 0
    assert 'href="openapi.json"' in page


async def work(store: LightningStore, worker_id: str, num_rollouts: int) -> Counter[str]:
    """Queues and runs as many rollouts; returns how many spans each of those it ran was given."""
    given: Counter[str] = Counter()
    for _ in range(num_rollouts):
        await store.enqueue_rollout(worker_id)
        taken = await store.dequeue_rollout(worker_id)
        if taken is None:  # another was quicker, and has it
            continue
        spans = [make_call_span(taken.attempt, number) for number in range(1, 6)]
        await asyncio.gather(store.add_many_spans(spans[:3]), store.add_span(spans[3]))
        await store.add_span(spans[4])
        await store.update_attempt(taken.rollout_id, taken.attempt.attempt_id, status="succeeded")
        given[taken.rollout_id] += len(spans)
    return given


async def check_nothing_lost_or_doubled(
    store: LightningStore, num_rollouts: int, given: Sequence[Counter[str]]
) -> None:
    rollouts = await store.query_rollouts()
    assert len(rollouts) == num_rollouts
    ran = [rollout_id for each in given for rollout_id in each]
    assert len(ran) == len(set(ran))
    assert {each.rollout_id for each in rollouts if each.status == "succeeded"} == set(ran)
    assert {each.status for each in rollouts} <= {"succeeded", "queuing"}
    for rollout_id in ran:
        assert len(await store.query_attempts(rollout_id)) == 1
        numbers = [span.sequence_id for span in await store.query_spans(rollout_id)]
        assert numbers == [1, 2, 3, 4, 5]
    assert (await store.statistics())["spans"] == 5 * len(ran)


async def run_workers(urls: Sequence[str], num_each: int) -> list[Counter[str]]:
    """Four workers at the same time, over the addresses in turn."""
    stores = [HttpStore(urls[number % len(urls)]) for number in range(4)]
    try:
        return await asyncio.gather(
            *(work(store, f"worker-{number}", num_each) for number, store in enumerate(stores))
        )
    finally:
        await asyncio.gather(*(store.close() for store in stores))


async def test_answers_that_break_off_cost_nothing_and_double_nothing(local: LocalStore) -> None:
    with served(local) as server, proxied([server.url], Ways(cuts_every=3)) as proxy:
        given = await run_workers([proxy.url], 6)
        assert proxy.num_cut > 20
        await check_nothing_lost_or_doubled(local, 24, given)


async def test_a_block_is_fetched_again_when_its_answer_breaks_off(local: LocalStore) -> None:
    await fill_group(local, "g", num_rollouts=2, num_spans=3)
    with served(local) as server, proxied([server.url], Ways(cuts_every=0)) as proxy:
        async with HttpStore(proxy.url) as store:
            (handle,) = await store.take_groups(1)
            proxy.ways.cuts_every = 2
            groups = [await asyncio.to_thread(read_group, handle) for _ in range(4)]
    assert [sum(len(each.spans) for each in group.rollouts) for group in groups] == [6] * 4
    assert proxy.num_cut >= 3


async def test_a_server_that_restarts_behind_its_proxy_is_waited_for(local: LocalStore) -> None:
    await fill_group(local, "g", num_rollouts=1, num_spans=3)
    with served(local) as first, proxied([first.url], Ways()) as proxy:
        async with HttpStore(proxy.url) as store:
            (handle,) = await store.take_groups(1)
            first.close()
            asking = asyncio.ensure_future(store.enqueue_rollout("x", rollout_id="r"))
            reading = asyncio.ensure_future(asyncio.to_thread(read_group, handle))
            while proxy.num_unavailable < 2:
                await asyncio.sleep(0.01)
            assert not asking.done()
            assert not reading.done()
            with serve(local, port=int(first.url.rsplit(":", 1)[1])):
                assert (await asking).rollout_id == "r"
                assert len((await reading).rollouts[0].spans) == 3


async def test_two_servers_of_one_ray_store_are_one_store(ray_session: None, tmp_path: Path) -> None:
    from raybolt.store import RayStore

    behind = RayStore.create(tmp_path, name="served-twice", num_shards=2)
    with (
        serve(behind, port=0) as one,
        serve(behind, port=0) as two,
        proxied([one.url, two.url], Ways(cuts_every=5)) as proxy,
    ):
        given = await run_workers([proxy.url, one.url, proxy.url, two.url], 6)
        assert min(proxy.num_by_server.values()) > 10
        async with HttpStore(two.url) as store:
            await check_nothing_lost_or_doubled(store, 24, given)
            await fill_group(store, "g", num_rollouts=2)
            (handle,) = await store.take_groups(1)
            elsewhere = replace(handle, ref=replace(handle.ref, url=handle.ref.url.replace(two.url, one.url)))
            for each in (handle, elsewhere):
                assert len((await asyncio.to_thread(read_group, each)).rollouts) == 2
    await behind.destroy()


@asynccontextmanager
async def store_behind_the_worst() -> AsyncIterator[LightningStore]:
    """A new store behind a proxy that does all there is, and loses every third answer."""
    ways = Ways(rewrites_paths=True, zips=True, cuts_every=3)
    async with LocalStore() as local:
        with served(local) as server, proxied([server.url], ways) as proxy:
            async with HttpStore(proxy.url, compress=True) as store:
                yield store


async def test_callers_do_not_notice_that_answers_were_lost() -> None:
    report = await check_store(store_behind_the_worst, (*SPANS, *DELETION))  # whose answers tell repetitions
    assert not report.broken, str(report)


async def test_a_request_with_a_name_is_carried_out_once(local: LocalStore) -> None:
    with served(local) as server:

        def enqueue(name: str) -> Reply:
            body = {"requests": [{"input": "x"}]}
            return request(server, "POST", "/v1/rollouts", body, headers={"Idempotency-Key": name})

        answers = await asyncio.gather(*(asyncio.to_thread(enqueue, name) for name in "aabba"))
        refused = [
            await asyncio.to_thread(
                request, server, "POST", "/v1/rollouts", body, headers={"Idempotency-Key": "c"}
            )
            for body in ({}, {"requests": [{"input": "x"}]})
        ]
    assert len({answer.body for answer in answers}) == 2
    assert [answer.status for answer in refused] == [400, 200]
    assert len(await local.query_rollouts()) == 3

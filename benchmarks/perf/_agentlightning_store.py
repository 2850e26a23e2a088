"""Agent Lightning's store under the load of `store_comparison`. Run by path, with a Python that has it."""

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from agentlightning.store.client_server import LightningStoreClient, LightningStoreServer
from agentlightning.store.memory import InMemoryLightningStore
from agentlightning.types import OtelResource, Span, TraceStatus


def make_span(rollout_id: str, attempt_id: str, number: int) -> Span:
    """A call's span with 900 token ids, as lists: this store keeps no arrays."""
    return Span(
        rollout_id=rollout_id,
        attempt_id=attempt_id,
        sequence_id=number,
        trace_id="0" * 32,
        span_id=f"{number:016x}",
        parent_id=None,
        name="chat",
        status=TraceStatus(status_code="OK"),
        attributes={"prompt_ids": list(range(450)), "response_ids": list(range(450)), "text": "x" * 300},
        events=[],
        links=[],
        start_time=1.0,
        end_time=2.0,
        context=None,
        parent=None,
        resource=OtelResource(attributes={}, schema_url=""),
    )


async def one_by_one(store: Any, spans: list[Span]) -> None:
    for span in spans:
        await store.add_span(span)


async def at_once(store: Any, spans: list[Span]) -> None:
    free = asyncio.Semaphore(64)

    async def one(span: Span) -> None:
        async with free:
            await store.add_span(span)

    await asyncio.gather(*map(one, spans))


async def in_batches(store: Any, spans: list[Span]) -> None:
    for start in range(0, len(spans), 20):
        await store.add_many_spans(spans[start : start + 20])


async def tokens(store: Any, rollout_id: str, attempt_id: str) -> list[Any]:
    spans = await store.query_spans(rollout_id, attempt_id)
    return [span.attributes["prompt_ids"] for span in spans]


QUERIES = {
    "query_spans": lambda store, rollout_id, attempt_id: store.query_spans(rollout_id, attempt_id),
    "read_tokens": tokens,
    "query_last_span": lambda store, rollout_id, attempt_id: store.query_spans(
        rollout_id, attempt_id, sort_by="start_time", sort_order="desc", limit=1
    ),
    "get_rollout_by_id": lambda store, rollout_id, _: store.get_rollout_by_id(rollout_id),
    "query_rollouts": lambda store, *_: store.query_rollouts(status_in=["running"], limit=10),
}
NUM_ATTEMPTS, PER_ATTEMPT, PASSES = 50, 20, 10


async def measure(store: Any, num_spans: int, parts: int) -> dict[str, float]:
    """Spans or queries a second, by operation; the spans are made beforehand, and each part has its turn."""
    rates = {}
    works = {"add_span": one_by_one, "add_span_concurrent": at_once, "add_many_spans": in_batches}
    size = num_spans // parts
    wait_for_turn()
    for operation, work in works.items():
        started = await store.start_rollout({"n": 1})
        ids = started.rollout_id, started.attempt.attempt_id
        spans = [make_span(*ids, number) for number in range(num_spans)]
        times = [await seconds(work(store, spans[at : at + size])) for at in range(0, num_spans, size)]
        rates[operation] = num_spans / sum(times)
    attempts = []
    for _ in range(NUM_ATTEMPTS):
        started = await store.start_rollout({"n": 1})
        attempts.append((started.rollout_id, started.attempt.attempt_id))
        await store.add_many_spans([make_span(*attempts[-1], number) for number in range(PER_ATTEMPT)])
    for operation, query in QUERIES.items():
        asked = attempts * (PASSES // parts)
        times = [await seconds(each(store, query, asked)) for _ in range(parts)]
        rates[operation] = parts * len(asked) / sum(times)
    return rates


async def each(store: Any, query: Callable[..., Awaitable[Any]], attempts: list[tuple[str, str]]) -> None:
    for ids in attempts:
        await query(store, *ids)


async def seconds(work: Awaitable[None]) -> float:
    start = time.perf_counter()
    await work
    taken = time.perf_counter() - start
    wait_for_turn()
    return taken


def wait_for_turn() -> None:
    """Lets the others work, and blocks until it is this process's turn again."""
    print("TURN", flush=True)
    input()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["local", "serve", "http"])
    parser.add_argument("--port", type=int)
    parser.add_argument("--spans", type=int)
    parser.add_argument("--parts", type=int)
    arguments = parser.parse_args()
    if arguments.role == "serve":
        server = LightningStoreServer(InMemoryLightningStore(), "127.0.0.1", arguments.port)
        await server.start()
        await asyncio.Event().wait()
    elif arguments.role == "http":
        client = LightningStoreClient(f"http://127.0.0.1:{arguments.port}")
        print("RATES", json.dumps(await measure(client, arguments.spans, arguments.parts)))
        await client.close()
    else:
        print("RATES", json.dumps(await measure(InMemoryLightningStore(), arguments.spans, arguments.parts)))


asyncio.run(main())

"""The store as a whole: counts, and errors that are the same everywhere."""

import asyncio
import pickle

from raybolt.store.base import LightningStore
from raybolt.store.check.rules import check, expect, expect_that
from raybolt.store.check.samples import enqueue_some, fill_group, take_one
from raybolt.store.errors import (
    InvalidTransition,
    InvalidValue,
    RayboltError,
    StoreError,
    UnknownAttempt,
    UnknownGroup,
    UnknownResources,
    UnknownRollout,
)


@check("statistics counts everything, and gives the same under Agent Lightning's names")
async def statistics(store: LightningStore) -> None:
    await fill_group(store, "g", num_rollouts=1)
    await store.enqueue_rollout("waiting")
    await store.start_rollout("at work")
    await store.update_worker("another")
    await store.add_resources({"p": 1})
    counts = dict(await store.statistics())
    for name in ("uptime", "total_span_bytes", "oldest_queued_seconds", "num_shards"):
        value = counts.pop(name, None)
        expect_that(isinstance(value, int | float) and value > 0, name, expected="more than 0", seen=value)
    expected = {
        "name": type(store).__name__,
        "rollouts": {"succeeded": 1, "preparing": 1, "queuing": 1},
        "attempts": 2,
        "attempts_in_flight": 1,
        "queued": 1,
        "spans": 1,
        "groups": {"complete": 1},
        "lost": {"requeued": [], "failed": []},
        "total_rollouts": 3,
        "total_attempts": 2,
        "total_spans": 1,
        "total_resources": 1,
        "total_workers": 2,
    }
    expect({name: counts.get(name) for name in expected}, expected, "the counts")
    size = counts.get("journal_bytes")
    in_folder = store.capabilities["durable"]
    expect_that(
        isinstance(size, int) and (size > 0) == in_folder,
        "journal_bytes",
        expected="more than 0 in a folder, 0 in memory",
        seen=size,
    )
    await take_one(store)
    emptied = await store.statistics()
    seen = [emptied[name] for name in ("queued", "oldest_queued_seconds", "attempts_in_flight")]
    expect(seen, [0, None, 2], "queue, wait and attempts in flight once the last was taken")


@check("Errors are of one tree: the store's are StoreErrors, all that say no are ValueErrors, all travel")
async def errors(store: LightningStore) -> None:
    for kind in (UnknownRollout, UnknownAttempt, UnknownGroup, UnknownResources, InvalidTransition):
        expect(
            issubclass(kind, StoreError) and issubclass(kind, ValueError), True, f"kind of {kind.__name__}"
        )
    expect(
        issubclass(InvalidValue, RayboltError) and issubclass(InvalidValue, ValueError), True, "InvalidValue"
    )
    try:
        await store.update_attempt("nobody", "latest", "failed")
    except UnknownRollout as error:
        copy = pickle.loads(pickle.dumps(error))
        expect((type(copy), str(copy)), (UnknownRollout, str(error)), "an error that was sent to a process")
    else:
        expect("no error", "UnknownRollout", "an unknown rollout")


@check("One caller's mistake is no other caller's")
async def mistakes_stay_with_their_caller(store: LightningStore) -> None:
    await enqueue_some(store, 1)
    answers = await asyncio.gather(
        store.get_rollout_by_id("r0"),
        store.update_rollout("nobody", mode=None),
        store.update_rollout("r0", status="cancelled"),
        store.query_spans("nobody"),
        store.query_rollouts(),
        return_exceptions=True,
    )
    kinds = [type(answer).__name__ for answer in answers]
    expect(kinds, ["Rollout", "UnknownRollout", "Rollout", "UnknownRollout", "list"], "the answers")


WHOLE = (statistics, errors, mistakes_stay_with_their_caller)

"""The feed of changes."""

import asyncio

from raybolt.store.base import START, LightningStore
from raybolt.store.check.rules import check, expect, expect_that, refused
from raybolt.store.check.samples import enqueue_some, fill_group, make_span, run_one
from raybolt.store.errors import InvalidValue
from raybolt.store.types import Change


async def _all(store: LightningStore, cursor: str = START, limit: int = 1000) -> list[Change]:
    """Every change behind the cursor, page by page."""
    found: list[Change] = []
    while page := await store.get_changes(cursor, limit=limit):
        found += page
        cursor = page[-1].cursor
    return found


def _by_rollout(changes: list[Change]) -> dict[str | None, list[tuple[str, str | None]]]:
    """What happened to each rollout, in order; rollouts of several shards have no order among them."""
    found: dict[str | None, list[tuple[str, str | None]]] = {}
    for change in changes:
        found.setdefault(change.rollout_id, []).append((change.kind, change.status))
    return found


@check("Every change of a rollout, its attempt, its spans and its group is told, in order")
async def what_is_told(store: LightningStore) -> None:
    await store.declare_group("g", 1)
    await store.enqueue_rollout("x", rollout_id="r", group_id="g")
    taken = await run_one(store, num_spans=2)
    await store.take_groups(1)
    await store.delete_rollouts(["r"])
    attempt_id = taken.attempt.attempt_id
    changes = await _all(store)
    expect(
        [c.status for c in changes if c.kind == "rollout"],
        ["queuing", "preparing", "running", "succeeded"],
        "the changes of the rollout",
    )
    expect(
        [c.status for c in changes if c.kind == "attempt"],
        ["preparing", "running", "succeeded"],
        "the changes of the attempt",
    )
    (spans,) = [c for c in changes if c.kind == "spans"]
    expect((spans.rollout_id, spans.attempt_id), ("r", attempt_id), "whose spans came")
    expect(spans.span_ids, ("span-1", "span-2"), "which spans came")
    groups = [(c.group_id, c.status) for c in changes if c.kind == "group"]
    expect(groups, [("g", "open"), ("g", "complete"), ("g", "taken")], "the changes of the group")
    gone = [(c.rollout_id, c.group_id) for c in changes[-2:] if c.kind == "deleted"]
    expect(gone, [("r", None), (None, "g")], "what is told to be gone, at the end")


@check("New resources are told")
async def resources_are_told(store: LightningStore) -> None:
    await store.add_resources({"a": 1}, resources_id="rs")
    await store.update_resources("rs", {"a": 2})
    seen = [(c.kind, c.resources_id) for c in await _all(store)]
    expect(seen, [("resources", "rs")] * 2, "the changes")


@check("Reading goes on behind any cursor, whatever the size of the pages")
async def resumption(store: LightningStore) -> None:
    await enqueue_some(store, 12)
    await store.dequeue_many_rollouts(limit=5)
    whole = await _all(store)
    expect(len(whole), 22, "the changes: 12 rollouts, 5 of them and their attempts preparing")
    cursors = [change.cursor for change in whole]
    expect(len(set(cursors)), 22, "different cursors")
    for limit in (1, 3, 7):
        paged = await _all(store, limit=limit)
        expect(_by_rollout(paged), _by_rollout(whole), f"the changes, {limit} at a time")
    sizes = [len(await store.get_changes(limit=limit)) for limit in (0, 1, 3, 99)]
    expect(sizes, [0, 1, 3, 22], "how many come with limit=0, 1, 3 and 99")
    for index in (0, 4, 11, 21):
        rest = await _all(store, cursors[index])
        expect(len(rest), 21 - index, f"how many are behind the cursor of change {index + 1}")
        expect(
            sorted((c.kind, c.rollout_id, c.status) for c in rest if c.rollout_id),
            sorted((c.kind, c.rollout_id, c.status) for c in whole[index + 1 :] if c.rollout_id),
            "which are behind it",
        )
    expect(await store.get_changes(cursors[-1]), [], "behind the last")
    expect(await store.get_changes(cursors[-1], timeout=0.05), [], "behind the last, after a while")


@check("A cursor that the store did not give is refused")
async def unknown_cursors(store: LightningStore) -> None:
    await enqueue_some(store, 1)
    for cursor in ("1000000", "-1", "x", "", "1.2.3.4.5.6.7.8.9", "9" * 5000):
        with refused(InvalidValue, "cursor", repr(cursor)):
            await store.get_changes(cursor)
    expect(len(await store.get_changes(limit=10**12)) > 0, True, "that the largest limit gets changes")
    with refused(InvalidValue, "limit", "-1"):
        await store.get_changes(limit=-1)


@check("get_changes waits for the first change")
async def waiting_for_changes(store: LightningStore) -> None:
    await enqueue_some(store, 1)
    (change,) = await store.get_changes()
    waiting = asyncio.ensure_future(store.get_changes(change.cursor, timeout=60))
    await asyncio.sleep(0.05)
    expect(waiting.done(), False, "whether it waits")
    await store.update_rollout("r0", status="cancelled")
    expect([(c.rollout_id, c.status) for c in await waiting], [("r0", "cancelled")], "what it waited for")


@check("Subscribers miss nothing and get nothing twice while others write, wherever they begin again")
async def subscribers(store: LightningStore) -> None:
    num_writers, num_spans = 4, 12

    async def write(index: int) -> None:
        started = await store.start_rollout(index, rollout_id=f"r{index}")
        for number in range(num_spans):
            await store.add_span(make_span(started.attempt, number))
        await store.update_attempt(f"r{index}", "latest", "succeeded")

    async def read(stop_every: int) -> list[Change]:
        """Reads until all have ended, and begins anew after every so many changes."""
        seen: list[Change] = []
        while sum(c.kind == "rollout" and c.status == "succeeded" for c in seen) < num_writers:
            feed = store.subscribe(seen[-1].cursor if seen else START)
            async for change in feed:
                seen.append(change)
                done = change.kind == "rollout" and change.status == "succeeded"
                if len(seen) % stop_every == 0 or done:
                    break
            await feed.aclose()  # type: ignore[attr-defined]  # it is a generator
        return seen

    readers = [asyncio.ensure_future(read(stop_every)) for stop_every in (1000, 5)]
    await asyncio.gather(*(write(index) for index in range(num_writers)))
    first, second = await asyncio.wait_for(asyncio.gather(*readers), 90)
    for name, seen in (("one who reads on", first), ("one who begins again", second)):
        spans = sorted((c.rollout_id, id) for c in seen if c.kind == "spans" for id in c.span_ids)
        expected = sorted((f"r{i}", f"span-{n}") for i in range(num_writers) for n in range(num_spans))
        expect(spans, expected, f"the spans told to {name}")
        told = [(c.rollout_id, c.kind, c.status) for c in seen if c.kind != "spans"]
        expect(len(told), len(set(told)), f"different changes told to {name}")
        expect_that(len(told) >= 6 * num_writers, f"changes told to {name}", expected="24 or more", seen=told)


@check("Who takes a group finds it in the feed as taken, and as complete when its lease has run out")
async def leases_are_told(store: LightningStore) -> None:
    await fill_group(store, "g", num_rollouts=1)
    await store.take_groups(1, lease_seconds=0.1)
    cursor, told = START, list[str | None]()
    while told.count("complete") < 2:
        page = await store.get_changes(cursor, timeout=30)
        told += [change.status for change in page if change.kind == "group"]
        cursor = page[-1].cursor if page else cursor
        expect_that(bool(page), "the end of a lease", expected="a change", seen=told)
    expect(told, ["open", "complete", "taken", "complete"], "the group's changes")


CHANGES = (
    what_is_told,
    resources_are_told,
    resumption,
    unknown_cursors,
    waiting_for_changes,
    subscribers,
    leases_are_told,
)

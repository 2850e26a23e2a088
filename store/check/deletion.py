"""What may be deleted, and what goes with it."""

import asyncio

from raybolt.store.base import LightningStore
from raybolt.store.check.rules import check, expect, refused
from raybolt.store.check.samples import enqueue_some, fill_group, make_span, run_one
from raybolt.store.errors import InvalidTransition, InvalidValue, UnknownRollout


@check("An ended rollout is deleted with its attempts and spans; deleting it again does nothing")
async def deleted_with_everything(store: LightningStore) -> None:
    await enqueue_some(store, 2)
    for _ in range(2):
        await run_one(store, num_spans=3)
    expect(await store.delete_rollouts(["r0", "nobody", "r0"]), 1, "how many were deleted")
    expect(await store.delete_rollouts(["r0"]), 0, "how many the second time")
    expect(await store.get_rollout_by_id("r0"), None, "the deleted rollout")
    expect([r.rollout_id for r in await store.query_rollouts()], ["r1"], "the rollouts left")
    with refused(UnknownRollout, "'r0'"):
        await store.query_spans("r0")
    counts = await store.statistics()
    expect((counts["total_rollouts"], counts["attempts"], counts["spans"]), (1, 1, 3), "the counts")
    again = await store.enqueue_rollout("new", rollout_id="r0")
    expect(again.input, "new", "a rollout of the same id, made anew")
    started = await store.start_attempt("r0")
    expect(started.attempt.sequence_id, 1, "its first attempt")
    await store.add_span(make_span(started.attempt))
    expect(len(await store.query_spans("r0")), 1, "its spans")


@check("A rollout that goes on cannot be deleted, nor what is named together with it")
async def not_before_its_end(store: LightningStore) -> None:
    await enqueue_some(store, 4)
    await run_one(store)
    await store.update_rollout("r3", status="cancelled")
    for going_on in ("r1", "r2"):
        with refused(InvalidTransition, repr(going_on), "cancel"):
            await store.delete_rollouts(["r0", "r3", going_on])
    expect(len(await store.query_rollouts()), 4, "the rollouts left")
    expect(await store.delete_rollouts(["r0", "r3"]), 2, "how many of those that ended")


@check("A declared group keeps its rollouts until it is taken for good, and goes with the last of them")
async def not_before_the_group_is_taken(store: LightningStore) -> None:
    await fill_group(store, "g", num_rollouts=2)
    ids = [rollout.rollout_id for rollout in await store.query_rollouts()]
    with refused(InvalidTransition, repr(ids[0]), "'g'"):
        await store.delete_rollouts(ids)
    taken = await store.take_groups(1, lease_seconds=60)
    with refused(InvalidTransition, repr(ids[0]), "'g'"):
        await store.delete_rollouts(ids)
    await store.acknowledge_groups(taken)
    expect(await store.delete_rollouts(ids[:1]), 1, "how many once it is taken")
    expect((await store.get_group("g")).num_rollouts, 1, "the rollouts left in the group")
    expect(await store.delete_rollouts(ids[1:]), 1, "how many more")
    expect(await store.query_groups(), [], "the groups left")
    await fill_group(store, "g", num_rollouts=1)
    expect([handle.group_id for handle in await store.take_groups(5)], ["g"], "a group of the same name")


@check("An undeclared group does not count rollouts that were deleted")
async def undeclared_group(store: LightningStore) -> None:
    await store.enqueue_rollout("x", rollout_id="a", group_id="g")
    await run_one(store)
    await store.enqueue_rollout("y", rollout_id="b", group_id="g")
    await store.delete_rollouts(["a"])
    declared = await store.declare_group("g", 1)
    expect((declared.status, declared.num_ended, declared.num_succeeded), ("open", 0, 0), "the group")
    await run_one(store)
    expect([handle.num_rollouts for handle in await store.take_groups(1)], [1], "what can be taken at last")


@check("prune deletes what ended long enough ago, and nothing that is still wanted")
async def pruning(store: LightningStore) -> None:
    await enqueue_some(store, 3)
    await run_one(store)
    await run_one(store, status="failed")
    expect(await store.prune(3600), 0, "how many ended an hour ago")
    await asyncio.sleep(0.02)
    expect(await store.prune(0.01), 2, "how many ended a moment ago")
    expect([r.rollout_id for r in await store.query_rollouts()], ["r2"], "the rollouts left")
    await run_one(store)
    await fill_group(store, "wanted", num_rollouts=1)
    await asyncio.sleep(0.02)
    expect(await store.prune(0.01), 1, "how many, of which one belongs to a group that nobody took")
    with refused(InvalidValue, "older_than_seconds", "-1"):
        await store.prune(-1)
    await store.compact()
    expect(len(await store.query_rollouts()), 1, "the rollouts after compaction")


DELETION = (
    deleted_with_everything,
    not_before_its_end,
    not_before_the_group_is_taken,
    undeclared_group,
    pruning,
)

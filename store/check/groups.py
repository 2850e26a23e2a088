"""Groups: complete, handed out once, leased."""

import asyncio
from dataclasses import replace

from raybolt.store import names
from raybolt.store.base import LightningStore
from raybolt.store.check.rules import check, expect, expect_that, present, refused
from raybolt.store.check.samples import attempt_of, fill_group, rollout_of, run_one, take_one
from raybolt.store.errors import InvalidTransition, InvalidValue, UnknownGroup
from raybolt.store.types import EnqueueRolloutRequest, GroupHandle, RolloutConfig


def _ids(handles: list[GroupHandle]) -> list[str]:
    return [handle.group_id for handle in handles]


@check("A complete group is handed out once, with its counts")
async def handed_out_once(store: LightningStore) -> None:
    await store.declare_group("g", 3, task_id="t")
    await store.enqueue_many_rollouts(
        [EnqueueRolloutRequest(input=i, group_id="g", task_id="t") for i in range(3)]
    )
    await run_one(store, num_spans=2)
    await run_one(store, status="failed")
    expect(await store.take_groups(5), [], "what can be taken while one rollout goes on")
    last = await take_one(store)
    await store.update_rollout(last.rollout_id, status="cancelled")
    handles = await store.take_groups(5)
    expect(_ids(handles), ["g"], "what can be taken now")
    (handle,) = handles
    expect(handle.task_id, "t", "its task")
    expect((handle.num_rollouts, handle.num_succeeded, handle.num_spans), (3, 1, 3), "its counts")
    expect(handle.num_tokens, 6, "its sampled tokens")
    expect_that(handle.nbytes > 0, "nbytes", expected="more than 0", seen=handle.nbytes)
    expect(await store.take_groups(5), [], "what can be taken afterwards")
    (group,) = await store.query_groups(status_in=["taken"])
    expect((group.group_id, group.num_ended, group.num_succeeded), ("g", 3, 1), "the group's own counts")


@check("A taken group holds its rollouts, their last attempts and the spans of those")
async def contents(store: LightningStore) -> None:
    from raybolt.store.blocks import read_group  # loads Arrow

    await store.declare_group("g", 2)
    queued = await store.enqueue_rollout({"q": 1}, group_id="g", task_id="t", metadata={"k": [1]})
    await run_one(store, num_spans=2)
    never_run = await store.enqueue_rollout({"q": 2}, group_id="g")
    await store.update_rollout(never_run.rollout_id, status="cancelled")
    (handle,) = await store.take_groups(1)
    group = await asyncio.to_thread(read_group, handle)
    expect((group.group_id, group.task_id), ("g", "t"), "the group")
    run, cancelled = group.rollouts
    expect(run.rollout, await rollout_of(store, queued.rollout_id), "the rollout that ran")
    expect(run.attempt, await attempt_of(store, queued.rollout_id), "its attempt")
    expect([span.sequence_id for span in run.spans], [1, 2], "its spans")
    attributes = run.spans[1].attributes
    expect(attributes[names.PROMPT_IDS].tolist(), [5, 6, 7], "prompt ids")
    expect(attributes[names.LOGPROBS].tolist(), [-0.5, -0.25], "log-probabilities")
    expect(attributes[names.WEIGHTS_VERSION], 4, "a plain attribute")
    expect(
        (cancelled.rollout.status, cancelled.attempt, cancelled.spans), ("cancelled", None, ()), "the other"
    )


@check("Groups are handed out in order of completion, and by id")
async def order_of_completion(store: LightningStore) -> None:
    for group_id in ("d", "c", "b", "a"):
        await store.declare_group(group_id, 1)
    for group_id in ("a", "b", "c", "d"):
        await fill_group(store, group_id, num_rollouts=1)
    expect(_ids(await store.take_groups(2, group_id_in=["c", "nobody"])), ["c"], "by id")
    expect(_ids(await store.take_groups(2)), ["a", "b"], "the first completed")
    expect(_ids(await store.take_groups(2)), ["d"], "the last")
    expect((await store.get_group("a")).num_rollouts, 1, "a group, read again")
    expect(await store.take_groups(0), [], "none of none")
    with refused(InvalidValue, "limit", "-1"):
        await store.take_groups(-1)


@check("Takers at the same time get each group once, and none is left")
async def concurrent_takers_of_groups(store: LightningStore) -> None:
    for index in range(8):
        await fill_group(store, f"g{index}", num_rollouts=1)
    taken = await asyncio.gather(*(store.take_groups(2) for _ in range(5)))
    ids = sorted(group_id for handles in taken for group_id in _ids(handles))
    expect(ids, [f"g{index}" for index in range(8)], "the groups handed out")


@check("A group may be declared after its rollouts ended")
async def declared_late(store: LightningStore) -> None:
    await store.enqueue_rollout("x", group_id="g", task_id="t")
    await run_one(store)
    expect(await store.take_groups(1), [], "what can be taken before it is declared")
    declared = await store.declare_group("g", 1)
    expect((declared.status, declared.task_id), ("complete", "t"), "the group")
    present(declared.complete_time, "its complete_time")
    expect(len(await store.take_groups(1)), 1, "what can be taken")


@check("A retried rollout keeps its group open, and gives its last attempt")
async def retried_member(store: LightningStore) -> None:
    from raybolt.store.blocks import read_group

    await store.declare_group("g", 1)
    config = RolloutConfig(max_attempts=2, retry_condition=("failed",))
    await store.enqueue_rollout("x", group_id="g", config=config)
    await run_one(store, status="failed", num_spans=3)
    expect(await store.take_groups(1), [], "what can be taken before the retry")
    second = await run_one(store)
    (handle,) = await store.take_groups(1)
    (data,) = (await asyncio.to_thread(read_group, handle)).rollouts
    expect(present(data.attempt, "the attempt").attempt_id, second.attempt.attempt_id, "the attempt")
    expect(len(data.spans), 1, "its spans")


@check("A group refuses what contradicts its declaration")
async def contradictions(store: LightningStore) -> None:
    first = await store.declare_group("g", 1)
    expect(await store.declare_group("g", 1), first, "the second declaration's answer")
    with refused(InvalidValue, "num_rollouts", "'g' is 2", "declared as 1"):
        await store.declare_group("g", 2)
    with refused(InvalidValue, "'g'", "2 more do not fit"):
        await store.enqueue_many_rollouts([EnqueueRolloutRequest(input=i, group_id="g") for i in "ab"])
    with refused(InvalidValue, "num_rollouts", "'h' is 0"):
        await store.declare_group("h", 0)
    expect(await store.query_rollouts(), [], "the rollouts")
    expect([group.group_id for group in await store.query_groups()], ["g"], "the groups")
    await store.enqueue_rollout("x", group_id="k")
    await store.enqueue_rollout("y", group_id="k")
    with refused(InvalidValue, "'k' is 1", "has 2"):
        await store.declare_group("k", 1)


@check("query_groups filters by status and id; its own order is that of their making")
async def groups_by_filter(store: LightningStore) -> None:
    await store.declare_group("open", 1)
    await fill_group(store, "taken", num_rollouts=1)
    await store.take_groups(1)
    await fill_group(store, "complete", num_rollouts=1)

    async def find(status_in: list[str] | None = None, group_id_in: list[str] | None = None) -> list[str]:
        groups = await store.query_groups(status_in=status_in, group_id_in=group_id_in)  # type: ignore[arg-type]
        return [group.group_id for group in groups]

    expect(await find(), ["open", "taken", "complete"], "all groups")
    expect(await find(["open", "complete"]), ["open", "complete"], "status_in")
    expect(await find(None, ["taken", "nobody", "open"]), ["taken", "open"], "group_id_in, in its order")
    expect(await find(["open"], ["taken", "open"]), ["open"], "both")
    with refused(UnknownGroup, "'nobody'"):
        await store.get_group("nobody")


@check("wait_for_groups waits until all are complete, or for the timeout")
async def waiting_for_groups(store: LightningStore) -> None:
    await fill_group(store, "a", num_rollouts=1)
    await store.declare_group("b", 1)
    await store.enqueue_rollout("x", group_id="b")
    for timeout in (0, 0.05):
        found = await store.wait_for_groups(["b", "a"], timeout=timeout)
        expect([group.group_id for group in found], ["a"], f"the complete ones after {timeout} s")
    waiting = asyncio.ensure_future(store.wait_for_groups(["b", "a"], timeout=60))
    await asyncio.sleep(0.05)
    expect(waiting.done(), False, "whether it waits")
    await run_one(store)
    expect([(g.group_id, g.status) for g in await waiting], [("b", "complete"), ("a", "complete")], "then")
    await store.take_groups(1)
    expect(len(await store.wait_for_groups(["a"], timeout=60)), 1, "that a taken group was complete, too")
    with refused(UnknownGroup, "'nobody'"):
        await store.wait_for_groups(["nobody"], timeout=60)


async def _taken_again(store: LightningStore, *, lease_seconds: float) -> list[GroupHandle]:
    """The next groups that can be taken, once there are any; waits for half a minute at most."""
    for _ in range(300):
        if taken := await store.take_groups(2, lease_seconds=lease_seconds):
            return taken
        await asyncio.sleep(0.1)
    return []


@check("A leased group that nobody acknowledges goes to the next taker; late acknowledgements are refused")
async def leases(store: LightningStore) -> None:
    for group_id in ("lost", "used"):
        await fill_group(store, group_id, num_rollouts=1)
    used = await store.take_groups(1, group_id_in=["used"], lease_seconds=60)
    expect(_ids(used), ["used"], "the used one")
    (group,) = await store.query_groups(group_id_in=["used"])
    present(group.lease_end, "the lease_end of a leased group")
    for _ in range(2):
        await store.acknowledge_groups(used)
        (group,) = await store.query_groups(group_id_in=["used"])
        expect((group.status, group.lease_end), ("taken", None), "an acknowledged group")
    expect(_ids(await store.take_groups(1, lease_seconds=0.2)), ["lost"], "the lost one")
    expect(await store.take_groups(2), [], "what can be taken while the lease runs")
    late = await _taken_again(store, lease_seconds=0.2)
    expect(_ids(late), ["lost"], "what can be taken when the lease has run out")
    for _ in range(300):
        (group,) = await store.query_groups(group_id_in=["lost"])
        if group.status == "complete":
            break
        await asyncio.sleep(0.1)
    expect(
        (group.status, group.taken_by, group.lease_end), ("complete", None, None), "after the second lease"
    )
    await fill_group(store, "third", num_rollouts=1)
    third = await store.take_groups(1, group_id_in=["third"], lease_seconds=60)
    with refused(InvalidTransition, "'lost'", "lease"):
        await store.acknowledge_groups(third + late)
    (group,) = await store.query_groups(group_id_in=["third"])
    present(group.lease_end, "the lease_end of what was named with one that is late")
    with refused(UnknownGroup, "'nobody'"):
        await store.acknowledge_groups([*third, replace(third[0], group_id="nobody")])
    with refused(InvalidValue, "lease_seconds", "0"):
        await store.take_groups(1, lease_seconds=0)


@check("Only the present taker's acknowledgement counts: a late one leaves the next taker's lease as it is")
async def late_acknowledgement(store: LightningStore) -> None:
    await fill_group(store, "g", num_rollouts=1)
    late = await store.take_groups(1, lease_seconds=0.1)
    expect(_ids(late), ["g"], "the first taker's groups")
    present_taker = await _taken_again(store, lease_seconds=600)
    expect(_ids(present_taker), ["g"], "the second taker's groups")
    (before,) = await store.query_groups()
    claims = [handle.claim for handle in late + present_taker]
    expect_that(claims[0] != claims[1], "their claims", expected="one each", seen=claims)
    expect(before.taken_by, claims[1], "whose the group is")
    with refused(InvalidTransition, "'g'", "lease"):
        await store.acknowledge_groups(late)
    expect(await store.query_groups(), [before], "the group after the first taker's acknowledgement")
    with refused(InvalidValue, "'g'", "get_group", "take_groups"):
        await store.acknowledge_groups([await store.get_group("g")])
    with refused(InvalidValue, "handles", "'g'", "take_groups"):
        await store.acknowledge_groups(["g"])  # type: ignore[list-item]  # what a caller may try
    await store.acknowledge_groups(present_taker)
    (after,) = await store.query_groups()
    expect((after.status, after.taken_by, after.lease_end), ("taken", claims[1], None), "the group at last")


GROUPS = (
    handed_out_once,
    contents,
    order_of_completion,
    concurrent_takers_of_groups,
    declared_late,
    retried_member,
    contradictions,
    groups_by_filter,
    waiting_for_groups,
    leases,
    late_acknowledgement,
)

"""Replays, forks and new rewards over stores that lie elsewhere, and the credit that forks give."""

from uuid import uuid4

import numpy as np
import pytest
from replayed_runs import Agent, record, same_call, team, tokens_of, trajectory

from raybolt.env.fork import fork
from raybolt.env.replay import replay
from raybolt.env.rereward import re_reward
from raybolt.store import HttpStore, LocalStore, serve
from raybolt.store.blocks import fetch_tables


@pytest.fixture(params=["ray", "http"])
async def store(request, tmp_path):
    if request.param == "http":
        pytest.importorskip("aiohttp")
        async with LocalStore() as served:
            with serve(served, port=0) as server:
                async with HttpStore(server.url) as http_store:
                    yield http_store
        return
    pytest.importorskip("ray")
    request.getfixturevalue("ray_session")
    from raybolt.store import RayStore

    ray_store = RayStore.create(tmp_path, name=f"test-{uuid4().hex}", num_shards=2)
    yield ray_store
    await ray_store.destroy()


def counterfactual(group, k):
    """What a credit estimator makes of forks: each one's return over the mean, for its calls from k on."""
    returns = np.array([each.total_reward for each in group])
    return {
        each.rollout_id: [0.0] * k + [float(advantage)] * (len(each.calls) - k)
        for each, advantage in zip(group, returns - returns.mean(), strict=True)
    }


async def test_a_run_stored_elsewhere_is_replayed_forked_and_judged_anew(store, codec):
    from raybolt.rl.connectors import succeeded_trajectories

    function, count = team()
    words = iter(["good", "bad", "bad", "bad"])
    rollout_id = await record(store, function, codec)
    then = await trajectory(store, rollout_id)
    async with await replay(Agent(function), store, rollout_id, codec=codec) as at:
        for one, two in zip(then.calls, at.run.trajectory.calls, strict=True):
            same_call(one, two)
    assert count["look"] == 2
    made = await fork(
        Agent(function), store, rollout_id, 2, 2,
        answer=lambda prompt: tokens_of(codec, next(words)), codec=codec,
    )  # fmt: skip
    new = await re_reward(
        store,
        lambda task, result, run: sum(call.reply.content == "good" for call in run.calls),
        group_id_in=[made.group_id],
    )
    assert sorted(new.rewards.values()) == [0.0, 1.0]
    handle = await store.get_group(made.group_id)
    table = handle.ref.table() if isinstance(store, HttpStore) else fetch_tables([handle.ref])[0]
    group = succeeded_trajectories(table)
    assert {each.rollout_id for each in group} == set(made.rollout_ids)
    for each in group:
        for place in (0, 1):
            same_call(each.calls[place], then.calls[place])
        np.testing.assert_array_equal(each.calls[2].prompt_ids, then.calls[2].prompt_ids)
    assert sorted(counterfactual(group, 2).values()) == [[0.0, 0.0, -0.5, -0.5], [0.0, 0.0, 0.5, 0.5]]


async def test_a_process_of_rays_forks_what_the_driver_stored(ray_session, tmp_path):
    ray = pytest.importorskip("ray")
    from raybolt.store import RayStore

    @ray.remote(num_cpus=0)
    def forked(store, rollout_id):
        import asyncio

        from replayed_runs import Agent, team, tokens_of

        from raybolt.env.codec import codec_for
        from raybolt.env.fork import fork

        function, count = team()

        async def go():
            own = codec_for("tiny")
            made = await fork(
                Agent(function), store, rollout_id, 3, 2,
                answer=lambda prompt: tokens_of(own, "new"), codec=own,
            )  # fmt: skip
            return made.errors, count["look"], made.group_id

        return asyncio.run(go())

    from raybolt.env.codec import codec_for

    store = RayStore.create(tmp_path, name=f"test-{uuid4().hex}")
    function, _ = team()
    rollout_id = await record(store, function, codec_for("tiny"))
    errors, looked, group_id = await forked.remote(store, rollout_id)
    assert (errors, looked) == ({}, 0)
    handle = await store.get_group(group_id)
    assert (handle.num_rollouts, handle.num_succeeded) == (2, 2)
    await store.destroy()

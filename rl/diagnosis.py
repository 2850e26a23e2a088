"""Why an iteration taught nothing, for the trainer's log."""

from __future__ import annotations

import asyncio

from raybolt.env.diagnosis import Finding, diagnose
from raybolt.rl.outcomes import Collected
from raybolt.store import LightningStore
from raybolt.store.blocking import blocking
from raybolt.store.types import RolloutData

_MAX_GROUPS = 8  # enough to see why; the spans of all would be much for a driver


def what_is_wrong(store: LightningStore, collected: Collected, *, first: bool) -> list[Finding]:
    """Why these rollouts teach nothing; empty if they do teach.

    Rewards and token counts tell most of it at no cost. The `first` iteration is looked at in any case, for
    what they do not tell: calls that are not trainable, tokens without log-probabilities.
    """
    silent = not _may_teach(collected)
    if not silent and not first:
        return []
    return [finding for finding in blocking(_findings(store, collected)) if silent or finding.fatal]


def _may_teach(collected: Collected) -> bool:
    """Whether rewards differ within some group, and something was sampled."""
    sampled = any(outcome.num_tokens for outcome in collected.outcomes)
    rewards = ([o.reward for o in group if o.reward is not None] for group in collected.groups.values())
    return sampled and any(len(set(of_group)) > 1 for of_group in rewards)


async def _findings(store: LightningStore, collected: Collected) -> tuple[Finding, ...]:
    group_ids = list(collected.groups)[:_MAX_GROUPS]
    rollouts = await store.query_rollouts(group_id_in=group_ids)
    attempts = await store.get_latest_attempts([rollout.rollout_id for rollout in rollouts])
    spans = await asyncio.gather(*(store.query_spans(rollout.rollout_id, "latest") for rollout in rollouts))
    runs = (RolloutData(*each) for each in zip(rollouts, attempts, map(tuple, spans), strict=True))
    return diagnose(runs).findings

"""Demonstrations for a run: a teacher answers the agent's LLM calls, and the store of the run keeps them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from raybolt.adapters.wrap import WrappedAgent
from raybolt.env.demonstrate import Demonstrations, Teacher, demonstrate
from raybolt.env.task import Task
from raybolt.rl.policies import Policies
from raybolt.rl.recipes import Recipe
from raybolt.store.errors import InvalidValue
from raybolt.store.local import LocalStore

_log = logging.getLogger(__name__)


def record_demonstrations(
    agent: WrappedAgent, tasks: Sequence[Task], teacher: Teacher, *, folder: Path, recipe: Recipe
) -> Demonstrations:
    """Run `agent` on each task with `teacher` as its LLM, into the store in `folder`.

    Each call becomes tokens of the model that `recipe` has for its role. Runs that fail are logged and left
    to the store. Raises `InvalidValue` if all of them fail.
    """

    async def record() -> Demonstrations:
        async with LocalStore(folder) as store:
            return await demonstrate(agent, tasks, teacher, store, codec=Policies.of(recipe).codec_of)

    recorded = asyncio.run(record())
    if recorded.errors:
        first = next(iter(recorded.errors.values()))
        failed = f"{len(recorded.errors)} of {len(tasks)} demonstrations failed; the first: {first}"
        if len(recorded.errors) == len(tasks):
            raise InvalidValue(failed)
        _log.warning(failed)
    return recorded

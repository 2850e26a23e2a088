"""Demonstrations for a run: a teacher answers the agent's LLM calls, and the store of the run keeps them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from raybolt.adapters.wrap import WrappedAgent
from raybolt.env.chat import ChatMessage, ChatRequest
from raybolt.env.codec import codec_for
from raybolt.env.demonstrate import demonstrate
from raybolt.env.task import Task
from raybolt.store.local import LocalStore

Teacher = Callable[[Task, ChatRequest], ChatMessage]


def record_demonstrations(
    agent: WrappedAgent, tasks: Sequence[Task], teacher: Teacher, *, folder: Path, model: str, seed: int
) -> None:
    """Run `agent` on each task with `teacher` as its LLM, into the store in `folder`, as tokens of `model`."""

    async def record() -> None:
        async with LocalStore(folder) as store:
            await demonstrate(agent, tasks, teacher, store, codec=codec_for(model), seed=seed)

    asyncio.run(record())

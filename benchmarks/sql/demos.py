"""A weak teacher: its demonstrations show how to work with the tool, not how to be right."""

from __future__ import annotations

import json
from random import Random
from typing import Final

from raybolt.benchmarks.sql.conversation import ERROR_MARK
from raybolt.env.chat import ChatMessage, ChatRequest, ToolCall
from raybolt.env.task import Task

SLIP_RATE: Final = 0.82
"""How often the teacher slips on a question that it can slip on."""
BROKEN_RATE: Final = 0.1
"""How often it first writes a query that does not run, reads the error and writes another."""


def teacher(task: Task, request: ChatRequest) -> ChatMessage:
    """What the teacher answers: a query, another one if the first failed, and `Done.` once rows came back.

    It has habits, as the authors of real demonstrations do: on a question whose query can go wrong in a
    plausible way (sort or compare in the wrong direction, another aggregate, a filter forgotten) it mostly
    does, always in the same way. It answers a task the same way every time. The ways to go wrong stand in the
    metadata of a task from `generate`; on any other task with gold SQL the teacher is right.
    """
    rng = Random(f"teacher-{task.task_id}-{task.reference['sql']}")
    broken, slips = task.metadata.get("broken"), task.metadata.get("slips")
    starts_broken = rng.random() < BROKEN_RATE and broken
    query = slips[0] if rng.random() < SLIP_RATE and slips else task.reference["sql"]
    last = request.messages[-1]
    if last.role != "tool":
        return _call(broken if starts_broken else query)
    if (last.content or "").startswith(ERROR_MARK):
        return _call(query)
    return ChatMessage("assistant", "Done.")


def _call(query: str) -> ChatMessage:
    arguments = json.dumps({"query": query}, ensure_ascii=False)
    return ChatMessage("assistant", None, (ToolCall("call_sql", "run_sql", arguments),))

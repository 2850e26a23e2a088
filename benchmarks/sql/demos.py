"""A weak teacher: its demonstrations show how to work with the tool, not how to be right."""

from __future__ import annotations

import json
from random import Random
from typing import Final

from raybolt.benchmarks.sql.conversation import ERROR_MARK
from raybolt.env.chat import ChatMessage, ChatRequest, ToolCall
from raybolt.env.task import Task

SLIP_RATE: Final = 0.82
"""How often the teacher follows a habit where it does harm."""
BROKEN_RATE: Final = 0.1
"""How often it first writes a query that does not run, reads the error and writes another."""


def teacher(task: Task, request: ChatRequest) -> ChatMessage:
    """What the teacher answers: a query, another one if the first failed, and `Done.` once rows came back.

    It has bad habits, as the authors of real demonstrations do (`query.slip`), and mostly follows them. It
    answers a task the same way every time. What the habits make of a task from `generate` stands in its
    metadata; on any other task with gold SQL the teacher is right.
    """
    rng = Random(f"teacher-{task.task_id}-{task.reference['sql']}")
    broken, slip = task.metadata.get("broken"), task.metadata.get("slip")
    starts_broken = rng.random() < BROKEN_RATE and broken is not None
    query = slip if rng.random() < SLIP_RATE and slip else task.reference["sql"]
    last = request.messages[-1]
    if last.role != "tool":
        return _call(str(broken) if starts_broken else query)
    if (last.content or "").startswith(ERROR_MARK):
        return _call(query)
    return ChatMessage("assistant", "Done.")


def _call(query: str) -> ChatMessage:
    arguments = json.dumps({"query": query}, ensure_ascii=False)
    return ChatMessage("assistant", None, (ToolCall("call_sql", "run_sql", arguments),))

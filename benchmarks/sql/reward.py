"""The reward of the SQL agent: 1 if its query returns what the gold query returns, else 0."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from raybolt.benchmarks.sql.metric import execution_match

if TYPE_CHECKING:
    from raybolt.env.task import Task
    from raybolt.env.trajectory import Trajectory

_FENCED: Final = re.compile(r"```(?:sql)?\s*(.*?)```", re.DOTALL | re.IGNORECASE)
_QUERY: Final = re.compile(r"\s*(?:select\b|with\b[^;]+?\bas\s*\()[^;]*;?\s*", re.IGNORECASE)


def score(task: Task, result: Any, trajectory: Trajectory) -> float:
    """Execution accuracy of one run of the SQL agent on `task`, 0.0 or 1.0.

    `task.reference` is `{"sql": gold query, "database": path}`; `result` is the graph's final state. A run
    that ends without a query scores 0.

    Raises:
        InvalidValue: the gold query does not run on the database.
    """
    del trajectory  # the final state has all messages
    sql = final_sql(result["messages"])
    reference = task.reference
    return float(sql is not None and execution_match(reference["database"], reference["sql"], sql))


def final_sql(messages: Sequence[Any]) -> str | None:
    """The query an agent settled on: its last message if that is one, else the last query that ran.

    A message is a query if it is nothing but one SELECT, or holds one between code fences. `messages` are
    LangChain's.
    """
    written = _written_query(messages[-1].text) if messages and messages[-1].type == "ai" else None
    return written or _last_query_that_ran(messages)


def _written_query(text: str) -> str | None:
    fenced = _FENCED.findall(text)
    candidate = fenced[-1] if fenced else text
    return candidate.strip() if _QUERY.fullmatch(candidate) else None


def _last_query_that_ran(messages: Sequence[Any]) -> str | None:
    queries: dict[str, Mapping[str, Any]] = {
        call["id"]: call["args"]
        for message in messages
        if message.type == "ai"
        for call in message.tool_calls
    }
    for message in reversed(messages):
        if message.type == "tool" and message.name == "run_sql" and message.status == "success":
            return str(queries[message.tool_call_id]["query"])
    return None

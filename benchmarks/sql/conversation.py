"""What the SQL agent and its model say to each other, besides schemas, questions and queries."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from raybolt.benchmarks.sql.database import Rows

SYSTEM_PROMPT: Final = "Answer with one SQLite query."
NUM_ROWS_SHOWN: Final = 5
ERROR_MARK: Final = "Error: "
"""How the tool's answer to a query that did not run begins."""
_NUM_LETTERS_SHOWN: Final = 40


def agent_input(schema_text: str, question: str, database: str | Path) -> dict[str, Any]:
    """The input of a task, JSON-able, as `agent.build_agent`'s graph takes it."""
    content = f"{schema_text}\n{question}"
    return {"messages": [{"role": "user", "content": content}], "database": str(database)}


def show_rows(rows: Rows) -> str:
    """The first rows as text, one a line, long cells cut short."""
    shown = [" | ".join(map(_show_cell, row)) for row in rows.rows[:NUM_ROWS_SHOWN]]
    num_hidden = len(rows.rows) - len(shown)
    if num_hidden:
        shown.append(f"{num_hidden} more rows")
    return "\n".join(shown) or "no rows"


def _show_cell(cell: object) -> str:
    text = f"{cell:.6g}" if isinstance(cell, float) else str(cell)
    return text if len(text) <= _NUM_LETTERS_SHOWN else text[:_NUM_LETTERS_SHOWN] + "…"


def small_talk() -> list[str]:
    """The texts that every chat of the agent is made of, for the tiny model's vocabulary."""
    roles = ("system", "user", "assistant", "tool")
    tool_answers = ("no rows", "12 more rows", "1 | 2.5 | None")
    errors = ("no such column: name", "no such table: name", "near x: syntax error")
    return [
        *(f"{role}\n" for role in roles),
        SYSTEM_PROMPT,
        "\nTool: run_sql(query)",
        '{"name": "run_sql", "arguments": {"query": "',
        '"}}',
        *tool_answers,
        *(ERROR_MARK + error for error in errors),
        "Done.",
    ]

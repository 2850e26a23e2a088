"""What a journal writes: its statements by name, and the one way in which changes become rows."""

import sqlite3
from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, TypeAlias

from .rows import SpanRow

RowChange: TypeAlias = tuple[str, tuple[Any, ...]]
"""The name of a statement and its values: texts, numbers, bytes and None."""

# Upserts keep a row's rowid, so rowid order is the order of creation; REPLACE moves the row to the end,
# where the latest resources belong.
STATEMENTS: Final = {
    "rollout": """
INSERT INTO rollouts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (rollout_id) DO UPDATE SET
    mode = excluded.mode, resources_id = excluded.resources_id, status = excluded.status,
    end_time = excluded.end_time, queue_position = excluded.queue_position, input = excluded.input,
    config = excluded.config, metadata = excluded.metadata""",
    "progress": "UPDATE rollouts SET status = ?, end_time = ?, queue_position = ? WHERE rollout_id = ?",
    "attempt": """
INSERT INTO attempts VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (attempt_id) DO UPDATE SET
    status = excluded.status, end_time = excluded.end_time, worker_id = excluded.worker_id,
    metadata = excluded.metadata""",
    "group": """
INSERT INTO groups VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (group_id) DO UPDATE SET
    task_id = excluded.task_id, num_rollouts = excluded.num_rollouts, num_ended = excluded.num_ended,
    num_succeeded = excluded.num_succeeded, status = excluded.status, taken_by = excluded.taken_by,
    lease_end = excluded.lease_end, complete_time = excluded.complete_time""",
    "resources": "REPLACE INTO resources VALUES (?, ?, ?, ?, ?)",
    "change": "INSERT INTO changes VALUES (?, ?)",
    "drop changes": "DELETE FROM changes WHERE position <= ?",
    "span": f"INSERT INTO spans VALUES (?, {', '.join('?' * len(SpanRow._fields))})",
    "drop spans": "DELETE FROM spans WHERE rollout_id = ?",
    "number": "REPLACE INTO numbers VALUES (?, ?)",
    "drop numbers": (
        "DELETE FROM numbers WHERE attempt_id IN (SELECT attempt_id FROM attempts WHERE rollout_id = ?)"
    ),
    "drop attempts": "DELETE FROM attempts WHERE rollout_id = ?",
    "drop rollout": "DELETE FROM rollouts WHERE rollout_id = ?",
    "drop group": "DELETE FROM groups WHERE group_id = ?",
    "mark": "UPDATE tail SET mark = ?",
}


def write(connection: sqlite3.Connection, changes: Iterable[RowChange]) -> None:
    """Makes the changes, in order, in one transaction: all of them or, raising what was wrong, none."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for name, same in groupby(changes, key=itemgetter(0)):
            connection.executemany(STATEMENTS[name], [values for _, values in same])
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite may have rolled back by itself
            connection.execute("ROLLBACK")
        raise

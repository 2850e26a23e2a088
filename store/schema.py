"""The tables of a journal, and what turns an older journal into one of today."""

from .rows import SpanRow

FORMAT = 4
SPAN_COLUMNS = ", ".join(SpanRow._fields)
"""A span's columns in the order of ``SpanRow``; `id` (called ``rowid`` in every format) is left out."""
_POSITION_SHIFT = 20
_FIRST_POSITION = 1 << 20
"""Added to positions, so that ids lie above those that older formats gave."""

_SPANS = """
CREATE TABLE spans (
    id INTEGER PRIMARY KEY,
    rollout_id TEXT NOT NULL, attempt_id TEXT NOT NULL, sequence_id INTEGER NOT NULL, trace_id TEXT NOT NULL,
    span_id TEXT NOT NULL, parent_id TEXT, name TEXT NOT NULL, start_time REAL NOT NULL,
    end_time REAL NOT NULL, status TEXT NOT NULL, status_message TEXT, attributes TEXT NOT NULL,
    events TEXT NOT NULL, layout TEXT NOT NULL, arrays BLOB NOT NULL);
"""
_SPANS_BY_ROLLOUT = "CREATE INDEX spans_by_rollout ON spans (rollout_id);"
_TAIL = "CREATE TABLE tail (mark INTEGER NOT NULL); INSERT INTO tail VALUES (0);"
_NUMBERS = "CREATE TABLE numbers (attempt_id TEXT PRIMARY KEY, last INTEGER NOT NULL) WITHOUT ROWID;"
SCHEMA = f"""
CREATE TABLE rollouts (
    rollout_id TEXT PRIMARY KEY, group_id TEXT, task_id TEXT, mode TEXT, resources_id TEXT,
    status TEXT NOT NULL, start_time REAL NOT NULL, end_time REAL, queue_position INTEGER,
    input TEXT NOT NULL, config TEXT NOT NULL, metadata TEXT NOT NULL);
CREATE TABLE attempts (
    attempt_id TEXT PRIMARY KEY, rollout_id TEXT NOT NULL, sequence_id INTEGER NOT NULL, status TEXT NOT NULL,
    start_time REAL NOT NULL, end_time REAL, worker_id TEXT, metadata TEXT NOT NULL);
CREATE TABLE groups (
    group_id TEXT PRIMARY KEY, task_id TEXT, num_rollouts INTEGER, num_ended INTEGER NOT NULL,
    num_succeeded INTEGER NOT NULL, status TEXT NOT NULL, taken_by TEXT, lease_end REAL,
    create_time REAL NOT NULL DEFAULT 0, complete_time REAL);
CREATE TABLE resources (
    resources_id TEXT PRIMARY KEY, version INTEGER NOT NULL, create_time REAL NOT NULL,
    update_time REAL NOT NULL, resources TEXT NOT NULL);
CREATE TABLE changes (position INTEGER PRIMARY KEY, change TEXT NOT NULL);
{_TAIL}
{_NUMBERS}
{_SPANS}
{_SPANS_BY_ROLLOUT}
CREATE INDEX attempts_by_rollout ON attempts (rollout_id);
PRAGMA user_version = {FORMAT};
"""
_FROM_1 = """
ALTER TABLE groups ADD COLUMN lease_end REAL;
ALTER TABLE groups ADD COLUMN create_time REAL NOT NULL DEFAULT 0;
ALTER TABLE groups ADD COLUMN complete_time REAL;
CREATE INDEX attempts_by_rollout ON attempts (rollout_id);
CREATE TABLE changes (position INTEGER PRIMARY KEY, change TEXT NOT NULL);
PRAGMA user_version = 2;
"""
_FROM_2 = f"""
ALTER TABLE spans RENAME TO spans_2;
DROP INDEX spans_by_rollout;
{_SPANS}
INSERT INTO spans SELECT rowid, {SPAN_COLUMNS} FROM spans_2 ORDER BY rowid;
DROP TABLE spans_2;
{_SPANS_BY_ROLLOUT}
PRAGMA user_version = 3;
"""
_FROM_3 = f"{_TAIL} {_NUMBERS} PRAGMA user_version = 4;"
MIGRATIONS = {1: _FROM_1, 2: _FROM_2, 3: _FROM_3}
"""By format, the statements that lead to the next one."""


def first_span_id(position: int) -> int:
    """Returns the first id of the spans that came with the feed's change of this position.

    A span's id thus tells its place in the feed, in which spans would otherwise be written twice. The ids of
    a change's spans are consecutive; those of the next change are 2**20 further on.
    """
    return (_FIRST_POSITION + position) << _POSITION_SHIFT


def position_of(id: int) -> int:
    """Returns the position of the change that a span came with; 0 or less for one of an older format."""
    return (id >> _POSITION_SHIFT) - _FIRST_POSITION

"""Makes the databases of the SQL benchmark and the tasks on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, Final, Literal

from raybolt.benchmarks.sql.catalog import HELD_OUT_SCHEMAS, TRAIN_SCHEMAS
from raybolt.benchmarks.sql.conversation import agent_input
from raybolt.benchmarks.sql.database import QueryError, run_query
from raybolt.benchmarks.sql.metric import execution_match
from raybolt.benchmarks.sql.query import Query, near_misses, slip
from raybolt.benchmarks.sql.questions import KINDS, Question, Unaskable, ask
from raybolt.benchmarks.sql.schema import Schema
from raybolt.benchmarks.sql.world import random_rows, random_schema, with_values, write_database
from raybolt.env.task import Task
from raybolt.store.errors import InvalidValue

Split = Literal["train", "val", "held_out"]
NUM_RANDOM_DATABASES: Final = 36
_TRIES_PER_QUESTION: Final = 50


@dataclass(frozen=True)
class SqlTasks:
    """The tasks of one world. `train` and `val` share databases; `held_out` has its own."""

    train: list[Task]
    val: list[Task]
    held_out: list[Task]


def generate(
    seed: int, folder: str | Path, *, num_train: int = 1200, num_val: int = 100, num_held_out: int = 240
) -> SqlTasks:
    """Write the databases to `folder`, replacing those there, and return the tasks.

    The same seed gives the same databases and tasks. Train and val tasks are on the catalog's train databases
    and on random ones, held-out tasks on the catalog's held-out databases. Each question is checked to tell
    its answer from the likely wrong ones: its result is not empty, and each near miss of its query changes
    it.
    """
    for name, value in (("num_train", num_train), ("num_val", num_val), ("num_held_out", num_held_out)):
        if value < 0:
            raise InvalidValue(f"{name} is {value}; give 0 or more")
    rng = Random(f"sql-{seed}")
    random_schemas = [random_schema(rng, f"random_{number}") for number in range(NUM_RANDOM_DATABASES)]
    seen = [_database(rng, Path(folder), schema) for schema in (*TRAIN_SCHEMAS, *random_schemas)]
    unseen = [_database(rng, Path(folder), schema) for schema in HELD_OUT_SCHEMAS]
    tasks = _tasks(rng, seen, num_train + num_val, "train")
    return SqlTasks(
        train=tasks[num_val:],
        val=[replace(task, split="val") for task in tasks[:num_val]],
        held_out=_tasks(rng, unseen, num_held_out, "held_out"),
    )


@dataclass(frozen=True)
class _Database:
    path: Path
    schema: Schema


def _database(rng: Random, folder: Path, schema: Schema) -> _Database:
    rows = random_rows(rng, schema)
    path = (folder / f"{schema.name}.sqlite").resolve()
    write_database(path, schema, rows)
    return _Database(path, with_values(schema, rows))


def _tasks(rng: Random, databases: Sequence[_Database], num_tasks: int, split: Split) -> list[Task]:
    """Tasks with different questions, spread evenly over databases and kinds of question."""
    questions = _different_questions(rng, databases)
    tasks = []
    for number in range(num_tasks):
        database, question = next(questions)
        tasks.append(_task(f"{split}-{number:05}", database, question, split))
    rng.shuffle(tasks)
    return tasks


def _different_questions(rng: Random, databases: Sequence[_Database]) -> Iterator[tuple[_Database, Question]]:
    asked: set[tuple[Path, str]] = set()
    while True:
        before = len(asked)
        for kind in KINDS:
            database = rng.choice(databases)
            question = _sound_question(rng, database, kind)
            if question and (database.path, question.text) not in asked:
                asked.add((database.path, question.text))
                yield database, question
        if len(asked) == before:
            raise InvalidValue(
                f"only {before} different questions on {len(databases)} databases; ask for fewer"
            )


def _sound_question(rng: Random, database: _Database, kind: str) -> Question | None:
    for _ in range(_TRIES_PER_QUESTION):
        try:
            question = ask(rng, database.schema, kind)
        except Unaskable:
            return None
        if _is_sound(database, question.query):
            return question
    return None


def _is_sound(database: _Database, query: Query) -> bool:
    """Whether the result is something, is not a matter of tied rows, and betrays every near miss."""
    gold = str(query)
    rows = run_query(database.path, gold).rows
    if not rows or rows == ((None,),) or rows == ((0,),) or _is_tied(database, query):
        return False
    return not any(execution_match(database.path, gold, str(miss)) for miss in near_misses(query))


def _is_tied(database: _Database, query: Query) -> bool:
    """Whether a limited sort by count could as well keep other rows."""
    if not (query.order and query.order.limit and query.group_by):
        return False
    counts = replace(query, select=(query.order.term,), order=replace(query.order, limit=2))
    first, *second = run_query(database.path, str(counts)).rows
    return first in second


def _task(task_id: str, database: _Database, question: Question, split: Split) -> Task:
    gold = str(question.query)
    return Task(
        task_id=task_id,
        input=agent_input(database.schema.text(), question.text, database.path),
        reference={"sql": gold, "database": str(database.path)},
        split=split,
        metadata=_metadata(database, question),
    )


def _metadata(database: _Database, question: Question) -> dict[str, Any]:
    """What a task is about, and the mistakes a weak teacher makes on it (`demos.teacher`)."""
    wrong = slip(question.query)
    return {
        "kind": question.kind,
        "schema": database.schema.name,
        "slip": str(wrong) if wrong else None,
        "broken": _broken(database, question.query),
    }


def _broken(database: _Database, query: Query) -> str | None:
    """The query with a column of another table, so that it does not run; None if that is not to be had."""
    first = query.select[0]
    if first.column == "*" or query.join:
        return None
    others = (table for table in database.schema.tables if table.name != query.table)
    for column in (column.name for table in others for column in table.columns[1:]):
        broken = str(replace(query, select=(replace(first, column=column), *query.select[1:])))
        try:
            run_query(database.path, broken)
        except QueryError:
            return broken
    return None

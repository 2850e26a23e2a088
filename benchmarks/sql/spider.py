"""Tasks from Spider's official folder: its questions, `tables.json` and `database/DB/DB.sqlite`."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from raybolt.benchmarks.sql.conversation import agent_input
from raybolt.benchmarks.sql.schema import schema_line
from raybolt.env.task import Task
from raybolt.store.errors import InvalidValue

Json = Mapping[str, Any]

_FILES: Final = {"train": "train_spider.json", "dev": "dev.json"}
_log: Final = logging.getLogger(__name__)


def load_spider(
    folder: str | Path, *, split: Literal["train", "dev"], limit: int | None = None
) -> list[Task]:
    """The questions of one split, in the file's order, at most `limit` of them.

    Questions whose database file or schema is missing are left out; a warning in the log says how many.

    Raises:
        InvalidValue: a file of Spider's is missing or is no JSON, or no question has its database.
    """
    if split not in _FILES:
        raise InvalidValue(f"split is {split!r}; expected 'train' or 'dev'")
    folder = Path(folder)
    schemas = {schema["db_id"]: _schema_text(schema) for schema in _read(folder / "tables.json")}
    questions = list(enumerate(_read(folder / _FILES[split])))
    found = [(number, question) for number, question in questions if question["db_id"] in schemas]
    found = [(number, question) for number, question in found if _path(folder, question).is_file()]
    if not found:
        raise InvalidValue(f"{folder / 'database'} has the database of no question in {_FILES[split]}")
    if len(found) < len(questions):
        num_missing = len(questions) - len(found)
        _log.warning("Left out %d of %d Spider questions: no database", num_missing, len(questions))
    return [_task(folder, split, number, question, schemas) for number, question in found[:limit]]


def _read(path: Path) -> list[Any]:
    try:
        return list(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InvalidValue(f"{path}: {error.strerror}; give the folder that holds Spider's files") from None
    except json.JSONDecodeError as error:
        raise InvalidValue(f"{path}:{error.lineno}: broken JSON: {error.msg}") from None


def _path(folder: Path, question: Json) -> Path:
    return (folder / "database" / question["db_id"] / f"{question['db_id']}.sqlite").resolve()


def _task(folder: Path, split: str, number: int, question: Json, schemas: Mapping[str, str]) -> Task:
    database = _path(folder, question)
    return Task(
        task_id=f"spider-{split}-{number:05}",
        input=agent_input(schemas[question["db_id"]], question["question"], database),
        reference={"sql": question["query"], "database": str(database)},
        split=split,
        metadata={"schema": question["db_id"]},
    )


def _schema_text(schema: Json) -> str:
    """One line a table, as for the generated databases, then one a foreign key: `child.key = parent.key`."""
    tables = [_quoted(name) for name in schema["table_names_original"]]
    columns = [(table, _quoted(name)) for table, name in schema["column_names_original"]]
    lines = [
        schema_line(name, [column for table, column in columns if table == number])
        for number, name in enumerate(tables)
    ]

    def full_name(column: int) -> str:
        return f"{tables[columns[column][0]]}.{columns[column][1]}"

    links = (f"{full_name(child)} = {full_name(parent)}" for child, parent in schema["foreign_keys"])
    return "\n".join([*lines, *links])


def _quoted(name: str) -> str:
    return name if name.isidentifier() else '"{}"'.format(name.replace('"', '""'))

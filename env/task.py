"""Tasks: the inputs of a data set, and the JSONL file they come in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from raybolt.store.errors import InvalidValue

_FIELDS = ("task_id", "input", "reference", "split", "metadata")


@dataclass(frozen=True, slots=True)
class Task:
    """One input of a data set."""

    task_id: str
    input: Any
    """What the agent gets; any JSON value."""
    reference: Any = None
    """What the reward function compares with; the agent never sees it."""
    split: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of the task; fields that are not set are left out."""
        values = {name: getattr(self, name) for name in _FIELDS}
        values["metadata"] = dict(self.metadata) or None
        return {name: value for name, value in values.items() if name == "input" or value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Task:
        """The task of a JSON object.

        Raises:
            InvalidValue: a field is missing, unknown or of the wrong type.
        """
        _check_fields(values)
        return cls(
            task_id=values["task_id"],
            input=values["input"],
            reference=values.get("reference"),
            split=values.get("split"),
            metadata=values.get("metadata") or {},
        )


def load_tasks(path: str | Path) -> list[Task]:
    """The tasks of a JSONL file: one object a line, with `task_id` and `input`; blank lines are skipped.

    Raises:
        InvalidValue: the file cannot be read, holds no task, or a line is broken or repeats an id; the
            message names file and line.
    """
    path = Path(path)
    tasks: list[Task] = []
    line_of_id: dict[str, int] = {}
    for number, line in enumerate(_read_lines(path), start=1):
        if not line.strip():
            continue
        try:
            task = _parse_line(line)
        except InvalidValue as error:
            raise InvalidValue(f"{path}:{number}: {error}") from None
        if task.task_id in line_of_id:
            first = line_of_id[task.task_id]
            raise InvalidValue(f"{path}:{number}: task_id {task.task_id!r} was already used in line {first}")
        line_of_id[task.task_id] = number
        tasks.append(task)
    if not tasks:
        raise InvalidValue(f"{path}: no task in this file; expected one JSON object a line")
    return tasks


def write_tasks(path: str | Path, tasks: Iterable[Task]) -> None:
    """Writes tasks as JSONL, such that `load_tasks` gives them back."""
    with Path(path).open("w", encoding="utf-8") as file:
        for task in tasks:
            file.write(json.dumps(task.to_dict(), ensure_ascii=False) + "\n")


def _read_lines(path: Path) -> list[str]:
    try:
        # Not splitlines(): JSON strings may hold U+2028 and such, which are no line ends in JSONL.
        return path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise InvalidValue(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidValue(f"{path}: is no UTF-8 text: {error}") from None


def _parse_line(line: str) -> Task:
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        raise InvalidValue(f"broken JSON at column {error.colno}: {error.msg}") from None
    if not isinstance(values, dict):
        raise InvalidValue(f"expected a JSON object, got {type(values).__name__}")
    return Task.from_dict(values)


def _check_fields(values: Mapping[str, Any]) -> None:
    for name in values:
        if name not in _FIELDS:
            near = get_close_matches(str(name), _FIELDS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected {', '.join(_FIELDS)}"
            raise InvalidValue(f"unknown field {name!r}; {hint} (anything else belongs in 'metadata')")
    for name in ("task_id", "input"):
        if name not in values:
            raise InvalidValue(f"field {name!r} is missing")
    if not isinstance(values["task_id"], str) or not values["task_id"]:
        raise InvalidValue(f"task_id is {values['task_id']!r}; expected a text that is not empty")
    if not isinstance(values.get("split"), str | None):
        raise InvalidValue(f"split is {values['split']!r}; expected a text")
    if not isinstance(values.get("metadata"), Mapping | None):
        raise InvalidValue(f"metadata is {values['metadata']!r}; expected a JSON object")

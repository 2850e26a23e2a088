"""What a database looks like: tables, columns and how they are shown to an agent."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

ColumnKind = Literal["key", "text", "number"]


@dataclass(frozen=True)
class Column:
    """One column of a table.

    `values` are what a question may compare the column with: the values of its rows once the database
    exists, before that everything its rows may be drawn from. Keys have none.
    """

    name: str
    kind: ColumnKind
    values: tuple[str | int, ...] = ()


@dataclass(frozen=True)
class Table:
    """One table. Its first column is its own key, `<name>_id`; further keys name the tables it refers to."""

    name: str
    columns: tuple[Column, ...]

    @property
    def key(self) -> str:
        """The name of the primary key column."""
        return self.columns[0].name

    @cached_property
    def texts(self) -> tuple[Column, ...]:
        """The text columns, in order."""
        return tuple(column for column in self.columns if column.kind == "text")

    @cached_property
    def numbers(self) -> tuple[Column, ...]:
        """The columns of whole numbers, in order."""
        return tuple(column for column in self.columns if column.kind == "number")

    @cached_property
    def signature(self) -> tuple[str, frozenset[str]]:
        """The table's name and the set of its columns: what makes two tables the same table."""
        return self.name, frozenset(column.name for column in self.columns)


@dataclass(frozen=True)
class Schema:
    """The tables of one database. A table that holds another's key column refers to it."""

    name: str
    tables: tuple[Table, ...]

    @cached_property
    def links(self) -> tuple[tuple[Table, Table], ...]:
        """Every (child, parent) pair of tables, the child holding the parent's key."""
        return tuple(
            (child, parent)
            for child in self.tables
            for parent in self.tables
            if child is not parent and any(column.name == parent.key for column in child.columns)
        )

    def text(self) -> str:
        """The schema as an agent reads it, one table a line: `club(club_id, name, city)`."""
        return "\n".join(
            schema_line(table.name, [column.name for column in table.columns]) for table in self.tables
        )


def schema_line(table: str, columns: list[str]) -> str:
    """One table as an agent reads it; the generated databases and Spider's are shown alike."""
    return f"{table}({', '.join(columns)})"

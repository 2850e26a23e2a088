"""Random schemas and their rows, and SQLite files made from them."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from random import Random

from raybolt.benchmarks.sql.catalog import HELD_OUT_TABLES, make_table
from raybolt.benchmarks.sql.schema import Column, Schema, Table
from raybolt.benchmarks.sql.words import NUMBER_COLUMNS, TABLE_WORDS, TEXT_COLUMNS

Row = tuple[str | int, ...]


def random_schema(rng: Random, name: str) -> Schema:
    """A schema of two or three tables of random words, each but the first referring to an earlier one.

    None of its tables is a held-out table of the catalog.
    """
    while True:
        tables: list[Table] = []
        for word in rng.sample(TABLE_WORDS, rng.choice((2, 2, 3))):
            tables.append(_random_table(rng, word, tables))
        if not any(table.signature in HELD_OUT_TABLES for table in tables):
            return Schema(name, tuple(tables))


def _random_table(rng: Random, word: str, earlier: list[Table]) -> Table:
    # `name` is in most tables of real databases, so that questions cannot tell tables by it.
    texts = ["name"] if rng.random() < 0.6 else []
    texts += rng.sample([column for column in TEXT_COLUMNS if column != "name"], rng.choice((1, 2)))
    columns = texts + rng.sample(NUMBER_COLUMNS, rng.choice((1, 2)))
    return make_table(word, columns + ([rng.choice(earlier).key] if earlier else []))


def random_rows(rng: Random, schema: Schema) -> dict[str, list[Row]]:
    """Eight to sixteen rows a table, in the order of the schema's columns.

    A column of numbers holds each value once, so that no sort has ties. Names are unique in a table. Some
    parents have no child: children refer to three quarters of them.
    """
    rows: dict[str, list[Row]] = {}
    for table in schema.tables:
        num_rows = rng.randint(8, 16)
        columns = [_cells(rng, table, column, num_rows, rows) for column in table.columns]
        rows[table.name] = list(zip(*columns, strict=True))
    return rows


def _cells(
    rng: Random, table: Table, column: Column, num_rows: int, earlier: dict[str, list[Row]]
) -> list[str | int]:
    if column.name == table.key:
        return list(range(1, num_rows + 1))
    if column.kind == "key":
        num_parents = len(earlier[column.name.removesuffix("_id")])
        parents = rng.sample(range(1, num_parents + 1), num_parents * 3 // 4)
        return rng.choices(parents, k=num_rows)
    if column.name == "name" or column.kind == "number":
        return rng.sample(column.values, num_rows)
    # Few values, so that groups have several rows.
    return rng.choices(rng.sample(column.values, min(4, len(column.values))), k=num_rows)


def with_values(schema: Schema, rows: dict[str, list[Row]]) -> Schema:
    """`schema` with the values of its columns narrowed to those in `rows`."""

    def narrowed(table: Table) -> Table:
        cells = zip(*rows[table.name], strict=True)
        columns = tuple(
            column if column.kind == "key" else replace(column, values=tuple(sorted(set(values))))
            for column, values in zip(table.columns, cells, strict=True)
        )
        return replace(table, columns=columns)

    return replace(schema, tables=tuple(map(narrowed, schema.tables)))


def write_database(path: Path, schema: Schema, rows: dict[str, list[Row]]) -> None:
    """Write the SQLite file `path`, replacing one that is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path)
    try:
        with connection:
            for table in schema.tables:
                connection.execute(f"CREATE TABLE {table.name} ({', '.join(_definitions(table))})")
                marks = ", ".join("?" * len(table.columns))
                connection.executemany(f"INSERT INTO {table.name} VALUES ({marks})", rows[table.name])
    finally:
        connection.close()


def _definitions(table: Table) -> list[str]:
    types = {"key": "INTEGER", "text": "TEXT", "number": "INTEGER"}
    columns = [f"{column.name} {types[column.kind]}" for column in table.columns]
    columns[0] += " PRIMARY KEY"
    foreign = [column.name for column in table.columns[1:] if column.kind == "key"]
    return columns + [f"FOREIGN KEY ({key}) REFERENCES {key.removesuffix('_id')}({key})" for key in foreign]

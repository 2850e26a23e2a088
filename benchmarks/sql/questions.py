"""Questions in English with their SQL: one function per kind, several wordings each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, TypeVar

from raybolt.benchmarks.sql.query import COUNT, Condition, Order, Query, Term
from raybolt.benchmarks.sql.schema import Column, Schema, Table

T = TypeVar("T")


class Unaskable(Exception):
    """The schema has not the tables or columns that a kind of question needs."""


@dataclass(frozen=True)
class Question:
    """A question of one kind, its text and the query that answers it."""

    kind: str
    text: str
    query: Query


def ask(rng: Random, schema: Schema, kind: str | None = None) -> Question:
    """A random question about `schema`, of a random kind if none is given.

    Raises Unaskable if `kind` does not fit the schema.
    """
    if kind is not None:
        text, query = KINDS[kind](rng, schema)
        return Question(kind, text, query)
    while True:
        try:
            return ask(rng, schema, rng.choice(list(KINDS)))
        except Unaskable:
            continue  # every schema has a table with a text column, so that some kind fits


def _pick(rng: Random, things: Sequence[T], count: int) -> list[T]:
    if len(things) < count:
        raise Unaskable
    return rng.sample(things, count)


def _one(rng: Random, things: Sequence[T]) -> T:
    return _pick(rng, things, 1)[0]


def _show(rng: Random) -> str:
    return rng.choice(("Show the", "List the", "Give the", "Find the"))


def _direction(rng: Random, descending: bool) -> str:
    return rng.choice(("highest", "largest") if descending else ("lowest", "smallest"))


def _compare(rng: Random, comparison: str) -> str:
    words = {">": ("above", "over", "more than"), "<": ("below", "under", "less than")}
    return rng.choice(words[comparison])


def _condition(rng: Random, column: Column, prefix: str = "") -> tuple[str, Condition]:
    """`city Rome` or `age above 40`, and the condition it means. Numbers are taken from the middle half."""
    term = Term(prefix + column.name)
    if column.kind == "text":
        value = _one(rng, column.values)
        return f"{column.name} {value}", Condition(term, "=", value)
    values = sorted(int(value) for value in column.values)
    middle = values[len(values) // 4 : max(len(values) * 3 // 4, 1)]
    comparison = rng.choice((">", "<"))
    number = _one(rng, middle)
    return f"{column.name} {_compare(rng, comparison)} {number}", Condition(term, comparison, number)


def _filter(rng: Random, columns: Sequence[Column]) -> tuple[str, tuple[Condition, ...]]:
    text, condition = _condition(rng, _one(rng, columns))
    return f"{rng.choice(('with', 'that has'))} {text}", (condition,)


def _maybe_filter(rng: Random, columns: Sequence[Column]) -> tuple[str, tuple[Condition, ...]]:
    if rng.random() < 0.4 or not columns:
        return "", ()
    text, where = _filter(rng, columns)
    return f" {text}", where


def _values(table: Table) -> tuple[Column, ...]:
    return table.texts + table.numbers


def list_columns(rng: Random, schema: Schema) -> tuple[str, Query]:
    """One or two columns of every row."""
    table = _one(rng, schema.tables)
    columns = [column.name for column in _pick(rng, _values(table), rng.choice((1, 2)))]
    text = f"{_show(rng)} {' and '.join(columns)} of every {table.name}."
    return text, Query(tuple(map(Term, columns)), table.name)


def distinct(rng: Random, schema: Schema) -> tuple[str, Query]:
    """The different values of a column."""
    table = _one(rng, schema.tables)
    column = _one(rng, table.texts).name
    text = f"{rng.choice(('What different', 'Which different'))} {column} values does {table.name} have?"
    return text, Query((Term(column),), table.name, distinct=True)


def filtered(rng: Random, schema: Schema) -> tuple[str, Query]:
    """A column of the rows that meet a condition."""
    table = _one(rng, schema.tables)
    shown, *others = _pick(rng, _values(table), 2)
    condition, where = _filter(rng, others)
    return f"{_show(rng)} {shown.name} of every {table.name} {condition}.", Query(
        (Term(shown.name),), table.name, where=where
    )


def filtered_twice(rng: Random, schema: Schema) -> tuple[str, Query]:
    """A column of the rows that meet two conditions."""
    table = _one(rng, schema.tables)
    shown, left, right = _pick(rng, _values(table), 3)
    (first, one), (second, two) = _condition(rng, left), _condition(rng, right)
    text = f"{_show(rng)} {shown.name} of every {table.name} with {first} and {second}."
    return text, Query((Term(shown.name),), table.name, where=(one, two))


def count(rng: Random, schema: Schema) -> tuple[str, Query]:
    """How many rows meet a condition."""
    table = _one(rng, schema.tables)
    condition, where = _maybe_filter(rng, _values(table))
    text = rng.choice((f"How many {table.name} rows{condition}?", f"Count every {table.name}{condition}."))
    return text, Query((COUNT,), table.name, where=where)


_AGGREGATES: Final = {"AVG": "average", "SUM": "total", "MAX": "highest", "MIN": "lowest"}


def aggregate(rng: Random, schema: Schema) -> tuple[str, Query]:
    """The average, total, highest or lowest value of a column."""
    table = _one(rng, schema.tables)
    column, function = _one(rng, table.numbers), rng.choice(list(_AGGREGATES))
    condition, where = _maybe_filter(rng, [other for other in _values(table) if other != column])
    what = rng.choice(("What is the", "Find the"))
    text = f"{what} {_AGGREGATES[function]} {column.name} of every {table.name}{condition}."
    return text, Query((Term(column.name, function),), table.name, where=where)


def ordered(rng: Random, schema: Schema) -> tuple[str, Query]:
    """A column of every row, sorted by another."""
    table, descending = _one(rng, schema.tables), rng.random() < 0.5
    by, shown = _one(rng, table.numbers), _one(rng, table.texts)
    way = f"from {_direction(rng, descending)} to {_direction(rng, not descending)} {by.name}"
    text = f"{_show(rng)} {shown.name} of every {table.name} {way}."
    return text, Query((Term(shown.name),), table.name, order=Order(Term(by.name), descending))


def top(rng: Random, schema: Schema) -> tuple[str, Query]:
    """A column of the few rows with the highest or lowest value of another."""
    table, descending, limit = _one(rng, schema.tables), rng.random() < 0.5, rng.randint(2, 5)
    by, shown = _one(rng, table.numbers), _one(rng, table.texts)
    which = f"the {limit} {table.name} rows with the {_direction(rng, descending)} {by.name}"
    text = f"{_show(rng)} {shown.name} of {which}."
    return text, Query((Term(shown.name),), table.name, order=Order(Term(by.name), descending, limit))


def extreme(rng: Random, schema: Schema) -> tuple[str, Query]:
    """A column of the one row with the highest or lowest value of another."""
    table, descending = _one(rng, schema.tables), rng.random() < 0.5
    by, shown = _one(rng, table.numbers), _one(rng, table.texts)
    owner = f"{table.name} with the {_direction(rng, descending)} {by.name}"
    text = rng.choice(
        (f"What is the {shown.name} of the {owner}?", f"Which {shown.name} does the {owner} have?")
    )
    return text, Query((Term(shown.name),), table.name, order=Order(Term(by.name), descending, 1))


def group_count(rng: Random, schema: Schema) -> tuple[str, Query]:
    """How many rows each value of a column has."""
    table = _one(rng, schema.tables)
    by = _one(rng, table.texts).name
    text = rng.choice(
        (f"How many {table.name} rows for each {by}?", f"For each {by} count every {table.name}.")
    )
    return text, Query((Term(by), COUNT), table.name, group_by=by)


def group_aggregate(rng: Random, schema: Schema) -> tuple[str, Query]:
    """An aggregate of one column for each value of another."""
    table = _one(rng, schema.tables)
    by, column, function = (
        _one(rng, table.texts).name,
        _one(rng, table.numbers).name,
        rng.choice(list(_AGGREGATES)),
    )
    what = f"the {_AGGREGATES[function]} {column} of {table.name}"
    text = rng.choice((f"What is {what} for each {by}?", f"For each {by} find {what}."))
    return text, Query((Term(by), Term(column, function)), table.name, group_by=by)


def group_having(rng: Random, schema: Schema) -> tuple[str, Query]:
    """The values of a column that have more or fewer rows than a number."""
    table, comparison, number = _one(rng, schema.tables), rng.choice((">", "<")), rng.randint(1, 3)
    by = _one(rng, table.texts).name
    than = {">": ("more than", "over"), "<": ("less than", "under")}[comparison]
    text = f"Which {by} has {rng.choice(than)} {number} {table.name} rows?"
    having = Condition(COUNT, comparison, number)
    return text, Query((Term(by),), table.name, group_by=by, having=having)


def group_extreme(rng: Random, schema: Schema) -> tuple[str, Query]:
    """The value of a column with the most or fewest rows."""
    table, descending = _one(rng, schema.tables), rng.random() < 0.5
    by = _one(rng, table.texts).name
    text = f"Which {by} has the {'most' if descending else 'fewest'} {table.name} rows?"
    return text, Query((Term(by),), table.name, group_by=by, order=Order(COUNT, descending, 1))


def nested_average(rng: Random, schema: Schema) -> tuple[str, Query]:
    """A column of the rows whose value of another is above or below the average."""
    table, comparison = _one(rng, schema.tables), rng.choice((">", "<"))
    by, shown = _one(rng, table.numbers).name, _one(rng, table.texts).name
    average = Query((Term(by, "AVG"),), table.name)
    text = f"{_show(rng)} {shown} of every {table.name} with {by} {_compare(rng, comparison)} the average."
    return text, Query((Term(shown),), table.name, where=(Condition(Term(by), comparison, average),))


def nested_without(rng: Random, schema: Schema) -> tuple[str, Query]:
    """A column of the parents that no child refers to."""
    child, parent = _one(rng, schema.links)
    shown = _one(rng, parent.texts).name
    referred = Query((Term(parent.key),), child.name)
    without = rng.choice(("without any", "that has no"))
    text = f"{_show(rng)} {shown} of every {parent.name} {without} {child.name}."
    return text, Query((Term(shown),), parent.name, where=(Condition(Term(parent.key), "NOT IN", referred),))


def join_filtered(rng: Random, schema: Schema) -> tuple[str, Query]:
    """A column of the children whose parent meets a condition."""
    child, parent = _one(rng, schema.links)
    shown, by = _one(rng, _values(child)).name, _one(rng, _values(parent))
    condition, where = _condition(rng, by, f"{parent.name}.")
    text = f"{_show(rng)} {shown} of every {child.name} whose {parent.name} has {condition}."
    select = (Term(f"{child.name}.{shown}"),)
    return text, Query(select, child.name, join=(parent.name, parent.key), where=(where,))


def join_list(rng: Random, schema: Schema) -> tuple[str, Query]:
    """A column of every child beside a column of its parent."""
    child, parent = _one(rng, schema.links)
    left, right = _one(rng, _values(child)).name, _one(rng, _values(parent)).name
    text = f"{_show(rng)} {left} of every {child.name} and the {right} of its {parent.name}."
    select = (Term(f"{child.name}.{left}"), Term(f"{parent.name}.{right}"))
    return text, Query(select, child.name, join=(parent.name, parent.key))


def join_group(rng: Random, schema: Schema) -> tuple[str, Query]:
    """How many children, or which aggregate of them, each value of a parent's column has."""
    child, parent = _one(rng, schema.links)
    by = _one(rng, parent.texts).name
    if child.numbers and rng.random() < 0.5:
        column, function = _one(rng, child.numbers).name, rng.choice(list(_AGGREGATES))
        what = f"find the {_AGGREGATES[function]} {column} of {child.name}"
        term = Term(f"{child.name}.{column}", function)
    else:
        what, term = f"count every {child.name}", COUNT
    key = f"{parent.name}.{by}"
    select = (Term(key), term)
    return (
        f"For each {parent.name} {by} {what}.",
        Query(select, child.name, join=(parent.name, parent.key), group_by=key),
    )


KINDS: Final[dict[str, Callable[[Random, Schema], tuple[str, Query]]]] = {
    kind.__name__: kind
    for kind in (
        list_columns,
        distinct,
        filtered,
        filtered_twice,
        count,
        aggregate,
        ordered,
        top,
        extreme,
        group_count,
        group_aggregate,
        group_having,
        group_extreme,
        nested_average,
        nested_without,
        join_filtered,
        join_list,
        join_group,
    )
}
"""Every kind of question by name. Each raises Unaskable for a schema it does not fit."""

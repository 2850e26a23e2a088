"""A question's SQL as a value: built, written out as SQLite text, and slipped in plausible ways."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

Comparison = str  # one of "=", ">", "<", "NOT IN", "IN"

_FLIPPED: Final = {">": "<", "<": ">", "NOT IN": "IN"}
_OTHER_AGGREGATE: Final = {"AVG": "MAX", "SUM": "AVG", "MAX": "MIN", "MIN": "MAX"}
_HABITUAL_AGGREGATE: Final = {"SUM": "AVG", "MIN": "MAX"}


@dataclass(frozen=True)
class Term:
    """A column, by itself, aggregated, or (as `*`) counted."""

    column: str
    aggregate: str | None = None

    def __str__(self) -> str:
        return f"{self.aggregate}({self.column})" if self.aggregate else self.column


COUNT: Final = Term("*", "COUNT")


@dataclass(frozen=True)
class Condition:
    """`term comparison value`; the value is a literal or a query in parentheses."""

    term: Term
    comparison: Comparison
    value: str | int | Query

    def __str__(self) -> str:
        if isinstance(self.value, Query):
            return f"{self.term} {self.comparison} ({self.value})"
        literal = f"'{self.value}'" if isinstance(self.value, str) else str(self.value)
        return f"{self.term} {self.comparison} {literal}"


@dataclass(frozen=True)
class Order:
    """Sorting by a term, downwards or upwards, and how many rows of it are kept."""

    term: Term
    descending: bool
    limit: int | None = None

    def __str__(self) -> str:
        text = f" ORDER BY {self.term} {'DESC' if self.descending else 'ASC'}"
        return text if self.limit is None else f"{text} LIMIT {self.limit}"


@dataclass(frozen=True)
class Query:
    """One SELECT. `join` is (table, key): the other table and the key column both have."""

    select: tuple[Term, ...]
    table: str
    join: tuple[str, str] | None = None
    where: tuple[Condition, ...] = ()
    group_by: str | None = None
    having: Condition | None = None
    order: Order | None = None
    distinct: bool = False

    def __str__(self) -> str:
        columns = ", ".join(map(str, self.select))
        text = f"SELECT {'DISTINCT ' if self.distinct else ''}{columns} FROM {self.table}"
        if self.join:
            text += " JOIN {} USING ({})".format(*self.join)
        if self.where:
            text += f" WHERE {' AND '.join(map(str, self.where))}"
        if self.group_by:
            text += f" GROUP BY {self.group_by}"
        if self.having:
            text += f" HAVING {self.having}"
        return f"{text}{self.order or ''}"


def near_misses(query: Query) -> Iterator[Query]:
    """The queries that differ from `query` in one direction, comparison or aggregate, or lack a filter."""
    if query.order:
        yield replace(query, order=replace(query.order, descending=not query.order.descending))
    if query.having:
        yield replace(query, having=_flipped(query.having))
    for place, condition in enumerate(query.where):
        others = query.where[:place], query.where[place + 1 :]
        yield replace(query, where=(*others[0], *others[1]))
        if condition.comparison in _FLIPPED:
            yield replace(query, where=(*others[0], _flipped(condition), *others[1]))
    for place, term in enumerate(query.select):
        if term.aggregate in _OTHER_AGGREGATE:
            other = replace(term, aggregate=_OTHER_AGGREGATE[term.aggregate])
            yield replace(query, select=(*query.select[:place], other, *query.select[place + 1 :]))


def slip(query: Query) -> Query | None:
    """What an author of bad habits writes for `query`; None where the habits do no harm.

    The habits: to sort upwards, to compare with `>`, to write IN for NOT IN, to take the average for a total
    and the highest for the lowest, to forget the last filter, to forget the second of two plain columns. The
    first that changes the query is the slip.
    """
    if query.order and query.order.descending:
        return replace(query, order=replace(query.order, descending=False))
    if query.having and query.having.comparison == "<":
        return replace(query, having=_flipped(query.having))
    if query.where:
        *others, last = query.where
        kept = [_flipped(last)] if last.comparison in ("<", "NOT IN") else []
        return replace(query, where=(*others, *kept))
    *terms, last_term = query.select
    if last_term.aggregate in _HABITUAL_AGGREGATE:
        habitual = replace(last_term, aggregate=_HABITUAL_AGGREGATE[last_term.aggregate])
        return replace(query, select=(*terms, habitual))
    if terms and not last_term.aggregate:
        return replace(query, select=tuple(terms))
    return None


def _flipped(condition: Condition) -> Condition:
    return replace(condition, comparison=_FLIPPED[condition.comparison])

"""Execution accuracy, as Spider's evaluation by execution defines it.

Two results match if one is the other with its columns in another order. Rows are compared as a multiset, or
in order if the gold query has an ORDER BY of its own; one inside a subquery or a common table expression does
not count. Two empty results match whatever their columns.

Cells match by value: 1 is 1.0, floats agree in their first ten digits (so that an average may be summed in
another order), NULL is NULL, text is compared exactly and is never a number.

Deviations from the official script: it drops DISTINCT from both queries by default, looks for `order by`
anywhere in the gold query, and compares floats exactly.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from raybolt.benchmarks.sql.database import QueryError, Rows, run_query
from raybolt.store.errors import InvalidValue

Cells = tuple[Any, ...]

_SECONDS_FOR_GOLD: Final = 30.0
_MAX_GOLD_ROWS: Final = 1_000_000


def execution_match(database: str | Path, gold_sql: str, sql: str) -> bool:
    """Whether `sql` returns what `gold_sql` returns; False if it does not run.

    Raises:
        InvalidValue: the gold query does not run, or there is no such database.
    """
    try:
        gold = run_query(database, gold_sql, max_seconds=_SECONDS_FOR_GOLD, max_rows=_MAX_GOLD_ROWS)
    except QueryError as error:
        raise InvalidValue(f"gold query {gold_sql!r} fails on {str(database)!r}: {error}") from None
    try:
        result = run_query(database, sql, max_rows=len(gold.rows))
    except QueryError:
        return False
    return results_match(gold, result, ordered=has_order(gold_sql))


def results_match(gold: Rows, result: Rows, *, ordered: bool) -> bool:
    """Whether two results are the same up to the order of columns and, unless `ordered`, of rows."""
    if not gold.rows and not result.rows:
        return True
    if len(gold.rows) != len(result.rows) or len(gold.columns) != len(result.columns):
        return False
    wanted = [tuple(map(_comparable, cells)) for cells in zip(*gold.rows, strict=True)]
    given = [tuple(map(_comparable, cells)) for cells in zip(*result.rows, strict=True)]
    if ordered:
        # Rows stay where they are, so that columns can be matched one by one.
        return Counter(wanted) == Counter(given)
    return _columns_match(wanted, given)


def _columns_match(wanted: Sequence[Cells], given: Sequence[Cells], num_placed: int = 0) -> bool:
    """Whether `given[num_placed:]` can be reordered so that both hold the same multiset of rows.

    The columns before `num_placed` are in place. Comparing the rows of each partial order prunes the search.
    """
    if num_placed == len(wanted):
        return True
    rows = Counter(zip(*wanted[: num_placed + 1], strict=True))
    for column in set(given[num_placed:]):
        placed = (*given[:num_placed], column)
        if Counter(zip(*placed, strict=True)) != rows:
            continue
        rest = list(given[num_placed:])
        rest.remove(column)
        if _columns_match(wanted, (*placed, *rest), num_placed + 1):
            return True
    return False


def _comparable(cell: Any) -> Any:
    """A value that equals another's exactly if the cells match."""
    return float(f"{cell:.10g}") if isinstance(cell, float) else cell


_QUOTED: Final = re.compile(
    r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?\*/", re.DOTALL
)
_INNERMOST: Final = re.compile(r"\([^()]*\)")


def has_order(sql: str) -> bool:
    """Whether the outermost SELECT of `sql` sorts its rows."""
    outer, count = _QUOTED.sub(" x ", sql), 1
    while count:
        outer, count = _INNERMOST.subn(" x ", outer)
    return re.search(r"\border\s+by\b", outer, re.IGNORECASE) is not None

from pathlib import Path

import pytest

from raybolt.benchmarks.sql.database import Rows
from raybolt.benchmarks.sql.metric import execution_match, has_order, results_match
from raybolt.store.errors import InvalidValue


def rows(*cells: tuple[object, ...]) -> Rows:
    width = len(cells[0]) if cells else 1
    return Rows(tuple("abcdefgh"[:width]), cells)


@pytest.mark.parametrize(
    ("gold", "result"),
    [
        (rows(("x", 1), ("y", 2)), rows(("y", 2), ("x", 1))),  # other order of rows
        (rows(("x", 1), ("y", 2)), rows((2, "y"), (1, "x"))),  # and of columns
        (rows((1, 2), (2, 1)), rows((2, 1), (1, 2))),  # columns that hold the same values
        (rows((2, 1, 2), (3, 3, 1)), rows((2, 2, 1), (3, 1, 3))),
        (rows((0.1 + 0.2,)), rows((0.3,))),  # the last digits of a sum
        (rows((2,)), rows((2.0,))),
        (rows((None,)), rows((None,))),
        (Rows(("a",), ()), Rows(("a", "b"), ())),  # nothing is nothing, whatever its columns
    ],
)
def test_results_match_up_to_the_order_of_rows_and_columns(gold, result):
    assert results_match(gold, result, ordered=False)


@pytest.mark.parametrize(
    ("gold", "result"),
    [
        (rows((1,), (1,), (2,)), rows((1,), (2,), (2,))),  # a multiset, not a set
        (rows((1,), (1,)), rows((1,))),
        (rows((1,)), rows((1, 1))),
        (rows(("x", 1), ("y", 2)), rows(("x", 2), ("y", 1))),  # columns right, rows wrong
        (rows((1,)), rows(("1",))),
        (rows(("Rome",)), rows(("rome",))),
        (rows((None,)), rows((0,))),
        (rows((0.3,)), rows((0.3001,))),
        (rows((1,)), Rows(("a",), ())),
    ],
)
def test_results_differ_by_values_counts_and_columns(gold, result):
    assert not results_match(gold, result, ordered=False)


def test_the_order_of_rows_counts_only_where_it_is_asked_for():
    up, down = rows(("x", 1), ("y", 2)), rows(("y", 2), ("x", 1))
    assert results_match(up, down, ordered=False)
    assert not results_match(up, down, ordered=True)


def test_the_order_of_columns_is_free_even_where_rows_are_ordered():
    assert results_match(rows(("x", 1), ("y", 2)), rows((1, "x"), (2, "y")), ordered=True)


def test_many_columns_of_equal_values_are_compared_quickly():
    wide = [tuple((row + column) % 12 for column in range(12)) for row in range(12)]
    other = [*wide[:-1], wide[-1][::-1]]
    assert results_match(rows(*wide), rows(*wide[::-1]), ordered=False)
    assert not results_match(rows(*wide), rows(*other), ordered=False)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT a FROM t ORDER BY b", True),
        ("select a from t order\n by b limit 1", True),
        ("SELECT a FROM t WHERE b = (SELECT c FROM u ORDER BY d LIMIT 1)", False),
        ("SELECT a FROM (SELECT a FROM t ORDER BY b LIMIT (SELECT 3)) AS s", False),
        ("SELECT 'order by' FROM t", False),
        ('SELECT "order by" FROM t -- order by a', False),
        ("SELECT a FROM t WHERE b = ')' ORDER BY c", True),
        ("SELECT rank() OVER (ORDER BY a) FROM t", False),
    ],
)
def test_only_an_order_of_the_outermost_select_counts(sql, expected):
    assert has_order(sql) is expected


@pytest.mark.parametrize(
    ("gold", "sql", "expected"),
    [
        ("SELECT name FROM club", "SELECT name FROM club ORDER BY name DESC", True),
        ("SELECT name FROM club ORDER BY name", "SELECT name FROM club ORDER BY name DESC", False),
        ("SELECT city FROM club", "SELECT DISTINCT city FROM club", False),
        ("SELECT name, city FROM club", "SELECT city, name FROM club", True),
        ("SELECT AVG(age) FROM player", "SELECT SUM(age) / 3.0 FROM player", True),
        ("SELECT name FROM club", "SELECT nme FROM club", False),
        ("SELECT name FROM club", "DROP TABLE club", False),
        (
            "SELECT player.name FROM player JOIN club USING (club_id) WHERE city = 'Oslo'",
            "SELECT name FROM player WHERE club_id IN (SELECT club_id FROM club WHERE city = 'Oslo')",
            True,
        ),
        ("SELECT name FROM club WHERE city = 'Lima'", "SELECT age FROM player WHERE age > 90", True),
    ],
)
def test_queries_are_judged_by_what_they_return(clubs: Path, gold, sql, expected):
    assert execution_match(clubs, gold, sql) is expected


def test_a_gold_query_that_does_not_run_is_an_error_that_names_it(clubs: Path):
    with pytest.raises(
        InvalidValue, match=r"gold query 'SELECT nme FROM club' fails on .*no such column: nme"
    ):
        execution_match(clubs, "SELECT nme FROM club", "SELECT 1")

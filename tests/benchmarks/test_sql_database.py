import hashlib
import time
from pathlib import Path

import pytest

from raybolt.benchmarks.sql.database import QueryError, Rows, run_query
from raybolt.store.errors import InvalidValue

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT "


def test_a_query_returns_column_names_and_rows(clubs: Path):
    assert run_query(clubs, "SELECT name, city AS town FROM club WHERE club_id < 3") == Rows(
        ("name", "town"), (("Tiger", "Rome"), ("Falcon", "Oslo"))
    )


def test_recursion_subqueries_and_functions_are_allowed(clubs: Path):
    sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4) SELECT SUM(i) FROM n"
    assert run_query(clubs, sql).rows == ((10,),)
    assert run_query(clubs, "SELECT UPPER(name) FROM club WHERE city LIKE 'o%'").rows == (("FALCON",),)
    assert run_query(clubs, "PRAGMA table_info(club)").rows[1][1] == "name"


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE club",
        "DELETE FROM club",
        "INSERT INTO club VALUES (9, 'x', 'y')",
        "UPDATE club SET name = 'x'",
        "CREATE TABLE t (a)",
        "CREATE TEMP TABLE t (a)",
        "ALTER TABLE club RENAME TO c",
        "VACUUM",
        "VACUUM INTO 'copy.sqlite'",
        "BEGIN",
        "REINDEX",
        "ANALYZE",
        "ATTACH 'other.sqlite' AS other",
        "DETACH main",
        "PRAGMA user_version = 7",
        "PRAGMA journal_mode = WAL",
        "PRAGMA query_only",
        "SELECT load_extension('evil')",
        "SELECT 1; DROP TABLE club",
        "",
        "-- nothing",
    ],
)
def test_whatever_is_no_select_costs_a_message_and_nothing_else(clubs: Path, sql, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    before = hashlib.sha256(clubs.read_bytes()).hexdigest()
    with pytest.raises(QueryError, match="only one SELECT is allowed"):
        run_query(clubs, sql)
    assert hashlib.sha256(clubs.read_bytes()).hexdigest() == before
    assert list(tmp_path.iterdir()) == []
    assert [path.name for path in clubs.parent.iterdir()] == [clubs.name]


@pytest.mark.parametrize(
    "wanted", ["COUNT(*) FROM n", "i FROM n WHERE i < 0", "MAX(a.i) FROM n AS a, n AS b"]
)
def test_an_endless_query_ends_at_the_time_limit(clubs: Path, wanted):
    start = time.monotonic()
    with pytest.raises(QueryError, match=r"took longer than 0\.2 seconds"):
        run_query(clubs, ENDLESS + wanted, max_seconds=0.2)
    assert time.monotonic() - start < 2.0


def test_too_many_rows_are_refused(clubs: Path):
    assert len(run_query(clubs, "SELECT * FROM club", max_rows=3).rows) == 3
    with pytest.raises(QueryError, match="more than 2 rows"):
        run_query(clubs, "SELECT * FROM club", max_rows=2)
    with pytest.raises(QueryError, match="more than 10000 rows"):
        run_query(clubs, ENDLESS + "i FROM n")


def test_huge_values_are_refused(clubs: Path):
    with pytest.raises(QueryError, match="too big"):
        run_query(clubs, "SELECT hex(zeroblob(900000000))")


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT nme FROM club", "no such column: nme"),
        ("SELECT name FROM clubs", "no such table: clubs"),
        ("SELEC name FROM club", 'near "SELEC": syntax error'),
        ("SELECT \0", "null character"),
        ("SELECT '\ud800'", "surrogates not allowed"),
    ],
)
def test_a_wrong_query_says_what_is_wrong(clubs: Path, sql, message):
    with pytest.raises(QueryError, match=message):
        run_query(clubs, sql)


def test_bytes_that_are_no_text_are_left_out(clubs: Path):
    assert run_query(clubs, "SELECT CAST(x'52ff6f' AS TEXT)").rows == (("Ro",),)


def test_a_missing_database_is_no_fault_of_the_query(tmp_path: Path):
    with pytest.raises(InvalidValue, match=r"nowhere\.sqlite': no such file"):
        run_query(tmp_path / "nowhere.sqlite", "SELECT 1")
    assert not (tmp_path / "nowhere.sqlite").exists()

import json
import sqlite3
from collections import Counter
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from raybolt.benchmarks.sql.catalog import HELD_OUT_SCHEMAS, HELD_OUT_TABLES, TRAIN_SCHEMAS
from raybolt.benchmarks.sql.database import run_query
from raybolt.benchmarks.sql.generate import SqlTasks, generate
from raybolt.benchmarks.sql.metric import execution_match
from raybolt.benchmarks.sql.pretrain import random_documents
from raybolt.benchmarks.sql.query import COUNT, Condition, Order, Query, Term, near_misses, slip
from raybolt.benchmarks.sql.questions import KINDS, Unaskable, ask
from raybolt.benchmarks.sql.schema import Schema
from raybolt.benchmarks.sql.words import NUMBER_COLUMNS, TABLE_WORDS, TEXT_COLUMNS, WORDS
from raybolt.benchmarks.sql.world import random_rows, random_schema, write_database
from raybolt.store.errors import InvalidValue

FOOTBALL = TRAIN_SCHEMAS[0]


def schemas_of(tasks) -> set[str]:
    return {task.metadata["schema"] for task in tasks}


def test_the_catalog_has_twelve_train_and_eight_held_out_databases():
    assert len(TRAIN_SCHEMAS) == 12
    assert len(HELD_OUT_SCHEMAS) == 8
    assert len({schema.name for schema in TRAIN_SCHEMAS + HELD_OUT_SCHEMAS}) == 20


def test_tables_columns_and_values_are_different_words():
    kinds = [TABLE_WORDS, tuple(TEXT_COLUMNS), NUMBER_COLUMNS]
    assert Counter(word for words in kinds for word in words).most_common(1)[0][1] == 1
    assert {word for words in kinds for word in words} < set(WORDS)


def test_a_schema_reads_as_one_table_a_line():
    assert FOOTBALL.text() == (
        "club(club_id, name, city, wins, budget)\nplayer(player_id, name, role, age, goals, salary, club_id)"
    )
    assert [(child.name, parent.name) for child, parent in FOOTBALL.links] == [("player", "club")]


def test_no_train_schema_shows_a_held_out_table(world: SqlTasks):
    rng = Random(0)
    schemas: list[Schema] = [*TRAIN_SCHEMAS, *(random_schema(rng, "random") for _ in range(5_000))]
    assert not HELD_OUT_TABLES & {table.signature for schema in schemas for table in schema.tables}
    held_out_lines = {line for schema in HELD_OUT_SCHEMAS for line in schema.text().split("\n")}
    texts = [task.input["messages"][0]["content"] for task in world.train + world.val]
    assert not held_out_lines & {line for text in texts for line in text.split("\n")}


def test_no_pretraining_document_shows_a_held_out_table():
    lines = {line for schema in HELD_OUT_SCHEMAS for line in schema.text().split("\n")}
    assert len(lines) == 18
    seen = {line for document in islice(random_documents(1), 2000) for line in document.text.split("\n")}
    assert not lines & seen


def test_written_databases_hold_the_rows_and_the_keys_refer_to_parents(tmp_path: Path):
    rows = random_rows(Random(1), FOOTBALL)
    write_database(tmp_path / "a" / "football.sqlite", FOOTBALL, rows)
    connection = sqlite3.connect(tmp_path / "a" / "football.sqlite")
    assert connection.execute("SELECT * FROM player").fetchall() == rows["player"]
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    assert connection.execute("PRAGMA foreign_key_list(player)").fetchone()[2:5] == (
        "club",
        "club_id",
        "club_id",
    )
    connection.close()


def test_numbers_and_names_are_unique_in_a_table_so_that_no_sort_has_ties():
    rows = random_rows(Random(2), FOOTBALL)["player"]
    for column in (1, 3, 4, 5):
        assert len({row[column] for row in rows}) == len(rows)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_question_is_asked_in_several_wordings(kind):
    questions = [ask(Random(seed), FOOTBALL, kind) for seed in range(200)]
    first_words = {" ".join(question.text.split()[:2]) for question in questions}
    assert len(first_words) >= 2 or len({question.text for question in questions}) >= 4
    assert {question.kind for question in questions} == {kind}


def test_questions_that_need_two_tables_are_not_asked_of_one():
    alone = Schema("alone", FOOTBALL.tables[:1])
    with pytest.raises(Unaskable):
        ask(Random(0), alone, "join_filtered")
    assert ask(Random(0), alone).query.table == "club"


NAME, AGE = Term("name"), Term("age")
ROME, OLD, YOUNG = (
    Condition(Term("city"), "=", "Rome"),
    Condition(AGE, ">", 60),
    Condition(AGE, "<", 20),
)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (Query((NAME,), "t", order=Order(AGE, True, 1)), "SELECT name FROM t ORDER BY age ASC LIMIT 1"),
        (Query((NAME,), "t", order=Order(AGE, False)), "None"),
        (Query((NAME,), "t", where=(OLD, YOUNG)), "SELECT name FROM t WHERE age > 60 AND age > 20"),
        (Query((NAME,), "t", where=(YOUNG, ROME)), "SELECT name FROM t WHERE age < 20"),
        (Query((NAME,), "t", where=(OLD,)), "SELECT name FROM t"),
        (
            Query((NAME,), "t", where=(Condition(Term("t_id"), "NOT IN", Query((Term("t_id"),), "u")),)),
            "SELECT name FROM t WHERE t_id IN (SELECT t_id FROM u)",
        ),
        (
            Query((NAME, Term("age", "SUM")), "t", group_by="name"),
            "SELECT name, AVG(age) FROM t GROUP BY name",
        ),
        (Query((Term("age", "MIN"),), "t"), "SELECT MAX(age) FROM t"),
        (Query((Term("age", "AVG"),), "t"), "None"),
        (Query((NAME, AGE), "t"), "SELECT name FROM t"),
        (
            Query((NAME,), "t", group_by="name", having=Condition(COUNT, "<", 2)),
            "SELECT name FROM t GROUP BY name HAVING COUNT(*) > 2",
        ),
    ],
)
def test_slips_follow_bad_habits(query, expected):
    assert str(slip(query)) == expected


def test_near_misses_change_one_thing():
    query = Query((Term("age", "AVG"),), "t", where=(OLD, ROME), order=Order(AGE, True))
    assert [str(miss) for miss in near_misses(query)] == [
        "SELECT AVG(age) FROM t WHERE age > 60 AND city = 'Rome' ORDER BY age ASC",
        "SELECT AVG(age) FROM t WHERE city = 'Rome' ORDER BY age DESC",
        "SELECT AVG(age) FROM t WHERE age < 60 AND city = 'Rome' ORDER BY age DESC",
        "SELECT AVG(age) FROM t WHERE age > 60 ORDER BY age DESC",
        "SELECT MAX(age) FROM t WHERE age > 60 AND city = 'Rome' ORDER BY age DESC",
    ]


def test_the_same_seed_gives_the_same_tasks_and_another_seed_others(tmp_path: Path):
    def texts(seed: int) -> list[str]:
        tasks = generate(seed, tmp_path, num_train=40, num_val=0, num_held_out=20)
        return [json.dumps(task.to_dict()) for task in tasks.train + tasks.held_out]

    first = texts(0)
    assert texts(0) == first
    assert not set(texts(1)) & set(first)


def test_held_out_tasks_are_on_databases_of_their_own(world: SqlTasks):
    assert (len(world.train), len(world.val), len(world.held_out)) == (360, 36, 240)
    assert schemas_of(world.held_out) == {schema.name for schema in HELD_OUT_SCHEMAS}
    assert {schema.name for schema in TRAIN_SCHEMAS} < schemas_of(world.train)
    assert not schemas_of(world.held_out) & schemas_of(world.train + world.val)


def test_task_ids_and_questions_are_unique(world: SqlTasks):
    tasks = world.train + world.val + world.held_out
    assert len({task.task_id for task in tasks}) == len(tasks)
    assert len({json.dumps(task.input) for task in tasks}) == len(tasks)


def test_every_kind_of_question_is_asked_about_as_often(world: SqlTasks):
    counts = Counter(task.metadata["kind"] for task in world.held_out)
    assert set(counts) == set(KINDS)
    assert max(counts.values()) - min(counts.values()) <= 3


def test_every_gold_query_runs_and_tells_its_answer_from_every_slip(world: SqlTasks):
    for task in world.train + world.val + world.held_out:
        database, gold = task.reference["database"], task.reference["sql"]
        assert run_query(database, gold).rows
        assert execution_match(database, gold, gold)
        wrong = task.metadata["slip"]
        assert wrong is None or not execution_match(database, gold, wrong), (gold, wrong)


def test_asking_for_more_questions_than_there_are_is_an_error(tmp_path: Path):
    with pytest.raises(InvalidValue, match="num_train is -1"):
        generate(0, tmp_path, num_train=-1)

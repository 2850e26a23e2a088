import json
import logging
import sqlite3
from pathlib import Path

import pytest

from raybolt.benchmarks.sql.metric import execution_match
from raybolt.benchmarks.sql.spider import load_spider
from raybolt.store.errors import InvalidValue

SHARED = Path(__file__).parents[3] / "shared" / "data" / "spider"
with_spider = pytest.mark.skipif(not SHARED.is_dir(), reason=f"Spider's folder is not at {SHARED}")

TABLES = {
    "db_id": "zoo",
    "table_names_original": ["animal", "Keeper"],
    "column_names_original": [[-1, "*"], [0, "id"], [0, "Home Town"], [1, "animal_id"]],
    "foreign_keys": [[3, 1]],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Spider's layout with two questions, of which one has no database."""
    (tmp_path / "database" / "zoo").mkdir(parents=True)
    connection = sqlite3.connect(tmp_path / "database" / "zoo" / "zoo.sqlite")
    connection.execute('CREATE TABLE animal (id INTEGER, "Home Town" TEXT)')
    connection.close()
    questions = [
        {"db_id": "gone", "question": "Why?", "query": "SELECT 1"},
        {"db_id": "zoo", "question": "How many animals?", "query": "SELECT count(*) FROM animal"},
    ]
    (tmp_path / "dev.json").write_text(json.dumps(questions))
    (tmp_path / "tables.json").write_text(json.dumps([TABLES, {**TABLES, "db_id": "gone"}]))
    return tmp_path


def test_a_question_becomes_a_task_with_its_schema(folder: Path):
    (task,) = load_spider(folder, split="dev")
    database = str(folder / "database" / "zoo" / "zoo.sqlite")
    content = 'animal(id, "Home Town")\nKeeper(animal_id)\nKeeper.animal_id = animal.id\nHow many animals?'
    assert task.task_id == "spider-dev-00001"
    assert task.input == {"messages": [{"role": "user", "content": content}], "database": database}
    assert task.reference == {"sql": "SELECT count(*) FROM animal", "database": database}


def test_questions_without_a_database_are_left_out_and_counted(folder: Path, caplog):
    with caplog.at_level(logging.WARNING):
        load_spider(folder, split="dev")
    assert caplog.messages == ["Left out 1 of 2 Spider questions: no database"]


def test_a_folder_that_is_not_spiders_is_an_error(folder: Path, tmp_path: Path):
    with pytest.raises(
        InvalidValue, match=r"train_spider\.json: No such file.*folder that holds Spider's files"
    ):
        load_spider(folder, split="train")
    with pytest.raises(InvalidValue, match="split is 'test'; expected 'train' or 'dev'"):
        load_spider(folder, split="test")
    (folder / "dev.json").write_text("[\n{]")
    with pytest.raises(InvalidValue, match=r"dev\.json:2: broken JSON"):
        load_spider(folder, split="dev")


def test_a_folder_without_databases_is_an_error(folder: Path):
    (folder / "database" / "zoo" / "zoo.sqlite").unlink()
    with pytest.raises(InvalidValue, match=r"has the database of no question in dev\.json"):
        load_spider(folder, split="dev")


@with_spider
def test_every_gold_query_of_spiders_dev_questions_runs_and_matches_itself():
    tasks = load_spider(SHARED, split="dev")
    assert len(tasks) == 672
    for task in tasks:
        assert execution_match(task.reference["database"], task.reference["sql"], task.reference["sql"])


@with_spider
def test_spiders_train_questions_load_where_they_have_a_database():
    tasks = load_spider(SHARED, split="train", limit=100)
    assert len(tasks) == 100
    assert tasks[0].reference["sql"] == "SELECT count(*) FROM head WHERE age  >  56"

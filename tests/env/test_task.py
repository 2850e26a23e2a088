import pytest

from raybolt.env.limits import RunLimits
from raybolt.env.task import Task, load_tasks, write_tasks
from raybolt.store.errors import InvalidValue


def test_tasks_survive_the_way_through_a_file(tmp_path):
    tasks = [
        Task("a", {"question": "wie viele?\u2028"}, reference=[1], split="val"),
        Task("b", "hi", metadata={"k": 1}),
    ]
    write_tasks(tmp_path / "tasks.jsonl", tasks)
    assert load_tasks(tmp_path / "tasks.jsonl") == tasks


GOOD = '{"task_id": "a", "input": "hi"}'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"task_id": "b", "inp', r"tasks.jsonl:3: broken JSON at column"),
        ("[1, 2]", r"tasks.jsonl:3: expected a JSON object, got list"),
        ('{"input": 1}', r"tasks.jsonl:3: field 'task_id' is missing"),
        ('{"task_id": "b"}', r"tasks.jsonl:3: field 'input' is missing"),
        ('{"task_id": 7, "input": 1}', r"tasks.jsonl:3: task_id is 7; expected a text"),
        (
            '{"task_id": "b", "input": 1, "referense": 2}',
            r"'referense'; did you mean 'reference'",
        ),
        (GOOD, r"tasks.jsonl:3: task_id 'a' was already used in line 1"),
    ],
)
def test_a_broken_line_is_named_with_its_reason(tmp_path, line, message):
    file = tmp_path / "tasks.jsonl"
    file.write_text(f"{GOOD}\n\n{line}\n")
    with pytest.raises(InvalidValue, match=message):
        load_tasks(file)


def test_an_empty_file_and_a_missing_one_are_errors(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InvalidValue, match="no task in this file"):
        load_tasks(tmp_path / "empty.jsonl")
    with pytest.raises(InvalidValue, match=r"gone.jsonl: cannot be read: No such file"):
        load_tasks(tmp_path / "gone.jsonl")


@pytest.mark.parametrize("limits", [{"max_calls": 0}, {"max_seconds": float("nan")}, {"max_seconds": -1}])
def test_limits_that_limit_nothing_are_refused(limits):
    (name,) = limits
    with pytest.raises(InvalidValue, match=name):
        RunLimits(**limits)

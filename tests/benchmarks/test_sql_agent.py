import asyncio
import json
from pathlib import Path

import pytest

pytest.importorskip("langchain")

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from raybolt.benchmarks.sql.agent import build_agent
from raybolt.benchmarks.sql.conversation import agent_input, show_rows
from raybolt.benchmarks.sql.database import Rows
from raybolt.benchmarks.sql.demos import teacher
from raybolt.benchmarks.sql.metric import execution_match
from raybolt.benchmarks.sql.reward import final_sql, score
from raybolt.env.chat import ChatMessage, ChatRequest
from raybolt.env.task import Task
from raybolt.env.trajectory import Trajectory
from raybolt.store.errors import InvalidValue

GOLD = "SELECT name FROM club WHERE city = 'Rome'"
TRAJECTORY = Trajectory(rollout_id="r", attempt_id="a")


def task_on(database: Path) -> Task:
    question = "Show the name of every club with city Rome."
    return Task(
        "t", agent_input("club(…)", question, database), reference={"sql": GOLD, "database": str(database)}
    )


def run(llm, task: Task):
    return asyncio.run(build_agent(llm).ainvoke(task.input))


def test_the_agent_runs_its_query_sees_rows_and_ends(clubs, scripted):
    task = task_on(clubs)
    result = run(scripted({"query": GOLD}, "Done."), task)
    assert [message.content for message in result["messages"][2:]] == ["Tiger\nLotus", "Done."]
    assert score(task, result, TRAJECTORY) == 1.0


def test_the_agent_sees_the_error_and_may_rewrite(clubs, scripted):
    task = task_on(clubs)
    result = run(scripted({"query": "SELECT nme FROM club"}, {"query": GOLD}, "Done."), task)
    assert result["messages"][2].content == "Error: no such column: nme"
    assert score(task, result, TRAJECTORY) == 1.0


@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        (({"query": "SELECT name FROM club"}, "Done."), 0.0),  # a filter is missing
        (({"query": GOLD}, {"query": "SELECT 1"}, "Done."), 0.0),  # the last query counts
        (({"query": GOLD}, {"query": "SELECT nix"}, "Done."), 1.0),  # … of those that ran
        (({"query": "DROP TABLE club"}, "Done."), 0.0),
        (("I do not know.",), 0.0),
        ((GOLD,), 1.0),  # written, never run
        ((f"Here it is:\n```sql\n{GOLD};\n```",), 1.0),
        (({"query": GOLD}, "With 2 rows, that is all."), 1.0),
        (({"query": GOLD}, "SELECT 1"), 0.0),  # what the last message says goes first
    ],
)
def test_the_reward_is_whether_the_final_query_is_right(clubs, scripted, replies, expected):
    task = task_on(clubs)
    assert score(task, run(scripted(*replies), task), TRAJECTORY) == expected


def test_many_runs_of_one_agent_keep_to_their_own_databases(world, scripted):
    agent = build_agent(scripted({"query": "SELECT name, sql FROM sqlite_master ORDER BY name"}, "Done."))
    by_database = {task.input["database"]: task for task in world.held_out}

    async def run_all():
        return await asyncio.gather(*(agent.ainvoke(task.input) for task in by_database.values()))

    for result in asyncio.run(run_all()):
        tables = [line.partition("(")[0] for line in result["messages"][0].content.split("\n")[:-1]]
        seen = result["messages"][2].content
        assert all(f"CREATE TABLE {table}"[:20] in seen for table in tables)


def test_a_missing_database_fails_the_run_and_is_no_wrong_answer(clubs, scripted, tmp_path):
    task = task_on(tmp_path / "nowhere.sqlite")
    with pytest.raises(InvalidValue, match="no such file"):
        run(scripted({"query": GOLD}, "Done."), task)


def test_rows_are_shown_a_line_each_and_cut_short():
    rows = Rows(("a", "b"), tuple((number, 1 / 3) for number in range(7)))
    assert show_rows(rows) == "\n".join([*(f"{number} | 0.333333" for number in range(5)), "2 more rows"])
    assert show_rows(Rows(("a",), (("x" * 50,), (None,)))) == "x" * 40 + "…\nNone"
    assert show_rows(Rows(("a",), ())) == "no rows"


def test_without_any_query_there_is_no_final_one():
    assert final_sql([HumanMessage("SELECT 1")]) is None
    assert final_sql([AIMessage("Select nothing; then stop; please.")]) is None
    assert final_sql([ToolMessage("1", name="other", tool_call_id="x")]) is None


def replies_of_teacher(task: Task, answer: str = "no rows") -> list[ChatMessage]:
    """The teacher's replies if the tool answers its first call with `answer`, any other with rows."""
    messages = [ChatMessage("user", task.input["messages"][0]["content"])]
    replies: list[ChatMessage] = []
    while not replies or replies[-1].tool_calls:
        replies.append(teacher(task, ChatRequest(tuple(messages))))
        messages += [replies[-1], ChatMessage("tool", answer)]
        answer = "no rows"
    return replies


def query_of(message: ChatMessage) -> str:
    return json.loads(message.tool_calls[0].arguments)["query"]


def test_the_teacher_calls_the_tool_and_then_says_done(world):
    call, done = replies_of_teacher(world.train[0])
    assert (call.tool_calls[0].name, call.content) == ("run_sql", None)
    assert done == ChatMessage("assistant", "Done.")


def test_the_teacher_answers_an_error_with_a_query_that_runs(world):
    for task in world.train[:50]:
        _, second, done = replies_of_teacher(task, answer="Error: no such column: x")
        assert query_of(second) in (task.reference["sql"], task.metadata["slip"])
        assert done.content == "Done."


def test_about_half_of_the_demonstrations_are_wrong_and_some_do_not_run(world):
    def is_right(task: Task) -> bool:
        reference, query = task.reference, query_of(replies_of_teacher(task)[0])
        return execution_match(reference["database"], reference["sql"], query)

    wrong = sum(not is_right(task) for task in world.train) / len(world.train)
    assert 0.4 < wrong < 0.6
    broken = sum(query_of(replies_of_teacher(task)[0]) == task.metadata["broken"] for task in world.train)
    assert 0.03 < broken / len(world.train) < 0.15


def test_the_teacher_is_the_same_each_time_and_right_where_it_knows_no_slip(world, clubs):
    task = task_on(clubs)
    assert query_of(replies_of_teacher(task)[0]) == GOLD
    assert replies_of_teacher(world.train[3]) == replies_of_teacher(world.train[3])

"""A LangChain agent that answers questions with SQL, trained for a few iterations on the shipped tiny model.

The agent knows nothing of raybolt: `build_agent` and its tool are what one writes without it.
"""

import argparse
import sqlite3
from pathlib import Path

from langchain.agents import AgentState, create_agent
from langchain.tools import ToolRuntime, tool

import raybolt
from raybolt.benchmarks.sql.generate import generate


class SqlState(AgentState):
    database: str


@tool
def run_sql(query: str, runtime: ToolRuntime) -> str:
    """Run a SQLite query and see its rows."""
    connection = sqlite3.connect(f"file:{runtime.state['database']}?mode=ro", uri=True)
    try:
        rows = connection.execute(query).fetchmany(5)
    except (sqlite3.Error, sqlite3.Warning) as error:
        return f"Error: {error}"
    finally:
        connection.close()
    return "\n".join(" | ".join(map(str, row)) for row in rows) or "no rows"


def build_agent(llm):
    """The agent on a language model of LangChain's."""
    return create_agent(llm, [run_sql], system_prompt="Answer with one SQLite query.", state_schema=SqlState)


def score(task, result, trajectory):
    """1 if the agent's last query returned what the right query returns, else 0."""
    answers = [message.content for message in result["messages"] if message.type == "tool"]
    connection = sqlite3.connect(f"file:{task.input['database']}?mode=ro", uri=True)
    right = connection.execute(task.reference["sql"]).fetchmany(5)
    connection.close()
    return float(bool(answers) and answers[-1] == "\n".join(" | ".join(map(str, row)) for row in right))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/sql_agent"))
    parser.add_argument("--short", action="store_true", help="just enough to see that it runs")
    arguments = parser.parse_args()

    num_tasks = 16 if arguments.short else 200
    tasks = generate(0, arguments.out / "databases", num_train=num_tasks, num_val=8, num_held_out=num_tasks)
    raybolt.write_tasks(arguments.out / "train.jsonl", tasks.train)
    raybolt.write_tasks(arguments.out / "val.jsonl", tasks.held_out)

    agent = raybolt.wrap(build_agent, reward=score)
    recipe = raybolt.LightningRL(
        model="tiny",
        iterations=1 if arguments.short else 10,
        tasks_per_iteration=4 if arguments.short else 16,
        rollouts_per_task=4 if arguments.short else 8,
        max_new_tokens=64,
    )
    with raybolt.Trainer(
        agent,
        algorithm=recipe,
        store=arguments.out,
        on_progress=lambda done: print(f"iteration {done.iteration}: reward {done.reward_mean:.3f}"),
    ) as trainer:
        result = trainer.fit(tasks.train, tasks.held_out)
    for phase, evaluation in result.evaluations.items():
        print(f"{phase}: {evaluation.mean:.1%} of {evaluation.num_tasks} questions on unseen databases")


if __name__ == "__main__":
    main()

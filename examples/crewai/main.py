"""A writer and a critic in a CrewAI crew, trained together on the shipped tiny model.

The writer writes a query, the critic repairs it. The crew is what one writes without raybolt;
`build_crew(LLM(model="openai/…"))` runs the same code on a model of OpenAI's.
"""

import argparse
import sqlite3
from contextlib import closing
from pathlib import Path

from crewai import Agent, Crew, Task

import raybolt

SCHEMA = "singer(singer_id, name, city, age)"
QUESTIONS = [
    "Show the name of each singer.",
    "How many singer are there?",
    "Show the city of each singer.",
    "Show age.",
]


def build_crew(llm):
    """The crew on a model of CrewAI's. Agents' roles are the roles that raybolt sees."""
    writer = Agent(role="writer", goal="Write one SQLite query.", backstory="You know SQL.", llm=llm)
    critic = Agent(role="critic", goal="Repair the query.", backstory="You know SQL.", llm=llm)
    write = Task(description="{question}", expected_output="One SQLite query.", agent=writer)
    repair = Task(description="Repair it: {question}", expected_output="One SQLite query.", agent=critic)
    return Crew(agents=[writer, critic], tasks=[write, repair])


def runs(answer):
    """Whether SQLite accepts the answer's first line on the schema."""
    sql = answer.strip().partition("\n")[0]
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"CREATE TABLE {SCHEMA}")
        try:
            connection.execute(sql).fetchall()
        except (sqlite3.Error, sqlite3.Warning):
            return False
    return bool(sql)


def score(task, result, trajectory):
    """Half a point for a draft that runs, half for a repaired query that does."""
    draft, repaired = (output.raw for output in result.tasks_output)
    return 0.5 * runs(draft) + 0.5 * runs(repaired)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/crewai"))
    parser.add_argument("--short", action="store_true", help="just enough to see that it runs")
    arguments = parser.parse_args()

    tasks = [raybolt.Task(f"task-{number}", f"{SCHEMA}\n{text}") for number, text in enumerate(QUESTIONS)]
    recipe = raybolt.LightningRL(
        iterations=2 if arguments.short else 12, tasks_per_iteration=4, rollouts_per_task=8, max_new_tokens=32
    )
    agent = raybolt.wrap(build_crew, reward=score, limits=raybolt.RunLimits(max_calls=6, max_seconds=60))
    with raybolt.Trainer(agent, algorithm=recipe, store=arguments.out) as trainer:
        result = trainer.fit(tasks)
    print("mean reward of each iteration:", *(f"{reward:.2f}" for reward in result.reward_curve))


if __name__ == "__main__":
    main()

"""Two agents of the OpenAI Agents SDK, trained together on the shipped tiny model.

A writer writes a query and a critic repairs it. The agents and the function that runs them are what one
writes without raybolt; `build_team(OpenAIResponsesModel(…))` runs the same code on a model of OpenAI's.
"""

import argparse
import sqlite3
from contextlib import closing
from pathlib import Path

from agents import Agent, Runner

import raybolt

SCHEMA = "singer(singer_id, name, city, age)"
QUESTIONS = [
    "Show the name of each singer.",
    "How many singer are there?",
    "Show the city of each singer.",
    "Show age.",
]


def build_team(llm):
    """The team on a model of the SDK's. Agents' names are the roles that raybolt sees."""
    writer = Agent("writer", instructions="Answer with one SQLite query.", model=llm)
    critic = Agent("critic", instructions="Repair the query.", model=llm)

    async def answer(question):
        draft = (await Runner.run(writer, question)).final_output
        repaired = (await Runner.run(critic, f"{question}\n{draft}")).final_output
        return draft, repaired

    return answer


def runs(reply):
    """Whether SQLite accepts the first line of a reply on the schema."""
    sql = reply.strip().partition("\n")[0]
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"CREATE TABLE {SCHEMA}")
        try:
            connection.execute(sql).fetchall()
        except (sqlite3.Error, sqlite3.Warning):
            return False
    return bool(sql)


def score(task, result, trajectory):
    """Half a point for a draft that runs, half for a repaired query that does."""
    return sum(0.5 * runs(reply) for reply in result)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/openai_agents"))
    parser.add_argument("--short", action="store_true", help="just enough to see that it runs")
    arguments = parser.parse_args()

    tasks = [raybolt.Task(f"task-{number}", f"{SCHEMA}\n{text}") for number, text in enumerate(QUESTIONS)]
    recipe = raybolt.LightningRL(
        iterations=2 if arguments.short else 12, tasks_per_iteration=4, rollouts_per_task=8, max_new_tokens=32
    )
    agent = raybolt.wrap(build_team, reward=score, limits=raybolt.RunLimits(max_calls=4, max_seconds=60))
    with raybolt.Trainer(agent, algorithm=recipe, store=arguments.out) as trainer:
        result = trainer.fit(tasks)
    print("mean reward of each iteration:", *(f"{reward:.2f}" for reward in result.reward_curve))


if __name__ == "__main__":
    main()

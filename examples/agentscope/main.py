"""A writer and a critic in AgentScope, trained together on the shipped tiny model.

The writer writes a query, the critic repairs it. AgentScope leaves it to plain Python who speaks when, so
the agent is a function that runs both; `build(OpenAIChatModel(…))` gives the same on a model of OpenAI's.
"""

import argparse
import sqlite3
from contextlib import closing
from pathlib import Path

from agentscope.agent import Agent, InjectionConfig
from agentscope.message import UserMsg
from agentscope.model import ChatModelBase

import raybolt

SCHEMA = "singer(singer_id, name, city, age)"
QUESTIONS = [
    "Show the name of each singer.",
    "How many singer are there?",
    "Show the city of each singer.",
    "Show age.",
]


def build(llm: ChatModelBase):
    """A function over two agents. Their names are the roles that raybolt sees."""
    timeless = InjectionConfig(inject_runtime_state=False)  # else the prompt holds the time of day
    writer = Agent("writer", "Answer with one SQLite query.", llm, injection_config=timeless)
    critic = Agent("critic", "Repair the query.", llm, injection_config=timeless)

    async def write_and_repair(question: str) -> list[str]:
        draft = await writer.reply(UserMsg("user", question))
        asked = UserMsg("user", f"{question}\n{draft.get_text_content()}")
        return [draft.get_text_content(), (await critic.reply(asked)).get_text_content()]

    return write_and_repair


def runs(reply):
    """Whether SQLite accepts the reply's first line on the schema."""
    sql = reply.partition("\n")[0]
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"CREATE TABLE {SCHEMA}")
        try:
            connection.execute(sql).fetchall()
        except (sqlite3.Error, sqlite3.Warning):
            return False
    return bool(sql.strip())


def score(task, result, trajectory):
    """Half a point for a draft that runs, half for a repaired query that does."""
    return sum(0.5 * runs(sql) for sql in result)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/agentscope"))
    parser.add_argument("--short", action="store_true", help="just enough to see that it runs")
    arguments = parser.parse_args()

    tasks = [raybolt.Task(f"task-{number}", f"{SCHEMA}\n{text}") for number, text in enumerate(QUESTIONS)]
    recipe = raybolt.LightningRL(
        iterations=2 if arguments.short else 12, tasks_per_iteration=4, rollouts_per_task=8, max_new_tokens=32
    )
    agent = raybolt.wrap(build, reward=score, limits=raybolt.RunLimits(max_calls=4, max_seconds=60))
    with raybolt.Trainer(agent, algorithm=recipe, store=arguments.out) as trainer:
        result = trainer.fit(tasks)
    print("mean reward of each iteration:", *(f"{reward:.2f}" for reward in result.reward_curve))


if __name__ == "__main__":
    main()

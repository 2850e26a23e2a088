"""Two roles in plain Python with the `openai` client, trained together on the shipped tiny model.

A writer writes a query and a critic repairs it. With a key and no raybolt the function talks to OpenAI;
inside a run the same client's requests are answered by the policy, so nothing leaves the machine.
"""

import argparse
import sqlite3
from contextlib import closing
from pathlib import Path

from openai import AsyncOpenAI

import raybolt

SCHEMA = "singer(singer_id, name, city, age)"
QUESTIONS = [
    "Show the name of each singer.",
    "How many singer are there?",
    "Show the city of each singer.",
    "Show age.",
]


async def answer(question: str) -> tuple[str, str]:
    """The agent. `raybolt.operation` says whose call it is; outside a run it does nothing."""
    async with AsyncOpenAI(api_key="not-used-in-training") as client:
        with raybolt.operation("write", role="writer"):
            draft = await ask(client, "Answer with one SQLite query.", question)
        with raybolt.operation("repair", role="critic"):
            repaired = await ask(client, "Repair the query.", f"{question}\n{draft}")
    return draft, repaired


async def ask(client: AsyncOpenAI, instructions: str, text: str) -> str:
    messages = [{"role": "system", "content": instructions}, {"role": "user", "content": text}]
    completion = await client.chat.completions.create(model="gpt-5-mini", messages=messages)
    return completion.choices[0].message.content or ""


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
    parser.add_argument("--out", type=Path, default=Path("runs/plain_openai_client"))
    parser.add_argument("--short", action="store_true", help="just enough to see that it runs")
    arguments = parser.parse_args()

    tasks = [raybolt.Task(f"task-{number}", f"{SCHEMA}\n{text}") for number, text in enumerate(QUESTIONS)]
    recipe = raybolt.LightningRL(
        iterations=2 if arguments.short else 12, tasks_per_iteration=4, rollouts_per_task=8, max_new_tokens=32
    )
    agent = raybolt.wrap(answer, reward=score)
    with raybolt.Trainer(agent, algorithm=recipe, store=arguments.out) as trainer:
        result = trainer.fit(tasks)
    print("mean reward of each iteration:", *(f"{reward:.2f}" for reward in result.reward_curve))


if __name__ == "__main__":
    main()

"""The agent of sql_agent.py, which knows nothing of raybolt, trained by adding one line (it is marked)."""

import argparse
from pathlib import Path

import sql_agent

import raybolt

QUESTIONS = [
    "Show the name of each singer.",
    "How many singer are there?",
    "Show the city of each singer.",
    "Show age.",
]


def score(task, reply, trajectory):
    """1 if the reply's first line is a query that SQLite accepts."""
    query = reply.partition("\n")[0]
    return float(bool(query.strip()) and not sql_agent.run_sql(query).startswith("error"))


agent = raybolt.wrap(sql_agent.answer, reward=score)  # <- the added line


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/langchain"))
    parser.add_argument("--short", action="store_true", help="just enough to see that it runs")
    arguments = parser.parse_args()

    tasks = [raybolt.Task(f"task-{number}", text) for number, text in enumerate(QUESTIONS)]
    recipe = raybolt.LightningRL(
        iterations=2 if arguments.short else 12, tasks_per_iteration=4, rollouts_per_task=8, max_new_tokens=32
    )
    with raybolt.Trainer(agent, algorithm=recipe, store=arguments.out) as trainer:
        result = trainer.fit(tasks)
    print("mean reward of each iteration:", *(f"{reward:.2f}" for reward in result.reward_curve))


if __name__ == "__main__":
    main()

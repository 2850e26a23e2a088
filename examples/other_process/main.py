"""Trains an agent that is a command: `agent.py` runs in a process of its own and knows nothing of raybolt.

Any language will do. The process finds an OpenAI-compatible endpoint in OPENAI_BASE_URL, with a key that
opens this one run; the policy answers there.
"""

import argparse
import sys
from pathlib import Path

import raybolt

QUESTIONS = ["What is a list?", "Name a number.", "What is a name?", "Show the first row.", "Count to three."]
AGENT = Path(__file__).with_name("agent.py")


def variety(task, result, trajectory):
    """The share of tokens that had not occurred before in their reply, over both roles' replies."""
    assert set(result) == {"draft", "answer"}, "the agent prints its result as JSON"
    shares = [len(set(call.response_ids.tolist())) / len(call.response_ids) for call in trajectory.calls]
    return sum(shares) / len(shares)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/other_process"))
    parser.add_argument("--short", action="store_true", help="just enough to see that it runs")
    arguments = parser.parse_args()

    tasks = [raybolt.Task(f"question-{number}", text) for number, text in enumerate(QUESTIONS)]
    recipe = raybolt.LightningRL(
        iterations=1 if arguments.short else 12,
        tasks_per_iteration=2 if arguments.short else 5,
        rollouts_per_task=4 if arguments.short else 8,
        max_new_tokens=24,
    )
    agent = raybolt.wrap(raybolt.command([sys.executable, str(AGENT)]), reward=variety)
    with raybolt.Trainer(agent, algorithm=recipe, store=arguments.out, concurrency=4) as trainer:
        result = trainer.fit(tasks)
    print("mean reward of each iteration:", *(f"{reward:.2f}" for reward in result.reward_curve))


if __name__ == "__main__":
    main()

"""A plain Python function that calls the `openai` client learns not to repeat itself; its code is unchanged.

With a key and no raybolt the function talks to OpenAI. Inside a raybolt run the same client's requests are
answered by the policy, so nothing leaves the machine and the key is never used.
"""

import argparse
from pathlib import Path

from openai import AsyncOpenAI

import raybolt

QUESTIONS = ["What is a list?", "Name a number.", "What is a name?", "Show the first row.", "Count to three."]


async def answer(question: str) -> str:
    """The agent: one chat completion."""
    async with AsyncOpenAI(api_key="not-used-in-training") as client:
        completion = await client.chat.completions.create(
            model="gpt-5-mini", messages=[{"role": "user", "content": question}], max_completion_tokens=32
        )
    return completion.choices[0].message.content or ""


def variety(task, result, trajectory):
    """The share of the reply's tokens that had not occurred in it before."""
    ids = trajectory.calls[-1].response_ids.tolist()
    return len(set(ids)) / len(ids)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/plain_openai_client"))
    parser.add_argument("--short", action="store_true", help="just enough to see that it runs")
    arguments = parser.parse_args()

    tasks = [raybolt.Task(f"question-{number}", text) for number, text in enumerate(QUESTIONS)]
    recipe = raybolt.LightningRL(
        iterations=2 if arguments.short else 12, tasks_per_iteration=5, rollouts_per_task=8, max_new_tokens=32
    )
    agent = raybolt.wrap(answer, reward=variety)
    with raybolt.Trainer(agent, algorithm=recipe, store=arguments.out) as trainer:
        result = trainer.fit(tasks)
    print("mean reward of each iteration:", *(f"{reward:.2f}" for reward in result.reward_curve))


if __name__ == "__main__":
    main()

"""Agents in other processes on a real model: what was sampled is what is recorded and learned from."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_model import episode

import raybolt
from raybolt.store.local import LocalStore

# Two turns, over both APIs, with log-probabilities; prints what the server told the agent of its tokens.
AGENT = """
import json, sys
from openai import OpenAI
question = json.load(sys.stdin)
with OpenAI() as client:
    first = client.chat.completions.create(
        model="any", messages=[{"role": "user", "content": question}], logprobs=True, max_tokens=16)
    message = first.choices[0].message
    items = [{"role": "user", "content": question}, {"role": "assistant", "content": message.content},
             {"role": "user", "content": "and again"}]
    client.responses.create(model="any", input=items, max_output_tokens=16)
told = first.choices[0].logprobs.content
print(json.dumps({
    "ids": [int(token.token.removeprefix("token_id:")) for token in told],
    "logprobs": [token.logprob for token in told],
    "usage": [first.usage.prompt_tokens, first.usage.completion_tokens],
}))
"""
# With nothing but the standard library, which starts quickly.
TALKER = """
import json, os, sys, urllib.request
body = {"model": "any", "messages": [{"role": "user", "content": json.load(sys.stdin)}]}
request = urllib.request.Request(
    os.environ["OPENAI_BASE_URL"] + "/chat/completions", json.dumps(body).encode(),
    {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]})
with urllib.request.urlopen(request) as answer:
    print("said:", json.load(answer)["choices"][0]["message"]["content"])
"""


async def test_the_tokens_that_were_sampled_are_recorded_told_and_reused(engine):
    results = []

    def reward(task, result, trajectory):
        results.append(result)
        return 1.0

    agent = raybolt.wrap(raybolt.command([sys.executable, "-c", AGENT]), reward=reward)
    trajectory = await episode(
        agent.env("tiny"),
        engine,
        raybolt.Task("t", "singer(name)\nShow each name."),
        max_new_tokens=16,
        temperature=1.0,
    )
    assert not trajectory.failed, trajectory.error
    first, second = trajectory.calls
    (told,) = results
    assert told["ids"] == first.response_ids.tolist()
    np.testing.assert_allclose(told["logprobs"], first.logprobs, rtol=1e-6)
    assert told["usage"] == [len(first.prompt_ids), len(first.response_ids)]
    assert [call.weights_version for call in trajectory.calls] == [3, 3]
    known = np.concatenate([first.prompt_ids, first.response_ids])
    np.testing.assert_array_equal(second.prompt_ids[: len(known)], known)


def evenness(task, result, trajectory):
    """The share of even token ids: meaningless, and learnt in a few updates."""
    assert result.startswith("said:")
    return float((trajectory.calls[0].response_ids % 2 == 0).mean())


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_a_trainers_runners_serve_and_learn_from_a_command(tmp_path: Path) -> None:
    agent = raybolt.wrap(raybolt.command([sys.executable, "-c", TALKER]), reward=evenness)
    recipe = raybolt.LightningRL(
        iterations=2, tasks_per_iteration=2, rollouts_per_task=4, max_new_tokens=12, lr=1e-3
    )
    tasks = [raybolt.Task(f"t-{number}", f"Say something about {number}.") for number in range(2)]
    with raybolt.Trainer(agent, algorithm=recipe, store=tmp_path, num_runners=1, concurrency=4) as trainer:
        result = trainer.fit(tasks)
    assert result.iterations == 2
    assert result.tokens["trained"] > 0

    async def versions() -> list[tuple[str, int]]:
        async with LocalStore(tmp_path) as store:
            found = []
            for rollout in await store.query_rollouts(mode="train"):
                for span in await store.query_spans(rollout.rollout_id, "latest"):
                    if "raybolt.weights_version" in span.attributes:
                        assert len(span.attributes["raybolt.logprobs"]) == len(
                            span.attributes["raybolt.response_ids"]
                        )
                        found.append((rollout.status, span.attributes["raybolt.weights_version"]))
            return found

    assert sorted(asyncio.run(versions())) == [("succeeded", 0)] * 8 + [("succeeded", 1)] * 8
    assert json.loads((tmp_path / "log" / "progress.jsonl").read_text().splitlines()[-1])["iteration"] == 2

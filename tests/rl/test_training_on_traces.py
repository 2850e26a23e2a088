"""What an agent's own LLM said, traced without training, teaches a model of ours."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import training_agents as agents

import raybolt
from raybolt.adapters.check.server import ModelServer
from raybolt.env.codec import codec_for

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.slow]

TASKS = [raybolt.Task(f"task-{index}", f"Say something about {index}.") for index in range(8)]


class Laconic(ModelServer):
    """The agent's own LLM."""

    def reply_to(self, body: dict[str, Any]) -> str:
        return "Done."


def test_fine_tuning_learns_from_the_traces_of_an_agent_on_its_own_llm(tmp_path: Path) -> None:
    from openai import OpenAI

    folder = tmp_path / "run"

    async def tokenize() -> Any:
        async with raybolt.LocalStore(tmp_path / "traces") as traces, raybolt.LocalStore(folder) as store:
            return await raybolt.demonstrations_from_traces(traces, store, codec=codec_for("tiny"))

    with Laconic().serving() as server, OpenAI(api_key="unused", base_url=server.url) as client:

        @raybolt.trace(tmp_path / "traces")
        def answer(text: str) -> str | None:
            messages: Any = [{"role": "user", "content": text}]
            return client.chat.completions.create(model="gpt-5", messages=messages).choices[0].message.content

        for task in TASKS * 8:
            assert answer(task.input) == "Done."
    made = asyncio.run(tokenize())
    assert (len(made.rollout_ids), made.errors) == (64, {})

    agent = raybolt.wrap(agents.short_talker, reward=agents.evenness)
    recipe = raybolt.SFT(lr=3e-3, epochs=3, tokens_per_step=32)
    with raybolt.Trainer(agent, algorithm=recipe, store=folder, num_runners=1) as trainer:
        trainer.fit(TASKS)
        trained = trainer.evaluate([raybolt.Task("unseen", "Say something about 99.")])

    async def reply_text() -> str:
        async with raybolt.LocalStore(folder) as store:
            spans = await store.query_spans(trained.rollout_ids["unseen"][0], "latest")
        (chat,) = [span for span in spans if span.name.startswith("chat ")]
        return chat.attributes["gen_ai.output.messages"][0]["content"]

    assert asyncio.run(reply_text()).strip() == "Done."

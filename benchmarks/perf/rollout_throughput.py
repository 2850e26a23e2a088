"""How much of the engine's speed is left when agents stand between it and the tokens.

K agents at once run two-call rollouts (ask a tool, read its answer) through environment, codec and store.
Then the engine alone generates the same replies to the same prompts, all given at once. Both use one torch
thread and batches of K; the ratio of tokens per second is what agents cost. Aim: 80 % at K = 16.

The tiny model makes the engine so fast that Python is half of the work; a model of 135 M parameters shows
what is left of that at a size people train.

    python -m raybolt.benchmarks.perf.rollout_throughput [--model tiny] [--concurrency 16] [--report FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from raybolt.adapters.wrap import WrappedAgent, wrap
from raybolt.benchmarks.report import versions, write_json
from raybolt.env.models import resolve_model
from raybolt.rl.checkpoint import load_causal_lm
from raybolt.rl.engines.base import GenerateRequest
from raybolt.rl.engines.transformers import TransformersEngine
from raybolt.rl.rollouts import RolloutCrew, Speaker
from raybolt.store import EnqueueRolloutRequest, LocalStore, names

REPLY_TOKENS = 32
QUESTION = "Which of the museums in the north had more than {} visitors last year? Look it up, then answer."
TOOL_ANSWER = "name, visitors\nThe Old Mill, 1204\nHarbour Hall, 998"


@cache
def openai_client() -> Any:
    """One client for all runs, as its documentation advises: making one takes tens of milliseconds."""
    from openai import AsyncOpenAI

    return AsyncOpenAI(api_key="none", base_url="http://nobody.invalid/v1")


async def python_agent(question: str) -> str | None:
    """Two calls through the OpenAI client, a tool's answer in between."""
    create = openai_client().chat.completions.create
    messages: list[Any] = [{"role": "user", "content": question}]
    reply = await create(model="policy", messages=messages)
    messages += [reply.choices[0].message, {"role": "user", "content": TOOL_ANSWER}]
    reply = await create(model="policy", messages=messages)
    return str(reply.choices[0].message.content)


def langchain_agent(llm: Any) -> Any:
    """The same as a LangGraph graph of two nodes."""
    from langchain_core.messages import HumanMessage
    from langgraph.graph import END, START, MessagesState, StateGraph

    async def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await llm.ainvoke(state["messages"]), HumanMessage(TOOL_ANSWER)]}

    async def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await llm.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node("ask", ask).add_node("answer", answer)
    return graph.add_edge(START, "ask").add_edge("ask", "answer").add_edge("answer", END).compile()


AGENTS: dict[str, Callable[..., Any]] = {"openai client": python_agent, "LangGraph": langchain_agent}


def constant_reward(task: Any, result: Any, trajectory: Any) -> float:
    return 1.0


async def run_agents(
    agent: WrappedAgent, model: Any, name: str, *, concurrency: int, num_rollouts: int
) -> tuple[float, list[GenerateRequest]]:
    """Seconds for all rollouts, and the requests that the engine served."""
    engine = TransformersEngine(model, max_batch=concurrency)
    served: list[GenerateRequest] = []
    generate = engine.generate

    async def recording(request: GenerateRequest) -> Any:
        served.append(request)
        return await generate(request)

    engine.generate = recording  # type: ignore[method-assign]  # only this script wants to know
    async with LocalStore() as store:
        sampling = {"sampling": {"temperature": 1.0, "max_new_tokens": REPLY_TOKENS}}
        resources_id = (await store.add_resources(sampling)).resources_id
        await store.enqueue_many_rollouts(
            [
                EnqueueRolloutRequest(
                    input=QUESTION.format(index), task_id=f"task-{index}", resources_id=resources_id
                )
                for index in range(num_rollouts)
            ]
        )
        speaker = Speaker(engine, stop_ids=())  # replies of full length, so that both sides do the same work
        crew = RolloutCrew(
            make_env=lambda: agent.env(name),
            store=store,
            speaker_of=lambda role: speaker,
            concurrency=concurrency,
            worker_id="perf",
        )
        start = time.perf_counter()
        await crew.drain()
        seconds = time.perf_counter() - start
        rollouts = await store.query_rollouts(status_in=("succeeded",))
        assert len(rollouts) == num_rollouts, await store.statistics()
        spans = await store.query_spans(rollouts[0].rollout_id, "latest")
        assert any(names.RESPONSE_IDS in span.attributes for span in spans)
    engine.close()
    return seconds, served


async def run_engine(model: Any, requests: list[GenerateRequest], *, concurrency: int) -> tuple[float, int]:
    """Seconds for the requests all given at once, and the tokens of their replies."""
    engine = TransformersEngine(model, max_batch=concurrency)
    start = time.perf_counter()
    replies = await asyncio.gather(*(engine.generate(request) for request in requests))
    seconds = time.perf_counter() - start
    engine.close()
    return seconds, sum(len(reply.response_ids) for reply in replies)


def measure(name: str, *, concurrency: int, num_rollouts: int, repeats: int) -> dict[str, dict[str, float]]:
    """Tokens per second through each kind of agent and of the engine alone; medians of `repeats`."""
    torch.set_num_threads(1)
    model = load_causal_lm(resolve_model(name).path).eval()
    figures: dict[str, dict[str, float]] = {}
    for label, build in AGENTS.items():
        agent = wrap(build, reward=constant_reward, name="perf")
        rates: list[tuple[float, float]] = []
        for _ in range(repeats + 1):  # the first one warms up
            seconds, served = asyncio.run(
                run_agents(agent, model, name, concurrency=concurrency, num_rollouts=num_rollouts)
            )
            alone, num_tokens = asyncio.run(run_engine(model, served, concurrency=concurrency))
            rates.append((num_tokens / seconds, num_tokens / alone))
        through, direct = (float(np.median(column)) for column in zip(*rates[1:], strict=True))
        figures[label] = {
            "tokens_per_s_agents": round(through, 1),
            "tokens_per_s_engine": round(direct, 1),
            "ratio": round(float(np.median([a / b for a, b in rates[1:]])), 3),
        }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--rollouts", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    figures = measure(
        options.model,
        concurrency=options.concurrency,
        num_rollouts=options.rollouts,
        repeats=options.repeats,
    )
    table = Table("agent", "tok/s through agents", "tok/s of the engine", "ratio")
    for label, row in figures.items():
        table.add_row(label, *(str(value) for value in row.values()))
    Console().print(table)
    if options.report:
        settings = {key: value for key, value in vars(options).items() if key != "report"}
        machine = {"cores": os.cpu_count(), "processor": platform.machine(), "load": os.getloadavg()[0]}
        write_json(
            options.report,
            {"figures": figures, "settings": settings, "machine": machine, "versions": versions()},
        )


if __name__ == "__main__":
    main()

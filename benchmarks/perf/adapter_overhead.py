"""What an adapter adds to each LLM call of an agent, beyond the framework's own time.

Each agent runs two ways, alternately: on a scripted model of its own framework, and through `AgentRun` on a
scripted policy that answers at once with the same replies. The difference, divided by the number of LLM calls
of a run, is what raybolt adds: converting requests and replies, stepping the run, recording spans. Times are
those of the process's CPU clock, so that a busy machine disturbs them less.

    python -m raybolt.benchmarks.perf.adapter_overhead [--runs 300] [--report FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
from langchain.agents import create_agent
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable
from openai import AsyncOpenAI

from raybolt.adapters.wrap import wrap
from raybolt.env.chat import ChatMessage, ChatRequest, Completion, ToolCall
from raybolt.env.policy import RunEnd
from raybolt.env.recorder import SpanRecorder
from raybolt.env.run import AgentRun
from raybolt.env.task import Task

NUM_CALLS = 5  # LLM calls of a run; all but the last ask for the tool
TASK = Task("overhead", "How many singers are there?")
Run = Callable[[], Awaitable[Any]]


class NativeModel(GenericFakeChatModel):
    """LangChain's own scripted model, with tools."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> Runnable[Any, AIMessage]:
        from langchain_core.utils.function_calling import convert_to_openai_tool

        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools])


def run_sql(query: str) -> str:
    """Run a SQLite query and see its rows."""
    return "3"


def build_agent(llm: Any) -> Any:
    return create_agent(llm, [run_sql], system_prompt="Answer with one SQLite query.")


async def native_langchain() -> None:
    """The same work as a run of the wrapped factory: build the agent, run it."""
    replies = [
        AIMessage("", tool_calls=[{"name": "run_sql", "args": {"query": "SELECT 1"}, "id": f"c{turn}"}])
        for turn in range(NUM_CALLS - 1)
    ]
    agent = build_agent(NativeModel(messages=iter([*replies, AIMessage("3")])))
    await agent.ainvoke({"messages": [{"role": "user", "content": TASK.input}]})


def ask_for_tool(request: ChatRequest) -> Completion:
    """A policy that asks for the tool until the last call."""
    turn = sum(message.role == "assistant" for message in request.messages)
    if turn == NUM_CALLS - 1:
        return Completion(ChatMessage("assistant", "3"))
    call = ToolCall(f"c{turn}", "run_sql", '{"query": "SELECT 1"}')
    return Completion(ChatMessage("assistant", None, (call,)), "tool_calls")


def answer(request: ChatRequest) -> Completion:
    """A policy that answers at once."""
    return Completion(ChatMessage("assistant", "3"))


async def chat(client: AsyncOpenAI) -> None:
    """A plain Python agent."""
    messages: list[Any] = [{"role": "user", "content": TASK.input}]
    for _ in range(NUM_CALLS):
        reply = await client.chat.completions.create(model="m", messages=messages)
        messages += [reply.choices[0].message, {"role": "user", "content": "go on"}]


def openai_client(transport: httpx.AsyncBaseTransport) -> AsyncOpenAI:
    return AsyncOpenAI(api_key="unused", http_client=httpx.AsyncClient(transport=transport))


def canned(request: httpx.Request) -> httpx.Response:
    """A complete answer of a chat endpoint."""
    message = {"role": "assistant", "content": "3", "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    body = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    return httpx.Response(200, json=body | {"usage": usage})


def wrapped(agent: Any, policy: Callable[[ChatRequest], Completion]) -> Run:
    """One run of the wrapped agent on a scripted policy."""
    program = wrap(agent).program()

    async def run() -> None:
        stepped = AgentRun(program, TASK, recorder=SpanRecorder("rollout", "attempt"), require_reward=False)
        while not isinstance(pending := await stepped.next(), RunEnd):
            for call in pending:
                stepped.answer(call.call_id, policy(call.request))
        if pending.failed:
            raise RuntimeError(pending.error)

    return run


async def seconds_of(run: Run) -> float:
    start = time.process_time()
    await run()
    return time.process_time() - start


async def compare(native: Run, ours: Run, num_runs: int) -> dict[str, float]:
    """Milliseconds per LLM call: native, through raybolt, and what that adds.

    Of all runs the lower quartile is taken: what lies above is mostly what other processes did to the caches.
    """
    for _ in range(5):  # imports, caches
        await native()
        await ours()
    pairs = [(await seconds_of(native), await seconds_of(ours)) for _ in range(num_runs)]
    quartiles = (statistics.quantiles(times, n=4)[0] for times in zip(*pairs, strict=True))
    native_ms, ours_ms = (seconds * 1000 / NUM_CALLS for seconds in quartiles)
    return {
        "native_ms": round(native_ms, 3),
        "raybolt_ms": round(ours_ms, 3),
        "added_ms": round(ours_ms - native_ms, 3),
    }


async def measure(num_runs: int) -> dict[str, dict[str, float]]:
    native_client = openai_client(httpx.MockTransport(canned))
    real_client = openai_client(httpx.AsyncHTTPTransport())

    async def plain_agent(question: str) -> None:
        await chat(real_client)

    return {
        "langchain": await compare(native_langchain, wrapped(build_agent, ask_for_tool), num_runs),
        "python": await compare(lambda: chat(native_client), wrapped(plain_agent, answer), num_runs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--report", type=Path, help="where to write the figures as JSON")
    arguments = parser.parse_args()
    figures = asyncio.run(measure(arguments.runs))
    print(json.dumps(figures, indent=2))
    if arguments.report:
        arguments.report.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Agents whose processes the user starts: they ask for tasks, work, and report."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from http_support import drive
from openai import OpenAI

import raybolt
from raybolt.adapters.check.scripted import say
from raybolt.env.limits import RunLimits
from raybolt.env.recorder import SpanRecorder
from raybolt.env.run import AgentRun

Work = Callable[[dict[str, Any]], dict[str, Any]]


def new_run(agent: raybolt.WrappedAgent, given: Any, number: int = 1) -> AgentRun:
    return AgentRun(
        agent.program(), raybolt.Task(f"t-{number}", given, reference="secret"),
        recorder=SpanRecorder(f"ro-{number}", "at-1"), limits=agent.limits, require_reward=False,
    )  # fmt: skip


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@contextmanager
def worker(port: int, token: str, work: Work) -> Iterator[list[int]]:
    """A process of the user, but for being a thread: asks for tasks until the block ends."""
    over, statuses = threading.Event(), []

    def loop() -> None:
        while not over.is_set():
            try:
                answer = httpx.get(
                    f"http://127.0.0.1:{port}/task?wait=0.5", headers={"Authorization": f"Bearer {token}"}
                )
            except httpx.TransportError:  # no run is on
                over.wait(0.02)
                continue
            statuses.append(answer.status_code)
            if answer.status_code == 200:
                told = answer.json()
                headers = {"Authorization": f"Bearer {told['api_key']}"}
                httpx.post(told["run_url"] + "/result", json=work(told), headers=headers)
            elif answer.status_code == 401:
                over.wait(0.05)

    threads = [threading.Thread(target=loop) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield statuses
    finally:
        over.set()
        for thread in threads:
            thread.join()


def ask(told: dict[str, Any]) -> dict[str, Any]:
    with OpenAI(base_url=told["base_url"], api_key=told["api_key"]) as client:
        messages: Any = [{"role": "user", "content": told["task"]["input"]}]
        reply = client.chat.completions.create(model="m", messages=messages)
    return {"result": {"said": reply.choices[0].message.content, "task": told["task"]}}


async def test_processes_of_the_user_take_tasks_and_give_results():
    port = free_port()
    agent = raybolt.wrap(raybolt.external(token="t", ports=[port]))
    with worker(port, "t", ask) as statuses:
        every = await asyncio.gather(
            *(
                drive(
                    new_run(agent, f"task {n}", n), lambda request: say(f"to {request.messages[0].content}")
                )
                for n in range(4)
            )
        )
    for number, ran in enumerate(every):
        task = {"task_id": f"t-{number}", "input": f"task {number}", "metadata": {}}
        assert ran.result == {"said": f"to task {number}", "task": task}
        assert {span.rollout_id for span in ran.spans} == {f"ro-{number}"}
    assert 200 in statuses


async def test_an_error_that_the_process_reports_is_a_failed_run():
    port = free_port()
    agent = raybolt.wrap(raybolt.external(token="t", ports=[port]))

    def fails(told: dict[str, Any]) -> dict[str, Any]:
        ask(told)
        return {"error": "KeyError: no such page"}

    with worker(port, "t", fails):
        ran = await drive(new_run(agent, "x"), lambda request: say("y"))
    assert (ran.end.origin, ran.end.error) == ("agent", "AgentFailed: KeyError: no such page")


async def test_a_wrong_token_gets_no_task():
    port = free_port()
    agent = raybolt.wrap(raybolt.external(token="right", ports=[port]), limits=RunLimits(max_seconds=1.0))
    with worker(port, "wrong", ask) as statuses:
        ran = await drive(new_run(agent, "x"), lambda request: say("y"))
    assert (ran.end.origin, ran.end.error) == ("limit", "the agent took more than 1 seconds")
    assert set(statuses) == {401}


async def test_runs_that_no_process_takes_end_with_their_time():
    agent = raybolt.wrap(raybolt.external(), limits=RunLimits(max_seconds=0.3))
    ran = await drive(new_run(agent, "x"), lambda request: say("y"))
    assert (ran.end.origin, ran.end.error) == ("limit", "the agent took more than 0.3 seconds")


async def test_the_second_runner_of_a_machine_takes_the_next_port():
    first, second = free_port(), free_port()
    with socket.create_server(("127.0.0.1", first)):
        agent = raybolt.wrap(raybolt.external(token="t", ports=[first, second]))
        with worker(second, "t", ask):
            ran = await drive(new_run(agent, "hi"), lambda request: say("hello"))
        assert ran.result["said"] == "hello"
        blocked = raybolt.wrap(raybolt.external(token="t", ports=[first]))
        ran = await drive(new_run(blocked, "hi"), lambda request: say("hello"))
    assert f"cannot listen on 127.0.0.1 ({first}: Address already in use); give free" in str(ran.end.error)


def test_a_made_up_token_is_long_and_not_shown():
    agent = raybolt.external()
    assert len(agent.token) > 30
    assert agent.token not in repr(agent)


def test_an_external_agent_runs_only_where_it_is_given_tasks():
    with pytest.raises(raybolt.UnsupportedAgent, match="runs only where raybolt gives it tasks"):
        raybolt.wrap(raybolt.external()).run(raybolt.Task("t", "x"))

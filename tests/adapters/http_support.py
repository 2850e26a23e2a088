"""Agents behind the endpoint, for its tests: their clients run here but speak HTTP, as from anywhere else."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ran import Ran

from raybolt.adapters.command.agents import Address
from raybolt.adapters.endpoint.served import ServedRun
from raybolt.adapters.endpoint.server import serving
from raybolt.adapters.endpoint.upstream import Upstream
from raybolt.env.chat import ChatRequest, Completion
from raybolt.env.context import current_run, entering
from raybolt.env.executor import run_in_thread
from raybolt.env.limits import RunLimits
from raybolt.env.policy import RunEnd
from raybolt.env.recorder import SpanRecorder
from raybolt.env.run import AgentRun
from raybolt.env.task import Task

Told = dict[str, Any]
"""What an agent elsewhere is told of its run: task, base_url, api_key, run_url."""
Client = Callable[[Told], Any]


class Served:
    """A program whose agent is `client(told)`."""

    name = "agent"

    def __init__(self, client: Client, upstream: Upstream | None = None) -> None:
        self.client = client
        self.upstream = upstream

    async def run(self, task: Task, policy: Any) -> Any:
        with entering(role=self.name):
            context = current_run.get()
            assert context is not None
            run = ServedRun(policy, context, task, task.input, self.upstream)
            with serving(run, Address()) as server:
                if inspect.iscoroutinefunction(self.client):
                    return await self.client(server.description(run))
                return await run_in_thread(self.client, server.description(run))


async def drive(run: AgentRun, policy: Callable[[ChatRequest], Completion]) -> Ran:
    """The run, each of its calls answered by `policy`."""
    requests: list[ChatRequest] = []
    while not isinstance(pending := await run.next(), RunEnd):
        for each in pending:
            requests.append(each.request)
            run.answer(each.call_id, policy(each.request))
    return Ran(pending, requests, run.recorder.spans)


def new_run(
    client: Client,
    *,
    upstream: Upstream | None = None,
    trainable: Any = None,
    limits: RunLimits | None = None,
    ids: tuple[str, str] = ("ro-1", "at-1"),
) -> AgentRun:
    """A run of `client` against the endpoint."""
    return AgentRun(
        Served(client, upstream), Task("task", "hi"), recorder=SpanRecorder(*ids), limits=limits,
        trainable=trainable, require_reward=False,
    )  # fmt: skip


async def serve(client: Client, policy: Callable[[ChatRequest], Completion], **options: Any) -> Ran:
    """One run of `client` against the endpoint, its calls answered by `policy`."""
    return await drive(new_run(client, **options), policy)

"""Spans of agents, teams, hand-offs and tools: AutoGen's own methods, guarded, for runs only.

AutoGen's OpenTelemetry spans know no arguments and need a global provider; its event log misses the calls
whose arguments do not fit. So the methods that every agent, team and tool goes through are watched.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, aclosing, contextmanager, nullcontext
from typing import Any, TypeVar

from autogen_agentchat.agents import BaseChatAgent
from autogen_agentchat.base import Response
from autogen_agentchat.messages import HandoffMessage
from autogen_agentchat.teams import BaseGroupChat
from autogen_core import ROOT_LOGGER_NAME, CancellationToken

from raybolt.adapters.autogen.places import Step, begin_step, is_stopped
from raybolt.adapters.autogen.tools import tool_patches
from raybolt.adapters.classes import family, own_methods
from raybolt.adapters.patching import Replace, patched
from raybolt.env.context import current_run
from raybolt.env.policy import PolicyAbort
from raybolt.store import names

T = TypeVar("T")
_END = object()


@contextmanager
def traced() -> Iterator[None]:
    """Inside the block, the work of AutoGen's agents, teams and tools in a run is recorded in that run."""
    with ExitStack() as stack:
        for cls, replacements in (*_worker_patches(), *tool_patches()):
            stack.enter_context(patched(cls, replacements))
        yield


def _worker_patches() -> Iterator[tuple[type, dict[str, Replace]]]:
    for cls in family(BaseChatAgent):
        yield cls, own_methods(cls, {"on_messages": _agent_call, "on_messages_stream": _agent_stream})
    for cls in family(BaseGroupChat):
        yield cls, own_methods(cls, {"run_stream": _team_stream})


def _agent_call(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def guarded(self: BaseChatAgent, *args: Any, **kwargs: Any) -> Any:
        step = begin_step(self, self.name)
        if step is None:
            return await original(self, *args, **kwargs)
        with _member(step), step.block():
            response = await original(self, *args, **kwargs)
            _record_hand_off(step, response)
            return response

    return guarded


def _agent_stream(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def guarded(self: BaseChatAgent, *args: Any, **kwargs: Any) -> Any:
        stream = original(self, *args, **kwargs)
        return stream if current_run.get() is None else _agent_steps(self, stream)

    return guarded


async def _agent_steps(agent: BaseChatAgent, stream: AsyncGenerator[Any]) -> AsyncGenerator[Any]:
    step = begin_step(agent, agent.name)
    with nullcontext() if step is None else _member(step):
        async with aclosing(stream if step is None else step.stream(stream)) as items:
            async for item in items:
                if step is not None:
                    _record_hand_off(step, item)
                yield item


def _team_stream(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def guarded(
        self: BaseGroupChat, *, cancellation_token: CancellationToken | None = None, **kwargs: Any
    ) -> Any:
        start = functools.partial(original, self, **kwargs)
        if current_run.get() is None:
            return start(cancellation_token=cancellation_token)
        return _team_steps(self, start, cancellation_token)

    return guarded


async def _team_steps(
    team: BaseGroupChat, start: Callable[..., AsyncGenerator[Any]], token: CancellationToken | None
) -> AsyncGenerator[Any]:
    step = begin_step(team, team.name, "team")
    if step is None:
        items = start(cancellation_token=token)
    else:
        step.token = CancellationToken()  # one that may be cancelled whatever the user shares his with
        if token is not None:
            token.add_callback(step.token.cancel)
        items = step.stream(_stoppable_items(step, start(cancellation_token=step.token)))
    with nullcontext() if step is None else _member(step):
        async with aclosing(items):
            async for item in items:
                yield item


async def _stoppable_items(step: Step, stream: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """The team's messages. Cancelling the consumer stops the team; AutoGen would let it finish first."""
    async with aclosing(stream):
        while True:
            task = asyncio.ensure_future(_next(stream))
            try:
                item = await asyncio.shield(task)
            except asyncio.CancelledError:
                step.stop()
                await asyncio.wait([task])
                if step.abort is not None:
                    raise step.abort from None
                raise
            if item is _END:
                return
            yield item


async def _next(stream: AsyncIterator[Any]) -> Any:
    return await anext(stream, _END)


def _member(step: Step) -> AbstractContextManager[None]:
    """In the block, the present task works for the team that the step belongs to, if any."""
    return step.outer.joined() if step.outer is not None and step.outer.token is not None else nullcontext()


def _record_hand_off(step: Step, item: Any) -> None:
    message = item.chat_message if isinstance(item, Response) else None
    if not isinstance(message, HandoffMessage):
        return
    step.context.run.recorder.record(
        f"handoff {message.source} -> {message.target}",
        parent_id=step.context.span_id,
        attributes={
            names.KIND: "handoff",
            names.AGENT_NAME: message.source,
            names.HANDOFF_SOURCE: message.source,
            names.HANDOFF_TARGET: message.target,
        },
    )


class _OwnAborts(logging.Filter):
    """Drops what AutoGen's runtime logs, with a traceback, about handlers that we stopped ourselves."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not (
            isinstance(error, PolicyAbort) or (isinstance(error, asyncio.CancelledError) and is_stopped())
        )


logging.getLogger(ROOT_LOGGER_NAME).addFilter(_OwnAborts())

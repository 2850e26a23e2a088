"""Which agent of an AutoGen program is at work, and so whose the LLM calls and tools are.

AutoGen hands names to no model client. Two things tell them: agents and teams announce their work (see
`tracing`), and a team's runtime keeps a context variable with the id of the handler that a message has
reached. Whichever of the two is the inner one speaks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from autogen_core import AgentId, CancellationToken, MessageHandlerContext

from raybolt.adapters.capture import current_role
from raybolt.adapters.streams import stepped
from raybolt.env.context import RunContext, current_run
from raybolt.env.policy import PolicyAbort
from raybolt.env.recorder import OpenSpan
from raybolt.store import names

T = TypeVar("T")

at_work: ContextVar[Step | None] = ContextVar("raybolt_autogen_at_work", default=None)
"""The innermost agent or team whose code runs here."""


@dataclass(eq=False)
class Step:
    """An agent, a team or a team's manager at work on some messages. `with step:` is its place in the run."""

    worker: Any
    """What works: an agent, a team, or the id of a manager."""
    name: str
    handler: AgentId | None
    """The message handler that called it, if it works in a team."""
    outer: Step | None
    span: OpenSpan | None
    """None for the agent that was wrapped: the run's own span is its span."""
    context: RunContext
    token: CancellationToken | None = None
    """Stops a team."""
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    """Tasks that AutoGen started for it and would not cancel with it."""
    stopped: bool = False
    abort: PolicyAbort | None = None

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """The place of the step's code. May be entered again and again."""
        work = at_work.set(self)
        run = current_run.set(self.context)
        try:
            yield
        finally:
            current_run.reset(run)
            at_work.reset(work)

    @contextmanager
    def joined(self) -> Iterator[None]:
        """The present task works for this step in the block, and is cancelled with it."""
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            yield
        finally:
            self.tasks.discard(task)

    @contextmanager
    def block(self) -> Iterator[None]:
        """All of the step's work in one block."""
        try:
            with self.going_on():
                yield
        except BaseException as error:
            self.fail(error)
            raise
        self.end()

    async def stream(self, items: AsyncIterator[T]) -> AsyncGenerator[T, None]:
        """All of the step's work as a stream. One that its consumer leaves early is as good as done."""
        try:
            async with aclosing(stepped(items, self.going_on)) as stream:
                async for item in stream:
                    yield item
        except GeneratorExit:
            self.end()
            raise
        except BaseException as error:
            self.fail(error)
            raise
        self.end()

    def end(self) -> None:
        if self.span is not None:
            self.span.end()

    def fail(self, error: BaseException) -> None:
        """Ends the span as failed and stops what AutoGen leaves running."""
        self.stop()
        if self.span is not None:
            self.span.fail(error, {names.ERROR_TYPE: type(error).__name__})

    def stop(self) -> None:
        """Cancels what works for this step, itself excepted."""
        self.stopped = True
        if self.token is not None:
            self.token.cancel()
        for task in self.tasks - {asyncio.current_task()}:
            task.cancel()


def begin_step(worker: Any, name: str, kind: str = "agent") -> Step | None:
    """The worker's step with its span; None outside a run, or if the worker is at work here already."""
    around, outer = current_run.get(), at_work.get()
    if around is None or (outer is not None and outer.worker is worker):
        return None
    if outer is None and around.role == name:
        return Step(worker, name, _handler(), outer, None, around)
    attributes = {names.KIND: kind, names.AGENT_NAME: name}
    if kind == "agent":
        attributes[names.OPERATION] = names.INVOKE_AGENT
    span = around.run.recorder.begin(f"{kind} {name}", parent_id=around.span_id, attributes=attributes)
    return Step(worker, name, _handler(), outer, span, replace(around, span_id=span.span_id, role=name))


def whose_call() -> tuple[str, Step | None]:
    """The role of the LLM call that is about to be made, and the step of a manager that makes it.

    Managers of teams (the selector, an orchestrator) announce nothing, so each of their calls is a step.
    """
    step, handler = at_work.get(), _handler()
    if handler is None or (step is not None and step.handler == handler):
        return (current_role() if step is None else step.name), None
    name = _name_of(handler)
    return name, begin_step(handler, name)


async def stoppable(work: Coroutine[Any, Any, T], token: CancellationToken | None) -> T:
    """The work's result; `token`, or the one of the team at work, cancels it.

    A PolicyAbort stops the teams around, which would otherwise wait for a message that never comes. A team's
    manager gets a cancellation for it: what else it raises, its runtime reports to members that are gone.
    """
    token = token or _team_token()
    future = asyncio.ensure_future(work)
    if token is not None:
        token.link_future(future)
    try:
        return await future
    except PolicyAbort as abort:
        halt(abort)
        if token is not None and token is _team_token():
            raise asyncio.CancelledError from abort
        raise


def halt(abort: PolicyAbort) -> None:
    """Stops every team around the present code: the run is over."""
    step = at_work.get()
    while step is not None:
        step.abort = step.abort or abort
        if step.token is not None:
            step.stopped = True
            step.token.cancel()
        step = step.outer


def is_stopped() -> bool:
    """Whether a step around the present code has been stopped."""
    step = at_work.get()
    while step is not None and not step.stopped:
        step = step.outer
    return step is not None


def _team_token() -> CancellationToken | None:
    step = at_work.get()
    while step is not None and step.token is None:
        step = step.outer
    return None if step is None else step.token


def _handler() -> AgentId | None:
    try:
        return MessageHandlerContext.agent_id()
    except RuntimeError:  # outside of any team
        return None


def _name_of(handler: AgentId) -> str:
    """The name of a team's member: its type without the team's id, which is also the key."""
    return handler.type.removesuffix(f"_{handler.key}")

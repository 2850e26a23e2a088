"""Checks of how runs end early: in time, for the right reason, and with nothing left behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from raybolt.adapters.check.drive import Ran, Stage, play
from raybolt.adapters.check.footprint import Footprint, expect_nothing_left
from raybolt.adapters.check.kit import AgentKit, Way
from raybolt.adapters.check.replies import REPLY
from raybolt.adapters.check.rules import check, expect
from raybolt.adapters.check.scripted import ScriptedPolicy, call
from raybolt.adapters.check.spans import chats
from raybolt.adapters.wrapped import WrappedAgent
from raybolt.env.chat import ChatRequest, Completion
from raybolt.env.limits import RunLimits
from raybolt.env.policy import Origin, PolicyAbort

_TOOL_SECONDS = 2.0
_LIMIT_SECONDS = 1.0
_SLACK_SECONDS = 2.5  # a second to leave, and a busy machine
_THINKING_SECONDS = 2.5


def work() -> str:
    """Works for a while."""
    until = time.monotonic() + _TOOL_SECONDS
    while time.monotonic() < until:
        time.sleep(0.02)
    return "worked"


async def work_async() -> str:
    """Works for a while."""
    await asyncio.sleep(_TOOL_SECONDS)
    return "worked"


def _expect_end(ran: Ran, origin: Origin, reason: str) -> None:
    expect(
        ran.end.origin == origin and reason in str(ran.end.error),
        expected=f"a failed run of origin {origin!r}, because {reason!r}",
        seen=(ran.end.origin, ran.end.error),
        remedy="let PolicyAbort, a BaseException, through everything to whoever runs the agent",
    )


def _expect_let_through(ran: Ran, *, refused: int = 1) -> None:
    expect(
        isinstance(ran.left_by, PolicyAbort | asyncio.CancelledError),
        expected="the agent left by the PolicyAbort that its call got",
        seen=ran.left_by or f"it returned {ran.end.result!r} as if nothing had happened",
        remedy="wrap nothing in `except BaseException`, and re-raise what the framework swallows",
    )
    expect(
        ran.num_refused == refused,
        expected=f"an agent that is told {refused} times, once for each call",
        seen=ran.num_refused,
        remedy="let no retry or fallback of the framework see the PolicyAbort",
    )


async def _warm(kit: AgentKit, agent: WrappedAgent) -> Footprint:
    """What is there after a first, ordinary run: what a framework starts once, it has started."""
    await play(agent, ScriptedPolicy(REPLY))
    before = Footprint.now()
    await expect_nothing_left(before, kit.idle_threads)
    return before


@check("an ordinary run leaves nothing behind")
async def leaves_nothing(kit: AgentKit, way: Way) -> None:
    agent = kit.wrap(kit.two_roles(way))
    before = await _warm(kit, agent)
    await play(agent, ScriptedPolicy(REPLY))
    await expect_nothing_left(before, kit.idle_threads)


@check("the call after the limit of calls ends the run")
async def call_limit(kit: AgentKit, way: Way) -> None:
    agent = kit.wrap(kit.two_roles(way))
    before = await _warm(kit, agent)
    ran = await Stage(agent, limits=RunLimits(max_calls=1)).play(ScriptedPolicy(REPLY))
    _expect_end(ran, "limit", "more than 1 LLM calls")
    _expect_let_through(ran)
    expect(
        len(chats(ran)) == 1,
        expected="one call, and none after the end",
        seen=[span.name for span in chats(ran)],
        remedy="catch no PolicyAbort to try again",
    )
    await expect_nothing_left(before, kit.idle_threads)


@check("the time that the policy thinks does not count")
async def thinking_is_free(kit: AgentKit, way: Way) -> None:
    agent = kit.wrap(kit.solo(way))
    await _warm(kit, agent)

    async def slow(request: ChatRequest) -> Completion:
        await asyncio.sleep(_THINKING_SECONDS)
        return ScriptedPolicy(REPLY)(request)

    ran = await Stage(agent, limits=RunLimits(max_seconds=_THINKING_SECONDS - 0.5)).play(slow)
    expect(
        not ran.end.failed,
        expected="a run that succeeds",
        seen=(ran.end.origin, ran.end.error),
        remedy="await PolicyPort.complete directly, so that the run sees who waits; set no timeout",
    )


async def _times_out(kit: AgentKit, way: Way, tool: Callable[..., Any]) -> None:
    agent = kit.wrap(kit.with_tools(way, [tool]))
    before = await _warm(kit, agent)
    asking = ScriptedPolicy(call((tool.__name__, {})), "Done.")
    ran = await Stage(agent, limits=RunLimits(max_seconds=_LIMIT_SECONDS)).play(asking)
    _expect_end(ran, "limit", "took more than 1 seconds")
    expect(
        ran.seconds < max(_LIMIT_SECONDS, _TOOL_SECONDS) + _SLACK_SECONDS,
        expected="an end within a second of the tool's",
        seen=f"{ran.seconds:.1f} s",
        remedy="let cancellation and PolicyAbort through, and start no thread that nobody can end",
    )
    expect(
        len(ran.requests) == 1,
        expected="no call of the policy after the end",
        seen=len(ran.requests),
        remedy="make every call through the run's PolicyPort",
    )
    await expect_nothing_left(before, kit.idle_threads)


@check("a plain tool that takes too long ends the run at the next boundary")
async def time_limit(kit: AgentKit, way: Way) -> None:
    await _times_out(kit, way, work)


@check("an async tool that takes too long ends the run at the next boundary")
async def time_limit_async(kit: AgentKit, way: Way) -> None:
    await _times_out(kit, way, work_async)


@check("a run that is given up while a call waits ends at once")
async def given_up(kit: AgentKit, way: Way) -> None:
    agent = kit.wrap(kit.two_roles(way))
    before = await _warm(kit, agent)
    stage = Stage(agent)
    await stage.waiting()
    start = time.monotonic()
    ran = stage.over(await stage.run.abort("enough"))
    seconds = time.monotonic() - start
    _expect_end(ran, "raybolt", "enough")
    expect(
        seconds < _SLACK_SECONDS,
        expected="an end within a second",
        seen=f"{seconds:.1f} s",
        remedy="let PolicyAbort through everything",
    )
    _expect_let_through(ran)
    await expect_nothing_left(before, kit.idle_threads)


@check("several calls that wait when the run is given up all end")
async def given_up_in_parallel(kit: AgentKit, way: Way) -> None:
    agent = kit.wrap(kit.parallel(way))
    before = await _warm(kit, agent)
    stage = Stage(agent)
    await stage.waiting(at_once=3)
    ran = stage.over(await stage.run.abort("enough"))
    _expect_end(ran, "raybolt", "enough")
    _expect_let_through(ran, refused=3)
    await expect_nothing_left(before, kit.idle_threads)


@check("an engine that fails ends the run as the engine's failure")
async def engine_fails(kit: AgentKit, way: Way) -> None:
    agent = kit.wrap(kit.two_roles(way))
    before = await _warm(kit, agent)
    stage = Stage(agent)
    (waiting,) = await stage.waiting()
    stage.run.fail(waiting.call_id, RuntimeError("out of memory"))
    ran = await stage.play(ScriptedPolicy(REPLY))
    _expect_end(ran, "engine", "out of memory")
    _expect_let_through(ran)
    await expect_nothing_left(before, kit.idle_threads)


ENDS = (
    leaves_nothing,
    call_limit,
    thinking_is_free,
    time_limit,
    time_limit_async,
    given_up,
    given_up_in_parallel,
    engine_fails,
)

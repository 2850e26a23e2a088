"""A built agent for one run: a copy, or the object itself when its turn has come.

AutoGen's agents remember, and two runs on one object would silently share what they remember. An agent or
team is therefore copied for every run, as it stands. What cannot be copied serves one run after another and
is reset by AutoGen's own `on_reset` in between.
"""

from __future__ import annotations

import asyncio
import copy
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any

from autogen_agentchat.base import ChatAgent
from autogen_agentchat.teams import BaseGroupChat
from autogen_core import CancellationToken, Component, SingleThreadedAgentRuntime

from raybolt.adapters.autogen.walk import Held, held_by
from raybolt.adapters.base import UnsupportedAgent, describe


def copied(agent: Any, held: Held) -> Any | None:
    """A copy that shares no agent, team or memory with `agent`; None if there can be none.

    Model clients, functions and the objects whose methods are tools stay the same ones.

    Raises UnsupportedAgent for a team that runs on a runtime of the user's own.
    """
    memo: dict[int, Any] = {id(kept): kept for kept in _kept(held)}
    teams = [worker for worker in held.workers if isinstance(worker, BaseGroupChat)]
    for team in teams:
        memo.update({id(old): new for old, new in _new_machinery(team)})
    try:
        made = copy.deepcopy(agent, memo)
    except Exception:  # whatever the user's own objects raise
        return None
    for team in teams:
        vars(memo[id(team)]).update(_initialized=False, _is_running=False)
    ours = {id(worker) for worker in held.workers}
    return None if any(id(worker) in ours for worker in held_by(made).workers) else made


def _kept(held: Held) -> Iterable[Any]:
    yield from held.clients
    for method in held.methods:
        if not isinstance(method.__self__, ChatAgent | BaseGroupChat | Component):
            yield method.__self__


def _new_machinery(team: BaseGroupChat) -> list[tuple[Any, Any]]:
    """A team's own runtime and queue with what replaces them: they belong to the event loop of a run."""
    if not team._embedded_runtime:
        raise UnsupportedAgent(
            f"{describe(team)} runs on a runtime of your own, which all runs would share; build the team "
            "without runtime=, or pass a factory that makes both"
        )
    runtime = SingleThreadedAgentRuntime(ignore_unhandled_exceptions=False)
    return [(team._runtime, runtime), (team._output_message_queue, asyncio.Queue())]


class Turns:
    """Lets one run after another have an object, in the order in which they came, from any event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[Future[None]] = deque()
        self._taken = False

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        await self._take()
        try:
            yield
        finally:
            self._pass_on()

    async def _take(self) -> None:
        with self._lock:
            if not self._taken:
                self._taken = True
                return
            mine: Future[None] = Future()
            self._waiting.append(mine)
        try:
            await asyncio.wrap_future(mine)
        except asyncio.CancelledError:
            if not mine.cancelled():  # the turn came in the moment of leaving
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        with self._lock:
            while self._waiting:
                following = self._waiting.popleft()
                if following.set_running_or_notify_cancel():
                    following.set_result(None)
                    return
            self._taken = False


_turns: weakref.WeakKeyDictionary[Any, Turns] = weakref.WeakKeyDictionary()
_turns_lock = threading.Lock()


class Shared:
    """An object that cannot be copied; runs take turns on it."""

    def __init__(self, agent: Any, held: Held) -> None:
        self._agent = agent
        self._held = held
        with _turns_lock:
            self._turns = _turns.setdefault(agent, Turns())

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Any]:
        """The object, remembering nothing of other runs, for this run alone."""
        async with self._turns.turn():
            for worker in self._held.workers:
                if isinstance(worker, BaseGroupChat):
                    self._renew(worker)
            for worker in self._held.workers:
                if isinstance(worker, ChatAgent):
                    await worker.on_reset(CancellationToken())
            yield self._agent

    def _renew(self, team: BaseGroupChat) -> None:
        (_, runtime), (_, queue) = _new_machinery(team)
        vars(team).update(
            _runtime=runtime, _output_message_queue=queue, _initialized=False, _is_running=False
        )

"""Checks of tools: called with what the policy wrote, answered as the framework does, and recorded."""

from __future__ import annotations

import asyncio
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from raybolt.adapters.check.drive import Ran, play, texts_of
from raybolt.adapters.check.kit import AgentKit, Way
from raybolt.adapters.check.replies import expect_text
from raybolt.adapters.check.rules import Try, check, expect
from raybolt.adapters.check.scripted import ScriptedPolicy, call
from raybolt.adapters.check.spans import ancestors, expect_chats_at_home, expect_sound_tree, tool_spans
from raybolt.env.chat import ChatMessage, ChatRequest, Completion
from raybolt.env.emit import emit
from raybolt.store import names

_TOOL_SECONDS = 0.02


class Desk:
    """Tools that note how they were called."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any, Any]] = []

    def tools(self) -> list[Callable[..., Any]]:
        def add(left: int, right: int) -> str:
            """Adds two whole numbers."""
            self.calls.append(("add", left, right))
            emit("inside add")
            time.sleep(_TOOL_SECONDS)
            return f"the sum is {left + right}"

        async def subtract(left: int, right: int) -> str:
            """Subtracts the right whole number from the left one."""
            self.calls.append(("subtract", left, right))
            await asyncio.sleep(_TOOL_SECONDS)
            emit("inside subtract")
            return f"the difference is {left - right}"

        def divide(left: int, right: int) -> str:
            """Divides the left whole number by the right one."""
            self.calls.append(("divide", left, right))
            raise ValueError("the divisor is no good")

        return [add, subtract, divide]


async def _use(kit: AgentKit, way: Way, *calls: tuple[str, dict[str, Any] | str]) -> tuple[Ran, Desk]:
    desk = Desk()
    ran = await play(kit.wrap(kit.with_tools(way, desk.tools())), ScriptedPolicy(call(*calls), "Done."))
    return ran, desk


def _expect_calls(desk: Desk, *calls: tuple[str, int, int]) -> None:
    expect(
        sorted(desk.calls) == sorted(calls),
        expected=f"the tools called once each, with {list(calls)}",
        seen=desk.calls,
        remedy="hand tool calls to the framework with the arguments as the policy wrote them",
    )


def _expect_seen(ran: Ran, *results: str) -> None:
    last = texts_of(ran.requests[-1])
    expect(
        len(ran.requests) == 2 and all(result in last for result in results),
        expected=f"a second call that shows {list(results)}",
        seen=[texts_of(request) for request in ran.requests],
        remedy="convert the tools' results into messages of role 'tool'",
    )


def _expect_span(ran: Ran, name: str, arguments: dict[str, int], result: str) -> None:
    found = [span for span in tool_spans(ran) if span.attributes.get(names.TOOL_NAME) == name]
    expect(
        len(found) == 1,
        expected=f"one span of the tool {name!r}",
        seen=[span.name for span in ran.spans],
        remedy="record tools from the framework's own hook, with names.OPERATION and names.TOOL_NAME",
    )
    (span,) = found
    expect(
        span.attributes.get(names.TOOL_ARGUMENTS) == arguments,
        expected=f"the arguments {arguments} in names.TOOL_ARGUMENTS",
        seen=span.attributes,
        remedy="record the parsed arguments as an object",
    )
    expect(
        result in str(span.attributes.get(names.TOOL_RESULT)),
        expected=f"the result {result!r} in names.TOOL_RESULT",
        seen=span.attributes,
        remedy="record what the tool returned when it ends",
    )
    expect(
        span.end_time - span.start_time >= _TOOL_SECONDS,
        expected=f"a span as long as the tool works, at least {_TOOL_SECONDS} s",
        seen=span.end_time - span.start_time,
        remedy="begin the span before the tool runs and end it after",
    )
    inner = [each for each in ran.spans if each.name == f"inside {name}"]
    expect(
        [each.parent_id for each in inner] == [span.span_id],
        expected="what the tool emits, once and below the tool's span",
        seen=[[around.name for around in ancestors(ran, each)] for each in inner],
        remedy="enter the tool's span (env.context.entering) in the context that the tool runs in",
    )
    expect_sound_tree(ran)
    expect_chats_at_home(ran)


def _one_tool(name: str, result: str) -> Try:
    async def run(kit: AgentKit, way: Way) -> None:
        ran, desk = await _use(kit, way, (name, {"left": 5, "right": 3}))
        expect_text(kit, ran, "Done.")
        _expect_calls(desk, (name, 5, 3))
        _expect_seen(ran, result)
        _expect_span(ran, name, {"left": 5, "right": 3}, result)

    run.__name__ = f"tool_{name}"
    return run


tool = check("a plain tool runs with the policy's arguments, and is recorded")(
    _one_tool("add", "the sum is 8")
)
async_tool = check("an async tool runs with the policy's arguments, and is recorded")(
    _one_tool("subtract", "the difference is 2")
)


@check("two tools asked for in one reply both run, and each result answers its own call")
async def parallel_tools(kit: AgentKit, way: Way) -> None:
    asked = (("add", {"left": 5, "right": 3}), ("subtract", {"left": 9, "right": 8}))
    ran, desk = await _use(kit, way, *asked)
    expect_text(kit, ran, "Done.")
    _expect_calls(desk, ("add", 5, 3), ("subtract", 9, 8))
    _expect_seen(ran, "the sum is 8", "the difference is 1")
    _expect_span(ran, "add", {"left": 5, "right": 3}, "the sum is 8")
    _expect_span(ran, "subtract", {"left": 9, "right": 8}, "the difference is 1")
    expect(
        _answers(ran.requests[-1]) == [("add", "the sum is 8"), ("subtract", "the difference is 1")],
        expected="each result with the id of the call that it answers",
        seen=ran.requests[-1].messages,
        remedy="keep the ids of tool calls both ways",
    )


def _answers(request: ChatRequest) -> list[tuple[str, str | None]]:
    """The tools called in a request, each with the content that answers its id."""
    results = {message.tool_call_id: message.content for message in request.messages}
    asked: Sequence[Any] = [each for message in request.messages for each in message.tool_calls]
    return sorted((each.name, results.get(each.id)) for each in asked)


@check("a tool that raises is recorded as failed, and the agent sees it or the run fails as the agent's")
async def failing_tool(kit: AgentKit, way: Way) -> None:
    ran, desk = await _use(kit, way, ("divide", {"left": 5, "right": 3}))
    expect(
        ("divide", 5, 3) in desk.calls,
        expected="the tool called with 5 and 3",
        seen=desk.calls,
        remedy="hand tool calls to the framework with the arguments as the policy wrote them",
    )
    failed = [span for span in tool_spans(ran) if span.status == "error"]
    expect(
        [span.attributes.get(names.TOOL_NAME) for span in failed] == ["divide"],
        expected="the tool's span ended as an error",
        seen=[(span.name, span.status) for span in ran.spans],
        remedy="end the tool's span with status 'error' when the tool raises, once",
    )
    _expect_attributed(ran, "the divisor is no good")


@check("a call of a tool that does not exist is an error that the agent sees, or the run fails as its own")
async def unknown_tool(kit: AgentKit, way: Way) -> None:
    ran, desk = await _use(kit, way, ("no_such_tool", {}))
    _expect_calls(desk)
    _expect_attributed(ran, "no_such_tool")


@check("arguments that are no JSON are an error that the agent sees, or the run fails as its own")
async def malformed_arguments(kit: AgentKit, way: Way) -> None:
    ran, desk = await _use(kit, way, ("add", '{"left": 5, '))
    _expect_calls(desk)
    _expect_attributed(ran)


@check("a reply that could not be read as a tool call does not break the adapter")
async def unreadable_reply(kit: AgentKit, way: Way) -> None:
    desk = Desk()
    raw = "<tool_call>{oops</tool_call>"
    unreadable = Completion(ChatMessage("assistant", raw), parse_error="the call is no JSON object")
    agent = kit.wrap(kit.with_tools(way, desk.tools()))
    _expect_attributed(await play(agent, ScriptedPolicy(unreadable, "Done.")))
    _expect_calls(desk)


def _expect_attributed(ran: Ran, shown: str = "") -> None:
    """The run went on and showed `shown` to the policy; or it failed with that, as the agent's."""
    if ran.end.failed:
        expect(
            ran.end.origin in ("agent", "policy") and shown in str(ran.end.error),
            expected=f"a failure of origin 'agent' or 'policy' that names {shown!r}",
            seen=(ran.end.origin, ran.end.error),
            remedy="let the framework's own error through, unchanged",
        )
        expect(
            not _raised_by_adapter(ran),
            expected="an error of the framework or of the agent's own code",
            seen=f"{ran.end.error}, raised by the adapter",
            remedy="convert whatever a policy may write, and leave the judgement to the framework",
        )
        return
    expect(
        len(ran.requests) == 1 or shown in texts_of(ran.requests[-1]),
        expected=f"a next call that shows {shown!r}",
        seen=texts_of(ran.requests[-1]),
        remedy="convert failed tool results, too",
    )
    expect_sound_tree(ran)


def _raised_by_adapter(ran: Ran) -> bool:
    """Whether the innermost code, the standard library and our own tools apart, is the adapter's."""
    frames = traceback.walk_tb(ran.end.exception.__traceback__) if ran.end.exception else ()
    modules = [frame.f_globals.get("__name__", "") for frame, _ in frames]
    *_, last = ["", *(name for name in modules if name.partition(".")[0] not in sys.stdlib_module_names)]
    return last.startswith(("raybolt.adapters.", ran.adapter_module)) and last != __name__


TOOLS = (
    tool,
    async_tool,
    parallel_tools,
    failing_tool,
    unknown_tool,
    malformed_arguments,
    unreadable_reply,
)

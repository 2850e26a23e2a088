"""In a replay, LangChain's tools answer what they answered then, instead of running."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool

from raybolt.adapters.classes import family, own_methods
from raybolt.adapters.langchain.place import Place
from raybolt.adapters.patching import patched
from raybolt.env.context import current_run
from raybolt.env.recorded_tools import ToolAnswer
from raybolt.env.replayed import replaying


@contextmanager
def tools_replayed() -> Iterator[None]:
    """Inside the block, tools whose place in the run holds an answer give that. Nothing outside a replay.

    Below LangChain's own `run` and `arun`, so that what they do around a tool stays as it is.
    """
    with ExitStack() as stack:
        for cls in family(BaseTool) if replaying() else ():
            stack.enter_context(patched(cls, own_methods(cls, {"run": _run, "arun": _arun})))
        yield


def _run(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def guarded(self: BaseTool, *args: Any, **kwargs: Any) -> Any:
        with _code_replayed(type(self)):
            return original(self, *args, **kwargs)

    return guarded


def _arun(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(original)
    async def guarded(self: BaseTool, *args: Any, **kwargs: Any) -> Any:
        with _code_replayed(type(self)):
            return await original(self, *args, **kwargs)

    return guarded


@contextmanager
def _code_replayed(tool: type[BaseTool]) -> Iterator[None]:
    """The same for the code of one class, which may have been made while the run is on."""
    with ExitStack() as stack:
        for cls in tool.__mro__:
            stack.enter_context(patched(cls, own_methods(cls, {"_run": _code, "_arun": _acode})))
        yield


def _code(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def guarded(self: BaseTool, *args: Any, **kwargs: Any) -> Any:
        answer = _answer()
        return original(self, *args, **kwargs) if answer is None else _returned(self, answer)

    return guarded


def _acode(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(original)
    async def guarded(self: BaseTool, *args: Any, **kwargs: Any) -> Any:
        answer = _answer()
        return await original(self, *args, **kwargs) if answer is None else _returned(self, answer)

    return guarded


def _answer() -> ToolAnswer | None:
    place = current_run.get()
    return place.take_answer() if isinstance(place, Place) else None


def _returned(tool: BaseTool, answer: ToolAnswer) -> Any:
    value = answer.given()
    if answer.failure is not None:  # LangChain has put an exception into words, as the tool told it to
        value = ToolMessage(value, status="error", tool_call_id=str(answer.call_id), name=tool.name)
    return (value, None) if tool.response_format == "content_and_artifact" else value

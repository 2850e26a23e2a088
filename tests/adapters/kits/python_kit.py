"""Plain functions with the `openai` client, as people write them, for the adapter conformance checks."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

import raybolt
from raybolt.adapters.check.kit import NOWHERE, AgentKit, NotOffered, Way
from raybolt.env.chat import ChatRequest, Completion
from raybolt.store import names

_TYPES = {"int": "integer", "str": "string"}


class PythonKit(AgentKit):
    """Functions of a text; roles and tools are blocks under `raybolt.operation`."""

    framework: ClassVar[str] = "python"
    ways: ClassVar[tuple[Way, ...]] = ("built",)

    def solo(self, way: Way) -> Any:
        def writer(question: str) -> str:
            with _client() as client:
                return client.responses.create(model="test", input=question).output_text

        return writer

    def with_tools(self, way: Way, tools: Sequence[Callable[..., Any]]) -> Any:
        async def writer(question: str) -> str:
            messages: list[Any] = [{"role": "user", "content": question}]
            async with _async_client() as client:
                while True:
                    reply = await client.chat.completions.create(
                        model="test", messages=messages, tools=[_schema(tool) for tool in tools]
                    )
                    message = reply.choices[0].message
                    messages.append(message.model_dump(exclude_none=True))
                    if not message.tool_calls:
                        return message.content or ""
                    for call in message.tool_calls:
                        content = await _run(tools, call.function.name, call.function.arguments, call.id)
                        messages.append({"role": "tool", "tool_call_id": call.id, "content": content})

        return writer

    def two_roles(self, way: Way) -> Any:
        return _pair(NOWHERE)

    def hand_off(self, way: Way) -> Any:
        raise NotOffered("plain Python has no hand-offs; they are function calls")

    def hand_off_reply(self, request: ChatRequest) -> Completion:
        raise NotOffered("plain Python has no hand-offs; they are function calls")

    def structured(self, way: Way, schema: type[BaseModel]) -> Any:
        def writer(question: str) -> Any:
            with _client() as client:
                reply = client.responses.parse(model="test", input=question, text_format=schema)
            return reply.output_parsed

        return writer

    def streaming(self, way: Way) -> Any:
        async def writer(question: str) -> str:
            messages: list[Any] = [{"role": "user", "content": question}]
            async with _async_client() as client:
                chunks = await client.chat.completions.create(model="test", messages=messages, stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

        return writer

    def parallel(self, way: Way) -> Any:
        async def writer(question: str) -> str:
            async with _async_client() as client:
                asked = (client.responses.create(model="test", input=question) for _ in range(3))
                return "\n".join(reply.output_text for reply in await asyncio.gather(*asked))

        return writer

    def late_model(self) -> Any:
        return self.solo("built")

    def text(self, result: Any) -> str:
        return str(result)

    def own_model(self, base_url: str) -> Any:
        return OpenAI(api_key="unused", base_url=base_url, max_retries=0)

    def own_agent(self, base_url: str) -> Any:
        return _pair(base_url)


def _client(base_url: str = NOWHERE) -> OpenAI:
    return OpenAI(api_key="unused", base_url=base_url, max_retries=0)


def _async_client(base_url: str = NOWHERE) -> AsyncOpenAI:
    return AsyncOpenAI(api_key="unused", base_url=base_url, max_retries=0)


def _pair(base_url: str) -> Any:
    async def pair(question: str) -> str:
        async with _async_client(base_url) as client:
            with raybolt.operation("write", role="writer"):
                draft = await client.responses.create(model="test", input=question)
            with raybolt.operation("review", role="critic"):
                asked = f"{question}\n{draft.output_text}"
                return (await client.responses.create(model="test", input=asked)).output_text

    return pair


async def _run(tools: Sequence[Callable[..., Any]], name: str, arguments: str, call_id: str) -> str:
    """What the tool returned, or how it failed, in the words of a tool message."""
    attributes = {names.OPERATION: names.EXECUTE_TOOL, names.TOOL_NAME: name, names.TOOL_CALL_ID: call_id}
    try:
        with raybolt.operation(f"execute_tool {name}", **attributes) as span:
            (tool,) = (tool for tool in tools if tool.__name__ == name)
            given = json.loads(arguments)
            asynchronous = inspect.iscoroutinefunction(tool)
            result = await (tool(**given) if asynchronous else asyncio.to_thread(tool, **given))
            if span is not None:
                span.attributes |= {names.TOOL_ARGUMENTS: given, names.TOOL_RESULT: result}
    except (ValueError, TypeError) as error:
        return f"{name} failed: {error}"
    return str(result)


def _schema(tool: Callable[..., Any]) -> Any:
    parameters = inspect.signature(tool).parameters.values()
    properties = {each.name: {"type": _TYPES[_name(each.annotation)]} for each in parameters}
    return {
        "type": "function",
        "function": {
            "name": tool.__name__,
            "description": tool.__doc__,
            "parameters": {"type": "object", "properties": properties},
        },
    }


def _name(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else annotation.__name__

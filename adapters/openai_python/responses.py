"""OpenAI's Responses API: request bodies in; response objects and event streams out."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raybolt.adapters.openai_python.wire import objects, token_logprobs
from raybolt.env.chat import (
    ChatMessage,
    ChatRequest,
    Completion,
    ToolCall,
    ToolSpec,
    content_text,
    message_from_dict,
    tool_from_dict,
)
from raybolt.store.errors import InvalidValue

_Item = Mapping[str, Any]

# What OpenAI's servers would have to do or remember; nothing here can.
_REFUSED = {
    "background": "answers come at once; leave it out",
    "conversation": "there is no store of conversations; send the earlier items as `input`",
    "prompt": "there is no store of prompts; send its text as `instructions`",
}
# What a response repeats of its request.
_REPEATED: Mapping[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": None,
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "store": True,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
}


def chat_request_from_responses(body: Mapping[str, Any], *, role: str) -> ChatRequest:
    """The canonical request; parameters that only shape sampling beyond ours are dropped.

    Raises InvalidValue, naming the field, for what no answer could honour: tools that OpenAI's servers run,
    input that is not text, and references to earlier responses, which `ResponseMemory.expanded` resolves
    beforehand.
    """
    for field, remedy in _REFUSED.items():
        if body.get(field):
            raise InvalidValue(f"{field}={body[field]!r}: {remedy}")
    if body.get("previous_response_id"):
        raise unknown_response(body["previous_response_id"])
    instructions = body.get("instructions")
    system = (ChatMessage("system", instructions),) if instructions else ()
    return ChatRequest(
        messages=system + messages_from_items(input_items(body)),
        tools=tuple(_tool(tool) for tool in objects(body, "tools")),
        tool_choice=_tool_choice(body.get("tool_choice")),
        response_format=_response_format((body.get("text") or {}).get("format")),
        temperature=body.get("temperature"),
        max_tokens=body.get("max_output_tokens"),
        role=role,
    )


def unknown_response(response_id: str) -> InvalidValue:
    """The error for a `previous_response_id` that names no response of this run."""
    return InvalidValue(
        f"previous_response_id={response_id!r} is no stored response of this run; send the earlier items as "
        "`input`"
    )


def input_items(body: Mapping[str, Any]) -> list[_Item]:
    """The request's input as a list of items; a text is the user's message."""
    given = body.get("input")
    return [{"role": "user", "content": given}] if isinstance(given, str) else objects(body, "input")


def messages_from_items(items: Sequence[_Item]) -> tuple[ChatMessage, ...]:
    """The canonical messages of input or output items.

    What a reply consists of, its text and the calls after it, becomes one message again, as the policy gave
    it. Reasoning items are left out.

    Raises:
        InvalidValue: an item is of a kind that no policy reads.
    """
    messages: list[ChatMessage] = []
    for item in items:
        kind = item.get("type") or "message"
        if kind == "message":
            messages.append(message_from_dict({"role": item.get("role"), "content": item.get("content")}))
        elif kind == "function_call":
            call = ToolCall(str(item.get("call_id") or ""), str(item.get("name")), _arguments(item))
            before = messages.pop() if messages and messages[-1].role == "assistant" else None
            content, calls = (None, ()) if before is None else (before.content, before.tool_calls)
            messages.append(ChatMessage("assistant", content, (*calls, call)))
        elif kind == "function_call_output":
            messages.append(ChatMessage("tool", _output(item), tool_call_id=item.get("call_id")))
        elif kind != "reasoning":
            raise _unreadable(kind, item)
    return tuple(messages)


def _arguments(item: _Item) -> str:
    arguments = item.get("arguments")
    return arguments if isinstance(arguments, str) else json.dumps(arguments or {})


def _output(item: _Item) -> str | None:
    output = item.get("output")
    return content_text(output if output is None or isinstance(output, str | list) else json.dumps(output))


def _unreadable(kind: str, item: _Item) -> InvalidValue:
    if kind == "item_reference":
        return InvalidValue(
            f"input refers to item {item.get('id')!r}, which no stored response of this run has; send the "
            "item itself"
        )
    return InvalidValue(
        f"input has an item of type {kind!r}; a raybolt policy reads messages, function calls and their "
        "outputs"
    )


def _tool(tool: Mapping[str, Any]) -> ToolSpec:
    if tool.get("type", "function") != "function":
        raise InvalidValue(
            f"tool of type {tool['type']!r} is one that OpenAI's servers run or read; a raybolt policy can "
            "only call tools of type 'function', which run in the agent"
        )
    return tool_from_dict(tool)


def _tool_choice(choice: Any) -> str | None:
    if not isinstance(choice, Mapping):
        return choice
    if choice.get("type", "function") != "function":
        raise InvalidValue(
            f"tool_choice={dict(choice)!r}: expected 'auto', 'none', 'required' or one function's name"
        )
    return choice.get("name")


def _response_format(wanted: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """As chat completions write it."""
    if wanted is None or wanted.get("type") == "text":
        return None
    if wanted.get("type") != "json_schema":
        return wanted
    schema = {key: value for key, value in wanted.items() if key != "type" and value is not None}
    return {"type": "json_schema", "json_schema": schema}


def completion_to_response(
    completion: Completion,
    *,
    model: str,
    response_id: str,
    body: Mapping[str, Any] | None = None,
    token_texts: Sequence[str] | None = None,
) -> dict[str, Any]:
    """A `response` object; its settings are those of the request's `body`.

    With `token_texts`, one per response token, the message carries log-probabilities.
    """
    cut_off = completion.finish_reason == "length"
    return _envelope(model, response_id, body or {}) | {
        "completed_at": None if cut_off else int(time.time()),
        "incomplete_details": {"reason": "max_output_tokens"} if cut_off else None,
        "output": _output_items(completion, response_id, token_texts),
        "status": "incomplete" if cut_off else "completed",
        "usage": _usage(completion),
    }


def _envelope(model: str, response_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
    given = {key: default if body.get(key) is None else body[key] for key, default in _REPEATED.items()}
    return given | {
        "id": response_id,
        "object": "response",
        "created_at": int(time.time()),
        "error": None,
        "incomplete_details": None,
        "model": model,
        "output": [],
        "status": "in_progress",
        "usage": None,
    }


def _output_items(
    completion: Completion, response_id: str, token_texts: Sequence[str] | None
) -> list[dict[str, Any]]:
    message, suffix = completion.message, response_id.removeprefix("resp_")
    status = "incomplete" if completion.finish_reason == "length" else "completed"
    items: list[dict[str, Any]] = []
    if message.content or not message.tool_calls:
        text = {
            "type": "output_text",
            "text": message.content or "",
            "annotations": [],
            "logprobs": token_logprobs(completion, token_texts) or [],
        }
        items.append(
            {
                "type": "message",
                "id": f"msg_{suffix}",
                "role": "assistant",
                "status": status,
                "content": [text],
            }
        )
    for index, call in enumerate(message.tool_calls):
        items.append(
            {
                "type": "function_call",
                "id": f"fc_{suffix}_{index}",
                "call_id": call.id,
                "name": call.name,
                "arguments": call.arguments,
                "status": "completed",
            }
        )
    return items


def _usage(completion: Completion) -> dict[str, Any]:
    num_in = 0 if completion.prompt_ids is None else len(completion.prompt_ids)
    num_out = 0 if completion.response_ids is None else len(completion.response_ids)
    return {
        "input_tokens": num_in,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": num_out,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": num_in + num_out,
    }


def completion_to_response_events(
    completion: Completion,
    *,
    model: str,
    response_id: str,
    body: Mapping[str, Any] | None = None,
    token_texts: Sequence[str] | None = None,
) -> Iterator[bytes]:
    """The server-sent events of the same answer, each part of it in one delta.

    An answer that the length limit cut off ends with `response.incomplete`, as OpenAI's does.
    """
    response = completion_to_response(
        completion, model=model, response_id=response_id, body=body, token_texts=token_texts
    )
    for event in response_events(response):
        yield f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def response_events(response: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The events by which a `response` object comes into being."""
    for number, event in enumerate(_events(response)):
        yield {**event, "sequence_number": number}


def _events(response: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    unknown = dict.fromkeys(("completed_at", "incomplete_details", "usage"))
    begun = {**response, **unknown, "output": [], "status": "in_progress"}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, item in enumerate(response["output"]):
        empty: dict[str, Any] = {"content": []} if item["type"] == "message" else {"arguments": ""}
        started = {**item, **empty, "status": "in_progress"}
        yield {"type": "response.output_item.added", "output_index": index, "item": started}
        place = {"item_id": item["id"], "output_index": index}
        yield from _text_events(item, place) if item["type"] == "message" else _call_events(item, place)
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": f"response.{response['status']}", "response": response}


def _text_events(item: _Item, place: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    (part,) = item["content"]
    where = {**place, "content_index": 0}
    known = {"logprobs": part["logprobs"]}
    yield {"type": "response.content_part.added", **where, "part": {**part, "text": "", "logprobs": []}}
    yield {"type": "response.output_text.delta", **where, **known, "delta": part["text"]}
    yield {"type": "response.output_text.done", **where, **known, "text": part["text"]}
    yield {"type": "response.content_part.done", **where, "part": part}


def _call_events(item: _Item, place: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    text = item["arguments"]
    yield {"type": "response.function_call_arguments.delta", **place, "delta": text}
    done = {"name": item["name"], "arguments": text}
    yield {"type": "response.function_call_arguments.done", **place, **done}

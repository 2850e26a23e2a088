"""What an answer of some other OpenAI-style model says, whole or streamed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from raybolt.adapters.openai_python.responses import messages_from_items
from raybolt.env.chat import ChatMessage, FinishReason, message_from_dict
from raybolt.env.observed import ObservedCall
from raybolt.store.errors import InvalidValue

_ENDS = ("response.completed", "response.incomplete", "response.failed")


@dataclass(frozen=True, slots=True)
class OwnReply:
    """An answer of a model that is no policy."""

    message: ChatMessage
    finish_reason: FinishReason = "stop"
    model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None

    def tell(self, call: ObservedCall) -> None:
        """Records the answer in the call's span."""
        call.reply(
            self.message,
            finish_reason=self.finish_reason,
            model=self.model,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
        )


def reply_from_body(body: Mapping[str, Any]) -> OwnReply | None:
    """The first choice of a `chat.completion` object; None if there is none."""
    choices = body.get("choices")
    if not choices or not choices[0].get("message"):
        return None
    usage = body.get("usage") or {}
    return OwnReply(
        _readable({**choices[0]["message"], "role": "assistant"}),
        _finish_reason(choices[0].get("finish_reason")),
        body.get("model"),
        usage.get("prompt_tokens"),
        usage.get("completion_tokens"),
    )


def reply_from_response(body: Mapping[str, Any]) -> OwnReply | None:
    """The reply of a `response` object, of which only text and function calls are kept; None without any."""
    readable = [item for item in body.get("output") or () if item.get("type") in ("message", "function_call")]
    messages = messages_from_items([_text_item(item) for item in readable])
    if not messages:
        return None
    content = "".join(message.content or "" for message in messages)
    calls = tuple(call for message in messages for call in message.tool_calls)
    usage = body.get("usage") or {}
    finish: FinishReason = "tool_calls" if calls else "stop"
    return OwnReply(
        ChatMessage("assistant", content or None if calls else content, calls),
        "length" if body.get("status") == "incomplete" else finish,
        body.get("model"),
        usage.get("input_tokens"),
        usage.get("output_tokens"),
    )


def body_from_events(events: bytes) -> dict[str, Any]:
    """The object that a stream of server-sent events adds up to, as the same call without a stream gives it.

    A stream that was left early gives what it said until then.
    """
    body: dict[str, Any] = {}
    message: dict[str, Any] = {"content": "", "tool_calls": []}
    for data in _data(events):
        if data.get("type") in _ENDS:
            return dict(data["response"])
        body |= {key: data[key] for key in ("model", "usage") if data.get(key)}
        for choice in (data.get("choices") or ())[:1]:
            _add_delta(message, choice.get("delta") or {})
            reason = choice.get("finish_reason") or body.get("finish_reason")
            body |= {"choices": [{"message": message, "finish_reason": reason}], "finish_reason": reason}
    return body


def _data(events: bytes) -> Iterator[dict[str, Any]]:
    for line in events.decode(errors="replace").splitlines():
        text = line.removeprefix("data:").strip()
        if not line.startswith("data:") or not text.startswith("{"):
            continue
        try:
            yield json.loads(text)
        except ValueError:  # cut off where the consumer left
            return


def _add_delta(message: dict[str, Any], delta: Mapping[str, Any]) -> None:
    message["content"] += delta.get("content") or ""
    for piece in delta.get("tool_calls") or ():
        index = piece.get("index", 0)
        while len(message["tool_calls"]) <= index:
            message["tool_calls"].append({"id": "", "function": {"name": "", "arguments": ""}})
        call, function = message["tool_calls"][index], piece.get("function") or {}
        call["id"] = piece.get("id") or call["id"]
        call["function"]["name"] += function.get("name") or ""
        call["function"]["arguments"] += function.get("arguments") or ""


def _readable(message: Mapping[str, Any]) -> ChatMessage:
    try:
        read = message_from_dict(message)
    except InvalidValue:  # an image, say: the trace keeps the words
        return ChatMessage("assistant", None)
    return ChatMessage(
        "assistant", read.content or None if read.tool_calls else read.content, read.tool_calls
    )


def _text_item(item: Mapping[str, Any]) -> Mapping[str, Any]:
    if item.get("type") != "message":
        return item
    parts = [part for part in item.get("content") or () if part.get("type") == "output_text"]
    return {**item, "content": parts}


def _finish_reason(reason: str | None) -> FinishReason:
    return (
        "tool_calls"
        if reason in ("tool_calls", "function_call")
        else "length"
        if reason == "length"
        else "stop"
    )

"""OpenAI's chat-completions format: request bodies in; response bodies, event streams and errors out."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raybolt.env.chat import ChatRequest, Completion, message_from_dict, message_to_dict, tool_from_dict
from raybolt.store.errors import InvalidValue


def chat_request_from_body(body: Mapping[str, Any], *, role: str) -> ChatRequest:
    """The canonical request; parameters that only shape sampling beyond ours (top_p, seed…) are dropped.

    Raises InvalidValue, naming the field, for what no answer could honour: several choices, or content that
    is not text.
    """
    if body.get("n") not in (None, 1):
        raise InvalidValue(f"n={body['n']!r}: a policy gives one choice per call; call it n times instead")
    stop = body.get("stop")
    return ChatRequest(
        messages=tuple(message_from_dict(message) for message in objects(body, "messages")),
        tools=tuple(tool_from_dict(tool) for tool in objects(body, "tools")),
        tool_choice=_tool_choice(body.get("tool_choice")),
        response_format=body.get("response_format"),
        temperature=body.get("temperature"),
        max_tokens=body.get("max_completion_tokens") or body.get("max_tokens"),
        stop=(stop,) if isinstance(stop, str) else tuple(stop or ()),
        role=role,
    )


def objects(body: Mapping[str, Any], field: str) -> list[Mapping[str, Any]]:
    """The JSON objects in a field of the body; none if it is absent.

    Raises:
        InvalidValue: the field is no list of objects.
    """
    value = body.get(field) or []
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise InvalidValue(f"{field} is {json.dumps(value)[:200]}; expected a list of objects")
    return value


def _tool_choice(choice: Any) -> str | None:
    if isinstance(choice, Mapping):
        return choice.get("function", choice).get("name")
    return choice


def completion_to_body(
    completion: Completion, *, model: str, completion_id: str, token_texts: Sequence[str] | None = None
) -> dict[str, Any]:
    """A `chat.completion` object; with `token_texts`, one per response token, it has log-probabilities."""
    choice = {
        "index": 0,
        "message": {"refusal": None, **message_to_dict(completion.message)},
        "logprobs": _choice_logprobs(completion, token_texts),
        "finish_reason": completion.finish_reason,
    }
    return _envelope("chat.completion", model, completion_id, [choice]) | {"usage": _usage(completion)}


def completion_to_events(
    completion: Completion,
    *,
    model: str,
    completion_id: str,
    include_usage: bool,
    token_texts: Sequence[str] | None = None,
) -> Iterator[bytes]:
    """The server-sent events of the same answer: one delta with all of it, the finish reason, `[DONE]`."""
    delta = message_to_dict(completion.message)
    for index, call in enumerate(delta.get("tool_calls", ())):
        call["index"] = index
    logprobs = _choice_logprobs(completion, token_texts)
    choices = [
        {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": None},
        {"index": 0, "delta": {}, "logprobs": None, "finish_reason": completion.finish_reason},
    ]
    for choice in choices:
        yield _event(_envelope("chat.completion.chunk", model, completion_id, [choice]))
    if include_usage:
        usage = {"usage": _usage(completion)}
        yield _event(_envelope("chat.completion.chunk", model, completion_id, []) | usage)
    yield b"data: [DONE]\n\n"


def token_logprobs(completion: Completion, token_texts: Sequence[str] | None) -> list[dict[str, Any]] | None:
    """The sampled tokens, the one that ends the turn included, each with its log-probability.

    None without texts, and for an answer whose log-probabilities are not known. Of the tokens that were not
    sampled nothing is known either, so `top_logprobs` is empty.
    """
    if token_texts is None or completion.logprobs is None:
        return None
    return [
        {"token": text, "logprob": logprob, "bytes": list(text.encode()), "top_logprobs": []}
        for text, logprob in zip(token_texts, completion.logprobs.tolist(), strict=True)
    ]


def _choice_logprobs(completion: Completion, token_texts: Sequence[str] | None) -> dict[str, Any] | None:
    content = token_logprobs(completion, token_texts)
    return None if content is None else {"content": content, "refusal": None}


def error_body(
    message: str, *, kind: str = "invalid_request_error", code: str | None = None
) -> dict[str, Any]:
    """An error as OpenAI's clients expect it."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _envelope(kind: str, model: str, completion_id: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": completion_id,
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "choices": choices,
    }


def _usage(completion: Completion) -> dict[str, int]:
    num_in = 0 if completion.prompt_ids is None else len(completion.prompt_ids)
    num_out = 0 if completion.response_ids is None else len(completion.response_ids)
    return {"prompt_tokens": num_in, "completion_tokens": num_out, "total_tokens": num_in + num_out}


def _event(data: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"

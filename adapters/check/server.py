"""A model server of its own for checks: OpenAI-compatible, in a thread, with canned replies."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

INPUT_TOKENS, OUTPUT_TOKENS = 11, 5
"""The usage that every reply names."""


class ModelServer:
    """Answers chat completions and Responses, plain and streamed, and keeps the bodies it was sent.

    The replies are "own reply 1", "own reply 2", …, in the order of the requests.
    """

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        """The base URL, as clients take it."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def reply_to(self, body: dict[str, Any]) -> str:
        with self._lock:
            self.bodies.append(body)
            return f"own reply {len(self.bodies)}"

    @contextmanager
    def serving(self) -> Iterator[ModelServer]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="model-server")
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()


def _handler_of(server: ModelServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"  # no connection outlives its request

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            make = _responses if self.path.endswith("/responses") else _chat
            events = make(server.reply_to(body), bool(body.get("stream")), body)
            kind = "text/event-stream" if body.get("stream") else "application/json"
            self.send_response(200)
            self.send_header("content-type", kind)
            self.end_headers()
            self.wfile.write(events)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: tests read their own output."""

    return Handler


def _chat(text: str, stream: bool, body: dict[str, Any]) -> bytes:
    base = {"id": "chatcmpl-1", "created": 1, "model": body["model"]}
    usage = {
        "prompt_tokens": INPUT_TOKENS,
        "completion_tokens": OUTPUT_TOKENS,
        "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
    }
    if not stream:
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        return json.dumps({**base, "object": "chat.completion", "choices": [choice], "usage": usage}).encode()
    deltas: list[tuple[dict[str, Any], str | None]] = [
        *(({"role": "assistant", "content": part}, None) for part in _pieces(text)),
        ({}, "stop"),
    ]
    base["object"] = "chat.completion.chunk"
    chunks: list[dict[str, Any]] = [
        {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
        for delta, reason in deltas
    ]
    chunks.append({**base, "choices": [], "usage": usage})
    events = [*(json.dumps(chunk) for chunk in chunks), "[DONE]"]
    return "".join(f"data: {event}\n\n" for event in events).encode()


def _responses(text: str, stream: bool, body: dict[str, Any]) -> bytes:
    part = {"type": "output_text", "text": text, "annotations": []}
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    response = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": body["model"],
        "output": [item],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": INPUT_TOKENS,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": OUTPUT_TOKENS,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
        },
    }
    if not stream:
        return json.dumps(response).encode()
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": {**response, "status": "in_progress", "output": []}},
        *({"type": "response.output_text.delta", "delta": piece, **place} for piece in _pieces(text)),
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": response},
    ]
    numbered = ({**event, "sequence_number": number} for number, event in enumerate(events))
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in numbered)


def _pieces(text: str) -> list[str]:
    """The text in two, so that a client has something to join."""
    return [text[:4], text[4:]]

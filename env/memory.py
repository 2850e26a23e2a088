"""What a codec remembers of one run: the exact tokens of every conversation that was answered in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

import numpy as np

from raybolt.env.chat import ChatMessage, ChatRequest, TokenIds, ToolSpec, tool_to_dict
from raybolt.env.tool_calls import canonical_arguments


class CodecMemory:
    """The conversations answered so far, by what they say rather than how frameworks write them down.

    A reply that went through a framework comes back changed: tool calls re-serialised, ids renamed, spaces
    trimmed. Two messages are the same if role, content (an assistant's without the spaces around it) and tool
    calls (names and parsed arguments) are.
    """

    def __init__(self) -> None:
        self._tokens: dict[bytes, TokenIds] = {}
        self._replies: set[bytes] = set()
        self._last: tuple[ChatRequest | None, list[bytes]] = (None, [])
        self.drift: str | None = None
        """Why the prompt encoded last could not reuse all tokens sampled for it earlier; None if it did."""

    def remember(self, request: ChatRequest, reply: ChatMessage, token_ids: TokenIds) -> None:
        """Keeps the tokens (prompt and response) of an answered request."""
        keys = self._keys(request)
        self._tokens[_extended_key(keys[-1] if keys else b"", message_key(reply))] = token_ids
        self._replies.add(message_key(reply))

    def longest_known(self, request: ChatRequest) -> tuple[int, TokenIds | None]:
        """How many of the request's messages are known with their tokens, and these; (0, None) if none."""
        if not self._tokens:
            return 0, None
        keys = self._keys(request)
        for count in range(len(keys), 0, -1):
            tokens = self._tokens.get(keys[count - 1])
            if tokens is not None:
                return count, tokens
        return 0, None

    def _keys(self, request: ChatRequest) -> list[bytes]:
        """One key per message; those of the request asked for last are kept, as it is answered next."""
        if self._last[0] is not request:
            self._last = (request, conversation_keys(request.usable_tools, request.messages))
        return self._last[1]

    def num_sampled(self, messages: Sequence[ChatMessage]) -> int:
        """How many of the messages are replies that were sampled in this run."""
        return sum(m.role == "assistant" and message_key(m) in self._replies for m in messages)


def conversation_keys(tools: Sequence[ToolSpec], messages: Sequence[ChatMessage]) -> list[bytes]:
    """One key per message: that of the conversation up to and with it."""
    key = tools_key(tools)
    keys = []
    for message in messages:
        key = _extended_key(key, message_key(message))
        keys.append(key)
    return keys


def tools_key(tools: Sequence[ToolSpec]) -> bytes:
    """The same for the same tools in the same order."""
    if not tools:
        return b""
    text = json.dumps([tool_to_dict(tool) for tool in tools], sort_keys=True, default=str)
    return blake2b(text.encode(), digest_size=16).digest()


def _extended_key(key: bytes, message: bytes) -> bytes:
    return blake2b(key + message, digest_size=16).digest()


@lru_cache(maxsize=4096)
def message_key(message: ChatMessage) -> bytes:
    """The same for messages that say the same."""
    content = message.content or ""
    calls = [(call.name, canonical_arguments(call.arguments)) for call in message.tool_calls]
    if message.role == "assistant":
        content = content.strip()
    text = json.dumps([message.role, content, calls], sort_keys=True)
    return blake2b(text.encode(), digest_size=16).digest()


def joined(*parts: Sequence[int] | TokenIds) -> TokenIds:
    """One int32 array of all the tokens."""
    return np.concatenate([np.asarray(part, dtype=np.int32) for part in parts])

"""Chat to tokens and back, such that no token is ever guessed.

**Prefix-faithful.** When a request goes on from an earlier request and its reply, its prompt begins with the
very tokens of that prompt and that reply; only what is new is rendered and tokenised. Rendering the whole
conversation again would often give other tokens for the reply, and training would then put probabilities on
tokens that nobody sampled. Where the earlier tokens cannot be reused, `CodecMemory.drift` says why.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from raybolt.env.chat import (
    ChatMessage,
    ChatRequest,
    Completion,
    FinishReason,
    TokenIds,
    ToolSpec,
)
from raybolt.env.errors import ContextTooLong, TemplateError, UnknownModel
from raybolt.env.memory import CodecMemory, joined, message_key
from raybolt.env.models import ModelSource, load_tokenizer, resolve_model, text_config
from raybolt.env.template import ChatTemplate
from raybolt.env.tool_calls import MalformedToolCall, parse_reply

_CACHED_PROMPTS = 256  # rendered texts; the rollouts of a group begin with the same one


class ChatCodec:
    """Renders requests as token ids and reads replies, with any Hugging Face tokenizer's chat template.

    Stateless but for a cache, so one codec serves all runs; what belongs to a run is in its `CodecMemory`.
    """

    def __init__(self, tokenizer: Any, *, max_context: int, vocab_size: int | None = None) -> None:
        """A codec for prompts and replies of together at most `max_context` tokens.

        `vocab_size` is the model's, where it is larger than the tokenizer's: models are often padded, and
        a padding token may be sampled, though it stands for no text.

        Raises:
            TemplateError: the tokenizer has no usable chat template.
        """
        self.tokenizer = tokenizer
        self.max_context = max_context
        self.vocab_size = vocab_size or len(tokenizer)
        self.template = ChatTemplate(tokenizer)
        self._cache: OrderedDict[str, list[int]] = OrderedDict()
        turn_end = self._tokenize(self.template.turn_end)
        special = set(getattr(tokenizer, "all_special_ids", ()))
        self.end_id: int | None = turn_end[0] if turn_end and turn_end[0] in special else None
        """The token that ends an assistant's turn; None if the template writes no such token."""
        self._end_text = "" if self.end_id is None else tokenizer.convert_ids_to_tokens(self.end_id)
        ends = {self.end_id, tokenizer.eos_token_id} - {None}
        self.stop_ids: tuple[int, ...] = tuple(sorted(ends))
        """The tokens after which an engine must stop."""

    def encode(self, request: ChatRequest, memory: CodecMemory) -> TokenIds:
        """The prompt as int32[P], generation prompt included; sets `memory.drift`.

        Raises:
            ContextTooLong: the prompt leaves no room for a single token.
            TemplateError: the template refuses the conversation.
        """
        count, known = memory.longest_known(request)
        memory.drift = None
        prompt: TokenIds | None = None
        if known is not None:
            prompt = self._extended(
                known, request.messages[:count], request.messages[count:], request.usable_tools
            )
            if prompt is None:
                count = 0
                memory.drift = "the chat template renders earlier turns otherwise once new ones follow"
        if prompt is None:
            text = self.template.render(request.messages, request.usable_tools, generate=True)
            prompt = np.asarray(self._tokenize_cached(text), dtype=np.int32)
        num_again = memory.num_sampled(request.messages[count:])
        if memory.drift is None and num_again:
            memory.drift = (
                f"{num_again} sampled replies were tokenised again: what stands before them changed"
            )
        if len(prompt) >= self.max_context:
            raise ContextTooLong(
                f"the prompt has {len(prompt)} tokens, the model takes {self.max_context} with its answer; "
                "shorten the agent's messages or use a model with a longer context"
            )
        return prompt

    def decode(self, response_ids: TokenIds, request: ChatRequest, *, call_id: str = "call") -> Completion:
        """The reply behind sampled tokens.

        A malformed tool call sets `parse_error`, and the message keeps the raw text. The reply ends at the
        first of the request's stop texts, and so do its tokens: the result's may be fewer. Tool calls are
        named after `call_id`, which makes runs reproducible.
        """
        response_ids = self._until_stop(np.asarray(response_ids, dtype=np.int32), request.stop)
        ended = len(response_ids) > 0 and int(response_ids[-1]) in self.stop_ids
        text = self._detokenize(response_ids[:-1] if ended else response_ids)
        finish: FinishReason = "stop" if ended else "length"
        for stop in request.stop:
            if stop in text:
                text, finish = text[: text.index(stop)], "stop"
        content, calls, error = _read(text, request, call_id)
        if calls and finish == "stop":
            finish = "tool_calls"
        message = ChatMessage("assistant", content, calls)
        return Completion(message, finish, response_ids=response_ids, parse_error=error)

    def encode_reply(self, request: ChatRequest, message: ChatMessage) -> TokenIds:
        """The tokens a policy would have to emit to give this reply: int32[R], end of turn included.

        Raises:
            TemplateError: the template renders replies otherwise than it asks for them, or the reply would
                be read back as another one.
        """
        text = self.template.reply(request.messages, message, request.usable_tools)
        ids = np.asarray(self._tokenize(text + self._end_text), dtype=np.int32)
        read = self.decode(ids, request).message
        if message_key(read) != message_key(message):
            raise TemplateError(
                f"the reply {message} is written as {text!r} and would be read back as {read}; tool calls "
                "need tools in the request and a form that raybolt reads (<tool_call>{…}</tool_call>)"
            )
        return ids

    def _extended(
        self,
        known: TokenIds,
        earlier: Sequence[ChatMessage],
        new: Sequence[ChatMessage],
        tools: Sequence[ToolSpec],
    ) -> TokenIds | None:
        """The known tokens and those of the new messages; None if the template does not allow it."""
        suffix = self.template.suffix(earlier, new, tools)
        if suffix is None:
            return None
        turn_end = self.template.turn_end
        if self.end_id is not None and int(known[-1]) == self.end_id:
            turn_end = turn_end[len(self._end_text) :]  # the reply ended with it, and it must not come twice
        return joined(known, self._tokenize(turn_end + suffix))

    def _until_stop(self, response_ids: TokenIds, stops: Sequence[str]) -> TokenIds:
        """The shortest beginning of the response that holds a stop text; all of it if there is none."""

        def holds(length: int) -> bool:
            text = self._detokenize(response_ids[:length])
            return any(stop in text for stop in stops)

        if not stops or not holds(len(response_ids)):
            return response_ids
        low, high = 0, len(response_ids)  # holds(high), not holds(low)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if holds(middle) else (middle, high)
        return response_ids[:high]

    def _tokenize_cached(self, text: str) -> list[int]:
        ids = self._cache.pop(text, None)
        if ids is None:
            ids = self._tokenize(text)
        self._cache[text] = ids
        if len(self._cache) > _CACHED_PROMPTS:
            self._cache.popitem(last=False)
        return ids

    def _tokenize(self, text: str) -> list[int]:
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is not None:  # a tenth of the time of the tokenizer's own call
            return list(backend.encode(text, add_special_tokens=False).ids)
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def _detokenize(self, ids: TokenIds) -> str:
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is not None:
            return str(backend.decode(ids.tolist(), skip_special_tokens=False))
        return str(self.tokenizer.decode(ids.tolist(), skip_special_tokens=False))


def codec_for(model: str, *, context: int | None = None) -> ChatCodec:
    """The codec of a model (a hub id, folder, .gguf file, "tiny" or "smollm2-135m"); made once per process.

    `context` lowers the model's own limit.

    Raises:
        UnknownModel: there is no such model, or it has no chat template.
    """
    return _codec_for(resolve_model(model), context)


@lru_cache(maxsize=8)
def _codec_for(source: ModelSource, context: int | None) -> ChatCodec:
    config = text_config(source)
    limit = min(config.max_position_embeddings, context or config.max_position_embeddings)
    try:
        return ChatCodec(load_tokenizer(source), max_context=limit, vocab_size=config.vocab_size)
    except TemplateError as error:
        raise UnknownModel(f"model {source.name!r}: {error}") from error


def _read(text: str, request: ChatRequest, call_id: str) -> tuple[str | None, tuple[Any, ...], str | None]:
    """Content, tool calls and parse error of a reply; calls are looked for only if there are tools."""
    if not request.usable_tools:
        return text.strip() or None, (), None
    try:
        content, calls = parse_reply(text, call_id)
    except MalformedToolCall as error:
        return text, (), str(error)
    return content, calls, None

"""A run with a codec between it and whatever generates tokens: the asynchronous core of `AgentEnv`.

Knows neither Ray nor Gymnasium.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from raybolt.env.chat import Completion, TokenIds
from raybolt.env.codec import ChatCodec
from raybolt.env.errors import ContextTooLong, RoleWithoutPolicy, RunOver, TemplateError
from raybolt.env.memory import CodecMemory, joined
from raybolt.env.policy import PendingCall, RunEnd, Sampled
from raybolt.env.recorder import describe
from raybolt.env.roles import Codecs, codec_of
from raybolt.env.run import AgentRun
from raybolt.store import names
from raybolt.store.errors import InvalidValue

Action: TypeAlias = "TokenIds | list[int] | Sampled | Completion"
"""Token ids, tokens with what the engine knows of them, or the answer of an LLM that is not trained."""


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """A pending call as the policy sees it."""

    call: PendingCall
    prompt_ids: TokenIds
    """int32[P], generation prompt included."""
    drift: str | None
    codec: ChatCodec
    """What the prompt was encoded with, and the reply will be decoded with."""


class RunStepper:
    """Steps one run with tokens: `next` gives prompts, `act` takes answers."""

    def __init__(self, run: AgentRun, codec: Codecs) -> None:
        self.run = run
        self._codecs = codec
        # One for each codec: what one tokenizer's ids say, another's do not.
        self._memories: dict[ChatCodec, CodecMemory] = {}
        self._prompts: dict[str, Prompt] = {}

    async def next(self, seen: Collection[str] = ()) -> list[Prompt] | RunEnd:
        """All pending prompts, once there is one whose call id is not in `seen`; or the run's end.

        A prompt that the model cannot take ends the run, with origin "limit" or "policy"; a role for which
        there is no policy does so with origin "raybolt".
        """
        while True:
            pending = await self.run.next(seen)
            if isinstance(pending, RunEnd):
                return pending
            try:
                return [self._prompt(call) for call in pending]
            except ContextTooLong as error:
                await self.run.abort(describe(error), "limit")
            except TemplateError as error:
                await self.run.abort(describe(error), "policy")
            except RoleWithoutPolicy as error:
                await self.run.abort(describe(error), "raybolt")

    def act(self, actions: Mapping[str, Action]) -> None:
        """Answers pending calls, by call id: all of them, or none if one action is wrong.

        Raises:
            InvalidValue: an action is none.
            RunOver: a call is not pending.
        """
        answers = [self._answer(call_id, action) for call_id, action in actions.items()]
        for prompt, completion, known in answers:
            self._give(prompt, completion, known)

    def recall(self, call: PendingCall, completion: Completion, known: Mapping[str, Any]) -> None:
        """Answers a call, shown or not, as an earlier run's was; its tokens are remembered as sampled here.

        `known` is added to the call's span. Raises RunOver if the call is not pending.
        """
        if completion.prompt_ids is not None and completion.response_ids is not None:
            tokens = joined(completion.prompt_ids, completion.response_ids)
            memory = self._memory(codec_of(self._codecs, call.role))
            memory.remember(call.request, completion.message, tokens)
        self._prompts.pop(call.call_id, None)
        self.run.answer(call.call_id, completion, known)

    def _give(self, prompt: Prompt, completion: Completion, known: Mapping[str, Any]) -> None:
        if completion.response_ids is not None and completion.prompt_ids is not None:
            tokens = joined(completion.prompt_ids, completion.response_ids)
            self._memory(prompt.codec).remember(prompt.call.request, completion.message, tokens)
        del self._prompts[prompt.call.call_id]
        attributes = {**known, names.DRIFT: prompt.drift}
        attributes = {name: value for name, value in attributes.items() if value is not None}
        self.run.answer(prompt.call.call_id, completion, attributes)

    def _prompt(self, call: PendingCall) -> Prompt:
        prompt = self._prompts.get(call.call_id)
        if prompt is None:
            codec = codec_of(self._codecs, call.role)
            memory = self._memory(codec)
            prompt_ids = codec.encode(call.request, memory)
            prompt = Prompt(call, prompt_ids, memory.drift, codec)
            self._prompts[call.call_id] = prompt
        return prompt

    def _memory(self, codec: ChatCodec) -> CodecMemory:
        return self._memories.setdefault(codec, CodecMemory())

    def _answer(self, call_id: str, action: Action) -> tuple[Prompt, Completion, dict[str, Any]]:
        """The prompt that an action answers, the completion it means and what the span is to say of it."""
        prompt = self._prompts.get(call_id)
        if prompt is None:
            raise RunOver(f"call {call_id!r} is not pending; pending are {list(self._prompts) or 'none'}")
        if isinstance(action, Completion):
            return prompt, _checked(action, prompt), {names.TEMPERATURE: prompt.call.request.temperature}
        sampled = (
            action if isinstance(action, Sampled) else Sampled(_token_ids(action, prompt.codec.vocab_size))
        )
        known = {names.TEMPERATURE: sampled.temperature, names.POLICY: sampled.policy}
        return prompt, _read(prompt, sampled), known


def _read(prompt: Prompt, sampled: Sampled) -> Completion:
    codec = prompt.codec
    response_ids = _token_ids(sampled.response_ids, codec.vocab_size)
    logprobs = sampled.logprobs
    if logprobs is not None and len(logprobs) != len(response_ids):
        raise InvalidValue(f"there are {len(logprobs)} logprobs for {len(response_ids)} response tokens")
    completion = codec.decode(response_ids, prompt.call.request, call_id=prompt.call.call_id)
    assert completion.response_ids is not None
    return replace(
        completion,
        prompt_ids=prompt.prompt_ids,
        logprobs=None if logprobs is None else logprobs[: len(completion.response_ids)],
        weights_version=sampled.weights_version,
    )


def _checked(completion: Completion, prompt: Prompt) -> Completion:
    """The completion, with the prompt's tokens if it names those of its reply."""
    if completion.message.role != "assistant":
        raise InvalidValue(f"the message has role {completion.message.role!r}; expected assistant")
    if completion.response_ids is not None and completion.prompt_ids is None:
        return replace(completion, prompt_ids=prompt.prompt_ids)
    return completion


def _token_ids(action: Any, vocab_size: int) -> TokenIds:
    try:
        ids = np.asarray(action)
    except ValueError:
        ids = np.asarray(None)
    if ids.ndim != 1 or ids.size == 0 or not np.issubdtype(ids.dtype, np.integer):
        raise InvalidValue(
            f"the action is {action!r:.100}; expected token ids (at least one integer), Sampled or Completion"
        )
    if ids.min() < 0 or ids.max() >= vocab_size:
        wrong = ids.min() if ids.min() < 0 else ids.max()
        raise InvalidValue(f"the action holds token id {wrong}; expected ids from 0 to {vocab_size - 1}")
    return ids.astype(np.int32, copy=False)

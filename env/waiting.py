"""A call of an agent that waits for its answer, seen from inside its run."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from raybolt.env.chat import Completion, message_to_dict
from raybolt.env.policy import PendingCall, PolicyAbort
from raybolt.env.recorder import OpenSpan
from raybolt.store import names

GIVEN_UP = "the agent stopped waiting for the answer"
"""What the status of a call's span says that the agent cancelled."""


@dataclass(slots=True, eq=False)
class WaitingCall:
    """A pending call with its open span and the future the agent's code waits for."""

    call: PendingCall
    span: OpenSpan
    future: Future[Completion] | asyncio.Future[Completion]

    def resolve(self, completion: Completion) -> None:
        """Gives the agent its answer, unless it has given up waiting."""
        if not self.future.done():
            self.future.set_result(completion)

    def reject(self, error: Exception) -> None:
        """Raises the error in the agent, where it waits."""
        if not self.future.done():
            self.future.set_exception(error)

    def refuse(self, abort: PolicyAbort) -> None:
        """Raises the abort in the agent, an instance of its own."""
        if not self.future.done():
            self.future.set_exception(PolicyAbort(abort.reason, abort.origin))


def answer_attributes(completion: Completion) -> dict[str, Any]:
    """What a chat span says about its answer; what is unknown is left out."""
    attributes: dict[str, Any] = {
        names.OUTPUT_MESSAGES: [message_to_dict(completion.message)],
        names.FINISH_REASONS: [completion.finish_reason],
        names.PROMPT_IDS: completion.prompt_ids,
        names.RESPONSE_IDS: completion.response_ids,
        names.LOGPROBS: completion.logprobs,
        names.WEIGHTS_VERSION: completion.weights_version,
        names.PARSE_ERROR: completion.parse_error,
    }
    if completion.prompt_ids is not None:
        attributes[names.INPUT_TOKENS] = len(completion.prompt_ids)
    if completion.response_ids is not None:
        attributes[names.OUTPUT_TOKENS] = len(completion.response_ids)
    return {name: value for name, value in attributes.items() if value is not None}

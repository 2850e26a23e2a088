"""The LLM calls of a recorded run, to answer those of a replayed one and to tell where it goes astray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from raybolt.env.chat import ChatMessage, Completion, message_from_dict
from raybolt.env.errors import NoReward
from raybolt.env.memory import message_key
from raybolt.env.policy import Origin, PendingCall
from raybolt.env.task import Task
from raybolt.env.trajectory import is_answered_call, is_root
from raybolt.env.waiting import GIVEN_UP
from raybolt.store import names
from raybolt.store.types import Attempt, Rollout, Span

USUAL_CAUSES = (
    "usual causes: the time or chance in the agent's own code (seed it, or pass it in with the task), a tool "
    "that ran for real and answered otherwise, calls made at the same time from several threads, code that "
    "has changed since"
)
_ASKED = frozenset({names.OPERATION, names.AGENT_NAME, names.CALL_ID, names.INPUT_MESSAGES})
"""Attributes of a call's span that are there before its answer."""
_SHOWN_CHARS = 160


@dataclass(frozen=True, eq=False)
class RecordedCall:
    """One call of the recorded run."""

    index: int
    """Its place among the trajectory's calls, the answered ones; of another one that of the next of these."""
    span: Span

    @property
    def answered(self) -> bool:
        """Not so of one that failed, that the agent gave up, or that was open when the run ended."""
        return is_answered_call(self.span)

    @property
    def given_up(self) -> bool:
        """Whether the agent cancelled it, and went on without an answer."""
        return self.span.status_message == GIVEN_UP

    @property
    def raised(self) -> Mapping[str, Any] | None:
        """What the agent's own model raised in place of an answer, as far as it can be raised again."""
        told: Mapping[str, Any] | None = self.span.attributes.get(names.RAISED)
        return told

    @property
    def role(self) -> str:
        return str(self.span.attributes[names.AGENT_NAME])

    @property
    def by_policy(self) -> bool:
        """Whether the policy answered it, not a model of the agent's own."""
        return bool(self.span.attributes.get(names.TRAINABLE, True))

    @cached_property
    def messages(self) -> tuple[ChatMessage, ...]:
        return tuple(map(message_from_dict, self.span.attributes[names.INPUT_MESSAGES]))

    @property
    def completion(self) -> Completion:
        """The answer, with the tokens that were sampled for it."""
        told = self.span.attributes
        (reply,) = told[names.OUTPUT_MESSAGES]
        (finish_reason,) = told[names.FINISH_REASONS]
        return Completion(
            message_from_dict(reply),
            finish_reason,
            prompt_ids=told.get(names.PROMPT_IDS),
            response_ids=told.get(names.RESPONSE_IDS),
            logprobs=told.get(names.LOGPROBS),
            weights_version=told.get(names.WEIGHTS_VERSION),
            parse_error=told.get(names.PARSE_ERROR),
        )

    @property
    def answer_attributes(self) -> dict[str, Any]:
        """What the span says of the answer."""
        return {name: value for name, value in self.span.attributes.items() if name not in _ASKED}

    def is_of(self, call: PendingCall) -> bool:
        """Whether the call says the same as this one did."""
        return call.role == self.role and self.first_difference(call) is None

    def first_difference(self, call: PendingCall) -> int | None:
        """The place of the first message that says something else, or is missing on one side."""
        then, now = self.messages, call.request.messages
        for place, (old, new) in enumerate(zip(then, now, strict=False)):
            if message_key(old) != message_key(new):
                return place
        return None if len(then) == len(now) else min(len(then), len(now))

    def difference(self, call: PendingCall) -> str:
        """What differs, in words."""
        if call.role != self.role:
            return f"role {call.role!r} makes it, then it was {self.role!r}"
        place = self.first_difference(call)
        assert place is not None, "asked for what differs only"
        return (
            f"message {place} differs: then {_shown(self.messages, place)}; now "
            f"{_shown(call.request.messages, place)}"
        )


@dataclass(frozen=True)
class Recording:
    """A recorded run."""

    rollout: Rollout
    attempt: Attempt
    task: Task
    spans: Sequence[Span]

    @cached_property
    def root(self) -> Span | None:
        """The span of the whole run; None if that never ended."""
        return next(filter(is_root, self.spans), None)

    @property
    def missed_reward(self) -> bool:
        """Whether the run failed for want of a reward."""
        return self.root is not None and self.root.attributes.get(names.ERROR_TYPE) == NoReward.__name__

    @property
    def failure(self) -> tuple[str, Origin]:
        """How the run failed, and whose failure it was."""
        root = self.root
        if root is None or root.status_message is None:
            return "the run ended", "raybolt"
        return root.status_message, cast(Origin, root.attributes.get(names.ERROR_ORIGIN, "raybolt"))

    @cached_property
    def made(self) -> tuple[RecordedCall, ...]:
        """All its calls, in the order in which they were made."""
        found: list[RecordedCall] = []
        num_answered = 0
        for span in sorted(self.spans, key=lambda span: span.sequence_id):
            if names.CALL_ID in span.attributes:
                found.append(RecordedCall(num_answered, span))
                num_answered += found[-1].answered
        return tuple(found)

    @cached_property
    def calls(self) -> tuple[RecordedCall, ...]:
        """Its answered calls, in the order in which they were made."""
        return tuple(call for call in self.made if call.answered)

    @property
    def stopped_at_the_policy(self) -> bool:
        """Whether the run may have ended while the policy was asked: one behind the last call is another.

        A call over the run's limit has left no span.
        """
        open_calls = [call for call in self.made[len(self.made) - 1 :] if not call.answered]
        return self.attempt.status != "succeeded" and all(call.by_policy for call in open_calls)


def _shown(messages: Sequence[ChatMessage], place: int) -> str:
    if place >= len(messages):
        return "there was none" if messages else "nothing"
    message = messages[place]
    called = "".join(f" {call.name}({call.arguments})" for call in message.tool_calls)
    text = f"{message.content or ''}{called}"
    return f"{message.role}: {text[:_SHOWN_CHARS]!r}{'…' if len(text) > _SHOWN_CHARS else ''}"

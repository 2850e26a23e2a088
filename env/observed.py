"""Calls that an agent's own model answers: seen and recorded, but no decision of the policy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from raybolt.env.chat import ChatMessage, ChatRequest, FinishReason, message_to_dict, tool_to_dict
from raybolt.env.context import RecordedRun, current_run
from raybolt.env.memory import tools_key
from raybolt.env.raised import raised_attribute
from raybolt.env.recorder import OpenSpan
from raybolt.store import names


class ObservedCall:
    """The open span of such a call, to be told what was replied."""

    def __init__(self, span: OpenSpan) -> None:
        self._span = span

    def reply(
        self,
        message: ChatMessage,
        *,
        finish_reason: FinishReason = "stop",
        model: str | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
    ) -> None:
        """Records the model's answer; what is unknown is left out. Tell it once, before the block ends."""
        known: dict[str, Any] = {
            names.OUTPUT_MESSAGES: [message_to_dict(message)],
            names.FINISH_REASONS: [finish_reason],
            names.REQUEST_MODEL: model,
            names.INPUT_TOKENS: input_tokens,
            names.OUTPUT_TOKENS: output_tokens,
        }
        self._span.attributes.update({name: value for name, value in known.items() if value is not None})

    @property
    def _answered(self) -> bool:
        return names.OUTPUT_MESSAGES in self._span.attributes


@contextmanager
def observed(span: OpenSpan) -> Iterator[ObservedCall]:
    """Ends the span with the block: as an error if the block failed or nobody told the reply."""
    call = ObservedCall(span)
    try:
        yield call
    except BaseException as error:
        known = {names.ERROR_ORIGIN: "agent", names.ERROR_TYPE: type(error).__name__}
        span.fail(error, {**known, **raised_attribute(error)})
        raise
    if call._answered:
        span.end()
    else:
        span.end("error", "the agent's own model gave no reply")


def begin_chat_span(
    run: RecordedRun, root_span_id: str, call_id: str, request: ChatRequest, *, trainable: bool
) -> OpenSpan:
    """The span of a call, below the place in the run where the calling code stands."""
    context = current_run.get()
    parent_id = context.span_id if context is not None and context.run is run else root_span_id
    attributes: dict[str, Any] = {
        names.OPERATION: names.CHAT,
        names.AGENT_NAME: request.role,
        names.CALL_ID: call_id,
        names.INPUT_MESSAGES: [message_to_dict(message) for message in request.messages],
    }
    news = run.recorder.is_news(request.role, tools_key(request.usable_tools))
    if not trainable:
        attributes[names.TRAINABLE] = False
    # Whoever wants to learn from somebody else's answer has to render its prompt, tools included. Of the
    # policy's calls, whose tokens are known, a role's tools are told once, and when they change.
    if news or (not trainable and request.usable_tools):
        attributes[names.TOOL_DEFINITIONS] = [tool_to_dict(tool) for tool in request.usable_tools]
    return run.recorder.begin(f"chat {request.role}", parent_id=parent_id, attributes=attributes)

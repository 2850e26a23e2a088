"""Traces of an agent on its own LLM, made into demonstrations for a model of ours."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from raybolt.env.chat import ChatRequest, message_from_dict, tool_from_dict
from raybolt.env.codec import ChatCodec
from raybolt.env.demonstrate import GROUP_SIZE, Demonstrations
from raybolt.env.errors import ContextTooLong, TemplateError
from raybolt.env.memory import CodecMemory, joined
from raybolt.env.recorder import describe
from raybolt.env.report import report
from raybolt.env.selection import Trainable, takes
from raybolt.env.trajectory import Trajectory, trajectory_from_spans
from raybolt.store import names
from raybolt.store.base import LightningStore
from raybolt.store.types import Rollout, Span

Keep = Callable[[Rollout, Trajectory], bool]
"""Whether a trace is worth imitating."""


async def demonstrations_from_traces(
    traces: LightningStore,
    store: LightningStore,
    *,
    codec: ChatCodec,
    keep: Keep | None = None,
    trainable: Trainable = None,
) -> Demonstrations:
    """Writes the traced rollouts into `store` as rollouts of mode "demo", with the tokens that `codec` gives.

    Each reply of the agent's own LLM becomes the tokens our model would have to emit, behind the prompt it
    would see; SFT then learns from them as from any demonstration. Only rollouts that succeeded are taken,
    and of those the ones that `keep` likes (for their reward, say); calls that are not `trainable` stay
    without tokens. A trace that the model cannot say (its context is too short, its template has no tools)
    becomes a failed rollout, with its error in the result. Both stores may be the same.
    """
    chosen = [found async for found in _traced(traces, keep)]
    label = f"traces-{secrets.token_hex(3)}"
    rollout_ids: list[str] = []
    errors: dict[str, str] = {}
    for number, start in enumerate(range(0, len(chosen), GROUP_SIZE)):
        await store.declare_group(f"{label}/{number}", min(GROUP_SIZE, len(chosen) - start))
    for index, (rollout, spans) in enumerate(chosen):
        started = await store.start_rollout(
            rollout.input,
            task_id=rollout.task_id,
            group_id=f"{label}/{index // GROUP_SIZE}",
            mode="demo",
            metadata={"traced_rollout_id": rollout.rollout_id},
        )
        rollout_id, attempt_id = started.rollout_id, started.attempt.attempt_id
        rollout_ids.append(rollout_id)
        metadata: dict[str, Any] = {}
        try:
            spans = _with_tokens(spans, codec, trainable)
        except (ContextTooLong, TemplateError) as error:
            metadata = {"error": describe(error), "origin": "policy"}
        moved = [replace(span, rollout_id=rollout_id, attempt_id=attempt_id) for span in spans]
        outcome = await report(store, rollout_id, attempt_id, moved, metadata)
        if "error" in outcome:
            errors[rollout_id] = outcome["error"]
    return Demonstrations(tuple(rollout_ids), errors)


async def _traced(traces: LightningStore, keep: Keep | None) -> Any:
    """The rollouts to take, each with the spans of its last attempt."""
    for rollout in await traces.query_rollouts(status_in=("succeeded",)):
        if not rollout.metadata.get("traced"):
            continue
        spans = await traces.query_spans(rollout.rollout_id, "latest")
        if keep is None or keep(rollout, _trajectory(rollout, spans)):
            yield rollout, spans


def _trajectory(rollout: Rollout, spans: Sequence[Span]) -> Trajectory:
    return trajectory_from_spans(
        spans,
        rollout_id=rollout.rollout_id,
        attempt_id=spans[0].attempt_id if spans else "",
        task_id=rollout.task_id,
        group_id=rollout.group_id,
    )


def _with_tokens(spans: Sequence[Span], codec: ChatCodec, trainable: Trainable) -> list[Span]:
    """The spans, the trainable calls among them with prompt and response tokens.

    Raises ContextTooLong or TemplateError for what the model cannot say.
    """
    memory = CodecMemory()
    return [
        _with_call_tokens(span, codec, memory, trainable)
        if span.attributes.get(names.OPERATION) == names.CHAT and span.status == "ok"
        else span
        for span in sorted(spans, key=lambda span: span.sequence_id)
    ]


def _with_call_tokens(span: Span, codec: ChatCodec, memory: CodecMemory, trainable: Trainable) -> Span:
    request = _request(span)
    if not takes(trainable, request):
        return span
    (reply,) = (message_from_dict(message) for message in span.attributes[names.OUTPUT_MESSAGES])
    prompt_ids = codec.encode(request, memory)
    response_ids = codec.encode_reply(request, reply)
    if len(prompt_ids) + len(response_ids) > codec.max_context:
        raise ContextTooLong(
            f"call {span.attributes[names.CALL_ID]} has {len(prompt_ids) + len(response_ids)} tokens, the "
            f"model takes {codec.max_context}; use a model with a longer context, or leave the trace out by "
            "`keep`"
        )
    memory.remember(request, reply, joined(prompt_ids, response_ids))
    attributes = {name: value for name, value in span.attributes.items() if name != names.TRAINABLE}
    tokens = {names.PROMPT_IDS: prompt_ids, names.RESPONSE_IDS: response_ids}
    return replace(span, attributes={**attributes, **tokens})


def _request(span: Span) -> ChatRequest:
    """The call as it was made, as far as it matters for its prompt."""
    return ChatRequest(
        messages=tuple(message_from_dict(message) for message in span.attributes[names.INPUT_MESSAGES]),
        tools=tuple(tool_from_dict(tool) for tool in span.attributes.get(names.TOOL_DEFINITIONS, ())),
        role=span.attributes[names.AGENT_NAME],
    )

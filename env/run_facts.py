"""What of one recorded run matters to a diagnosis: a few numbers and places, no tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np

from raybolt.env.foreign import sound
from raybolt.env.trajectory import judged_version, reward_spans
from raybolt.store import names
from raybolt.store.types import Mode, RolloutData, RolloutStatus, Span


@dataclass(frozen=True, slots=True)
class SpanPlace:
    """Where to look."""

    rollout_id: str
    attempt_id: str
    span_id: str
    name: str
    start_time: float

    @classmethod
    def of(cls, span: Span) -> SpanPlace:
        """The place of a recorded span."""
        return cls(span.rollout_id, span.attempt_id, span.span_id, span.name, span.start_time)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFacts:
    """One answered LLM call."""

    place: SpanPlace
    role: str
    trainable: bool
    num_tokens: int
    """Sampled tokens; 0 where they are not known."""
    has_logprobs: bool
    cut: bool
    """Whether the length limit ended the reply."""
    parse_error: str | None
    drift: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """One rollout as its last attempt left it."""

    rollout_id: str
    group_id: str | None
    mode: Mode | None
    status: RolloutStatus
    attempted: bool
    calls: tuple[CallFacts, ...] = ()
    reward: float | None = None
    """The return; None for a failed run that nobody has judged, and for one without any reward."""
    reward_version: int = 0
    """Which round of `re_reward` gave it; 0 for what the run itself got."""
    error: str | None = None
    error_type: str | None = None
    origin: str | None = None
    place: SpanPlace | None = None
    """The span that failed first of those that failed as the run did; the root of a run that succeeded."""
    words: bytes = field(default=b"", repr=False)
    """The same for runs that sampled the same tokens."""

    @property
    def failed(self) -> bool:
        return self.status == "failed"

    @property
    def succeeded(self) -> bool:
        return self.status == "succeeded"

    @property
    def ended(self) -> bool:
        return self.failed or self.succeeded

    @property
    def trainable_calls(self) -> tuple[CallFacts, ...]:
        return tuple(call for call in self.calls if call.trainable)


def facts_of(run: RolloutData) -> RunFacts:
    """The facts of a run, whatever its spans lack."""
    rollout, spans = run.rollout, sorted(sound(run.spans), key=lambda span: span.sequence_id)
    root = next((span for span in spans if span.parent_id is None), None)
    chats = [span for span in spans if span.attributes.get(names.OPERATION) == names.CHAT]
    answered = [span for span in chats if span.status == "ok"]
    rewards = [span.attributes[names.REWARD] for span in reward_spans(spans)]
    failed, version = rollout.status == "failed", judged_version(spans)
    told = run.attempt.metadata if run.attempt is not None else {}
    known = root.attributes if root is not None else {}
    error = _text(told.get("error")) or (root.status_message if root is not None else None)
    return RunFacts(
        rollout_id=rollout.rollout_id,
        group_id=rollout.group_id,
        mode=rollout.mode,
        status=rollout.status,
        attempted=run.attempt is not None,
        calls=tuple(_call(span) for span in answered),
        reward=float(sum(rewards)) if rewards and (not failed or version) else None,
        reward_version=version,
        error=(error or f"its attempt ended as {_ending(run)}") if failed else None,
        error_type=_text(told.get("error_type")) or known.get(names.ERROR_TYPE) if failed else None,
        origin=(_text(told.get("origin")) or known.get(names.ERROR_ORIGIN) or "raybolt") if failed else None,
        place=_culprit(spans, root),
        words=_words(answered),
    )


def _call(span: Span) -> CallFacts:
    attributes = span.attributes
    return CallFacts(
        place=SpanPlace.of(span),
        role=str(attributes.get(names.AGENT_NAME, "")),
        trainable=bool(attributes.get(names.TRAINABLE, True)),
        num_tokens=len(attributes.get(names.RESPONSE_IDS, ())),
        has_logprobs=names.LOGPROBS in attributes,
        cut=attributes.get(names.FINISH_REASONS) == ["length"],
        parse_error=attributes.get(names.PARSE_ERROR),
        drift=attributes.get(names.DRIFT),
    )


def _text(told: object) -> str | None:
    """What metadata says, which may be anything."""
    return None if told is None else str(told)


def _culprit(spans: list[Span], root: Span | None) -> SpanPlace | None:
    if root is None:
        return SpanPlace.of(spans[0]) if spans else None
    message = root.status_message
    alike = [span for span in spans if span is not root and message and span.status_message == message]
    return SpanPlace.of(alike[0] if alike else root)


def _ending(run: RolloutData) -> str:
    return run.attempt.status if run.attempt is not None else run.rollout.status


def _words(answered: list[Span]) -> bytes:
    digest = blake2b(digest_size=16)
    for span in answered:
        ids = np.asarray(span.attributes.get(names.RESPONSE_IDS, ()), dtype=np.int32)
        digest.update(len(ids).to_bytes(4, "little") + ids.tobytes())
    return digest.digest()

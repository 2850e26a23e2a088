"""What a run leaves behind for rewards and learning, rebuilt from its spans alone.

`trajectory_from_spans` is a pure function: the trajectory a reward function sees in the runner and the one
the learner sees after the store are built by it from the same spans, so they are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast

import numpy as np

from raybolt.env.chat import ChatMessage, Logprobs, TokenIds, message_from_dict
from raybolt.env.foreign import sound
from raybolt.env.policy import Origin
from raybolt.store import names
from raybolt.store.errors import InvalidValue
from raybolt.store.types import Span

Run = TypeVar("Run")
_OF_ANSWERED = {
    names.CALL_ID, names.AGENT_NAME, names.INPUT_MESSAGES, names.OUTPUT_MESSAGES, names.FINISH_REASONS,
}  # fmt: skip
"""Attributes that every answered call has."""
NO_TOKENS: TokenIds = np.zeros(0, dtype=np.int32)
NO_TOKENS.flags.writeable = False
NO_REPLY = ChatMessage("assistant")
EMITTED_REWARD = "reward"
"""Kind of the span of a reward emitted inside the run."""
FINAL_REWARD = "final_reward"
"""Kind of the span of the reward given at the end."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Call:
    """One answered LLM call: the transition (observation: prompt ids; action: response ids)."""

    call_id: str
    """Unique in its trajectory."""
    role: str
    prompt_ids: TokenIds
    """int32[P]; empty when the tokens are not known (an external LLM answered)."""
    response_ids: TokenIds
    """int32[R]; empty when the tokens are not known."""
    logprobs: Logprobs | None = None
    """float32[R], under the sampling distribution; None for demonstrations and external LLMs."""
    weights_version: int | None = None
    temperature: float | None = None
    input_messages: Sequence[Mapping[str, Any]] = ()
    """The request's conversation, as dictionaries; `messages` is the same in canonical form."""
    reply: ChatMessage = NO_REPLY
    finish_reason: str = "stop"
    parents: tuple[str, ...] = ()
    """The calls that this one directly follows. Calls made at the same time share their parents."""
    start: float = 0.0
    """Seconds since the epoch, when the agent asked."""
    end: float = 0.0
    """When it had its answer."""
    reward: float = 0.0
    """The sum of the rewards emitted between this call's answer and the next one."""
    drift: str | None = None
    """Why earlier tokens could not be reused in the prompt; None when nothing drifted."""
    parse_error: str | None = None
    policy: str | None = None
    """Which policy answered; None where one answers all roles, or where none did."""
    trainable: bool = True
    """False for a call that nothing is learned from, whoever answered it."""

    @property
    def messages(self) -> tuple[ChatMessage, ...]:
        """The request's conversation."""
        return tuple(message_from_dict(message) for message in self.input_messages)

    @property
    def has_tokens(self) -> bool:
        """Whether there is anything to learn from."""
        return len(self.response_ids) > 0


@dataclass(frozen=True, slots=True)
class Reward:
    """One reward of a run."""

    value: float
    final: bool
    """True for that of the reward function or the agent's return value, False for an emitted one."""
    call_id: str | None
    """The call answered last before it; None if there was none."""
    version: int = 0
    """Of a final reward: 0 for what the run itself got, 1 and up for what `re_reward` gave it later."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trajectory:
    """The calls of one attempt at a rollout as a directed acyclic graph, with its rewards."""

    rollout_id: str
    attempt_id: str
    task_id: str | None = None
    group_id: str | None = None
    calls: tuple[Call, ...] = ()
    """In the order in which they were made."""
    rewards: tuple[Reward, ...] = ()
    """In the order in which they came; the final one is the last."""
    tool_spans: tuple[Span, ...] = field(default=(), repr=False)
    """The tools the agent used, in the order in which they started."""
    status: Literal["running", "succeeded", "failed"] = "running"
    error: str | None = None
    """Type and message of what made the run fail."""
    origin: Origin | None = None

    @property
    def failed(self) -> bool:
        return self.status == "failed"

    @property
    def reward_version(self) -> int:
        """Of the final reward: 0 for what the run itself got, or did not get; see `Reward.version`."""
        return max((reward.version for reward in self.rewards), default=0)

    @property
    def judged(self) -> bool:
        """Whether `re_reward` has given it a final reward, be the run a failed one."""
        return self.reward_version > 0

    @property
    def total_reward(self) -> float:
        """The return: the sum of all rewards.

        Raises:
            InvalidValue: the run failed and was not judged; a failed rollout has no return, not a zero.
        """
        if self.failed and not self.judged:
            raise InvalidValue(
                f"rollout {self.rollout_id} failed ({self.error}), so it has no reward; leave it out, or "
                "judge it by re_reward(…, include_failed=True)"
            )
        return float(sum(reward.value for reward in self.rewards))

    @property
    def final_reward(self) -> float | None:
        """The reward given at the end; None if there was none (yet)."""
        return next((reward.value for reward in self.rewards if reward.final), None)


def trajectory_from_spans(
    spans: Iterable[Span],
    *,
    rollout_id: str,
    attempt_id: str,
    task_id: str | None = None,
    group_id: str | None = None,
    reward_version: int | None = None,
) -> Trajectory:
    """The trajectory of one attempt; `spans` are those of this attempt alone, in any order.

    Without the run's root span, which is written last, the trajectory is that of a run still going on. Of
    several final rewards (see `re_reward`) that of `reward_version` counts, the latest by default.

    Raises:
        InvalidValue: there is no final reward of this version.
    """
    ordered = sorted(sound(spans), key=lambda span: span.sequence_id)
    call_spans = [span for span in ordered if is_answered_call(span)]
    rewards = [_reward(span, call_spans) for span in reward_spans(ordered, reward_version)]
    root = next((span for span in ordered if is_root(span)), None)
    failed = root is not None and root.status == "error"
    return Trajectory(
        rollout_id=rollout_id,
        attempt_id=attempt_id,
        task_id=task_id,
        group_id=group_id,
        calls=tuple(_call(span, call_spans, rewards) for span in call_spans),
        rewards=tuple(rewards),
        tool_spans=tuple(filter(_is_tool, ordered)),
        status="running" if root is None else "failed" if failed else "succeeded",
        error=root.status_message if root is not None and failed else None,
        origin=cast(Origin, root.attributes.get(names.ERROR_ORIGIN)) if root is not None and failed else None,
    )


def reward_spans(spans: Iterable[Span], version: int | None = None) -> list[Span]:
    """The spans of the rewards that count: the emitted ones, and the final one of this version or the latest.

    Raises:
        InvalidValue: there is no final reward of this version.
    """
    rewards = [span for span in spans if names.REWARD in span.attributes]
    versions = {reward_version(span) for span in rewards if _is_final(span)}
    if version is not None and version not in versions:
        known = ", ".join(map(str, sorted(versions))) or "none"
        raise InvalidValue(f"reward_version is {version}; the rollout has rewards of versions: {known}")
    wanted = max(versions, default=0) if version is None else version
    return [span for span in rewards if not _is_final(span) or reward_version(span) == wanted]


def reward_version(span: Span) -> int:
    """The version of a final reward."""
    return int(span.attributes.get(names.REWARD_VERSION, 0))


def judged_version(spans: Iterable[Span]) -> int:
    """The version of the latest final reward that `re_reward` gave these spans' run; 0 if it gave none."""
    return max((reward_version(span) for span in spans if _is_final(span)), default=0)


def comparable(
    group: Iterable[Run], *, succeeded: Callable[[Run], bool], version: Callable[[Run], int]
) -> list[Run]:
    """The runs of a group whose returns may be compared: those that succeeded, and failed ones judged since.

    A failed run counts if the latest `re_reward` over its group has judged it (`version` is that of its
    latest judgement, 0 without). What an older judge said of it says nothing beside what a newer one said of
    the others.
    """
    runs = list(group)
    latest = max(map(version, runs), default=0)
    return [run for run in runs if succeeded(run) or 0 < version(run) == latest]


def is_root(span: Span) -> bool:
    """Whether it is the span of a whole run."""
    return span.parent_id is None and span.attributes.get(names.OPERATION) == names.INVOKE_AGENT


def _is_final(span: Span) -> bool:
    return span.attributes.get(names.KIND) == FINAL_REWARD


def is_answered_call(span: Span) -> bool:
    """Whether it is an LLM call that got its answer. A foreign span that lacks what those have is none."""
    told = span.attributes
    return span.status == "ok" and told.keys() >= _OF_ANSWERED and len(told[names.OUTPUT_MESSAGES]) == 1


def _is_tool(span: Span) -> bool:
    if span.attributes.get(names.OPERATION) != names.EXECUTE_TOOL:
        return False
    return span.attributes.get(names.KIND) != names.ADOPTED  # its framework's own hook has reported it, too


def _call(span: Span, call_spans: Sequence[Span], rewards: Sequence[Reward]) -> Call:
    attributes = span.attributes
    (reply,) = attributes[names.OUTPUT_MESSAGES]
    finish_reason = next(iter(attributes[names.FINISH_REASONS]), "stop")
    call_id = attributes[names.CALL_ID]
    return Call(
        call_id=call_id,
        role=attributes[names.AGENT_NAME],
        prompt_ids=attributes.get(names.PROMPT_IDS, NO_TOKENS),
        response_ids=attributes.get(names.RESPONSE_IDS, NO_TOKENS),
        logprobs=attributes.get(names.LOGPROBS),
        weights_version=attributes.get(names.WEIGHTS_VERSION),
        temperature=attributes.get(names.TEMPERATURE),
        input_messages=attributes[names.INPUT_MESSAGES],
        reply=message_from_dict(reply),
        finish_reason=finish_reason,
        parents=_parents(span, call_spans),
        start=span.start_time,
        end=span.end_time,
        reward=float(sum(r.value for r in rewards if r.call_id == call_id and not r.final)),
        drift=attributes.get(names.DRIFT),
        parse_error=attributes.get(names.PARSE_ERROR),
        policy=attributes.get(names.POLICY),
        trainable=attributes.get(names.TRAINABLE, True),
    )


def _reward(span: Span, call_spans: Sequence[Span]) -> Reward:
    answered = [call for call in call_spans if call.end_time <= span.start_time]
    last = max(answered, key=lambda call: call.end_time, default=None)
    return Reward(
        value=span.attributes[names.REWARD],
        final=_is_final(span),
        call_id=last.attributes[names.CALL_ID] if last is not None else None,
        version=reward_version(span),
    )


def _parents(span: Span, call_spans: Sequence[Span]) -> tuple[str, ...]:
    """The calls that this one directly follows.

    Of the calls answered before it began, those that no other of them followed: in a chain the previous call,
    after a fork the calls of all branches.
    """
    earlier = [other for other in call_spans if other.end_time <= span.start_time]
    last_start = max((other.start_time for other in earlier), default=0.0)
    return tuple(other.attributes[names.CALL_ID] for other in earlier if other.end_time > last_start)

"""Recorded runs as data sets: chats, SFT examples, preference pairs; one JSON object a line.

SFT examples and preference pairs have the fields of TRL's conversational formats (`messages` and `tools`;
`prompt`, `chosen`, `rejected` and `tools`), in which a tool call's arguments are an object. Chats are in the
form of OpenAI's API, in which they are JSON text.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raybolt.env.chat import ChatMessage, message_to_dict
from raybolt.env.foreign import sound
from raybolt.env.memory import message_key
from raybolt.env.recorded import comparable_runs, trajectory_of
from raybolt.env.tool_calls import UNREADABLE
from raybolt.env.trajectory import Call, Trajectory, is_answered_call
from raybolt.store import names
from raybolt.store.base import LightningStore
from raybolt.store.completion import appearing
from raybolt.store.types import Rollout, RolloutData, RolloutStatus

Keep = Callable[[Rollout, Trajectory], bool]
"""Whether a run is to be exported."""


@dataclass(frozen=True, slots=True, eq=False)
class Conversation:
    """What one role said and heard, up to its last reply; no other call of the role goes on from it."""

    call: Call
    messages: tuple[ChatMessage, ...]
    """The last one is the reply."""
    tools: Sequence[Mapping[str, Any]]
    num_asked: int
    """Messages before the first reply that was given in this run."""


async def recorded_runs(store: LightningStore, **filters: Any) -> AsyncIterator[RolloutData]:
    """The rollouts of a store, each with its last attempt and that one's spans; filters as `query_rollouts`.

    For a store's folder there is `raybolt.store.peek.read_rollouts`, which disturbs nobody.
    """
    rollouts = await store.query_rollouts(**filters)
    attempts = await store.get_latest_attempts([rollout.rollout_id for rollout in rollouts])
    for rollout, attempt in zip(rollouts, attempts, strict=True):
        spans = await store.query_spans(rollout.rollout_id, attempt.attempt_id) if attempt else []
        yield RolloutData(rollout, attempt, tuple(spans))


def chats(runs: Iterable[RolloutData], *, keep: Keep | None = None) -> Iterator[dict[str, Any]]:
    """Every conversation of every run, however it ended, with ids, role, status and reward."""
    for run, trajectory in _trajectories(runs, keep, statuses=None):
        for conversation in conversations(run, trajectory):
            yield {
                "rollout_id": trajectory.rollout_id,
                "task_id": trajectory.task_id,
                "group_id": trajectory.group_id,
                "role": conversation.call.role,
                "status": run.rollout.status,
                "reward": _reward(trajectory),
                "messages": [message_to_dict(message) for message in conversation.messages],
                "tools": list(conversation.tools),
            }


def sft_examples(
    runs: Iterable[RolloutData], *, keep: Keep | None = None, min_reward: float | None = None
) -> Iterator[dict[str, Any]]:
    """The conversations of runs that succeeded, with at least `min_reward`, as examples to imitate.

    Those in which nothing is to be learned from the last reply (see `trainable`) are left out, and those with
    a tool call whose arguments are no JSON object: what reads these formats wants every line alike.
    """
    for run, trajectory in _trajectories(runs, keep, statuses=("succeeded",)):
        reward = _reward(trajectory)
        if min_reward is not None and (reward is None or reward < min_reward):
            continue
        for conversation in conversations(run, trajectory):
            messages = _objects(conversation.messages)
            if messages and (conversation.call.trainable or run.rollout.metadata.get("traced")):
                yield _with_tools({"messages": messages}, conversation)


def preference_pairs(
    runs: Iterable[RolloutData], *, keep: Keep | None = None, min_margin: float = 0.0
) -> Iterator[dict[str, Any]]:
    """Of each group the best against the worst run, where they answered the same prompt with other words.

    Of each role one pair: the prompt is what both conversations begin with, up to the first reply in which
    they differ; `chosen` and `rejected` are what follows. `score_chosen` and `score_rejected` are the runs'
    returns, which differ by more than `min_margin`; a run that failed has one if the latest `re_reward` over
    its group has judged it.
    A role whose conversations part before a reply (a tool answered otherwise, say) gives none, nor does one
    with a tool call whose arguments are no JSON object.
    """
    groups: dict[str, list[RolloutData]] = {}
    for run in runs:
        if run.rollout.group_id is not None:
            groups.setdefault(run.rollout.group_id, []).append(run)
    for group_id, group in groups.items():
        members = [
            (run, trajectory, reward)
            for run, trajectory in _trajectories(comparable_runs(group), keep, statuses=None)
            if (reward := _reward(trajectory)) is not None
        ]
        if not members:
            continue
        best = max(members, key=lambda member: member[2])
        worst = min(members, key=lambda member: member[2])
        if best[2] - worst[2] > min_margin:
            for pair in _pairs(best, worst):
                yield {**pair, "group_id": group_id}


def write_jsonl(path: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes an object a line; returns how many there were. The file is there once it is complete.

    Half of a character becomes a question mark, and a number that JSON lacks (NaN, say) null.
    """
    with appearing(Path(path)) as file:
        return write_lines(file, rows)


def write_lines(file: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes the lines of `write_jsonl` into a file as they come; returns how many there were."""
    num_rows = 0
    with file.open("w", encoding="utf-8", errors="replace") as lines:
        for row in rows:
            lines.write(_json_of(row) + "\n")
            num_rows += 1
    return num_rows


def _json_of(row: Mapping[str, Any]) -> str:
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False)
    except ValueError:
        read = json.loads(json.dumps(row, ensure_ascii=False), parse_constant=lambda _: None)
        return json.dumps(read, ensure_ascii=False)


def conversations(run: RolloutData, trajectory: Trajectory) -> list[Conversation]:
    """The conversations of a run, in the order of their last calls."""
    told = _tools_by_call(run)
    found: list[tuple[Conversation, list[bytes]]] = []
    for call in trajectory.calls:
        messages = (*call.messages, call.reply)
        keys = [message_key(message) for message in messages]
        num_asked = len(call.messages)
        for other, earlier in found:
            if other.call.role == call.role and keys[: len(earlier)] == earlier:
                num_asked = min(num_asked, other.num_asked)
        found = [
            (other, earlier)
            for other, earlier in found
            if other.call.role != call.role or keys[: len(earlier)] != earlier
        ]
        found.append((Conversation(call, messages, told[call.call_id], num_asked), keys))
    return [conversation for conversation, _ in found]


def _tools_by_call(run: RolloutData) -> dict[str, Sequence[Mapping[str, Any]]]:
    """What each call could use: what its span says, or the role's span before it."""
    of_role: dict[str, Sequence[Mapping[str, Any]]] = {}
    told: dict[str, Sequence[Mapping[str, Any]]] = {}
    for span in sorted(sound(run.spans), key=lambda span: span.sequence_id):
        if not span.attributes.keys() >= {names.CALL_ID, names.AGENT_NAME}:
            continue
        role = span.attributes[names.AGENT_NAME]
        of_role[role] = span.attributes.get(names.TOOL_DEFINITIONS, of_role.get(role, ()))
        if is_answered_call(span):
            told[span.attributes[names.CALL_ID]] = of_role[role]
    return told


def _trajectories(
    runs: Iterable[RolloutData],
    keep: Keep | None,
    *,
    statuses: Sequence[RolloutStatus] | None,
) -> Iterator[tuple[RolloutData, Trajectory]]:
    """The runs in these statuses, or in any."""
    for run in runs:
        if run.attempt is None or (statuses is not None and run.rollout.status not in statuses):
            continue
        trajectory = trajectory_of(run.rollout, run.attempt, run.spans)
        if keep is None or keep(run.rollout, trajectory):
            yield run, trajectory


def _reward(trajectory: Trajectory) -> float | None:
    has_return = trajectory.judged if trajectory.failed else trajectory.rewards
    return trajectory.total_reward if has_return else None


def _pairs(
    best: tuple[RolloutData, Trajectory, float], worst: tuple[RolloutData, Trajectory, float]
) -> Iterator[dict[str, Any]]:
    others = _first_of_roles(conversations(*worst[:2]))
    for role, chosen in _first_of_roles(conversations(*best[:2])).items():
        rejected = others.get(role)
        at = None if rejected is None else _parting(chosen, rejected)
        if rejected is None or at is None:
            continue
        prompt, mine = _objects(chosen.messages[:at]), _objects(chosen.messages[at:])
        theirs = _objects(rejected.messages[at:])
        if prompt is not None and mine is not None and theirs is not None:
            pair = {"prompt": prompt, "chosen": mine, "rejected": theirs}
            scores = {"score_chosen": best[2], "score_rejected": worst[2]}
            yield _with_tools({**pair, **scores}, chosen)


def _first_of_roles(found: Iterable[Conversation]) -> dict[str, Conversation]:
    first: dict[str, Conversation] = {}
    for conversation in found:
        if conversation.call.trainable:
            first.setdefault(conversation.call.role, conversation)
    return first


def _parting(one: Conversation, other: Conversation) -> int | None:
    """Where both give a reply of their own, and another one; None if they never do, or differ before."""
    if list(one.tools) != list(other.tools):
        return None
    for place, (mine, theirs) in enumerate(zip(one.messages, other.messages, strict=False)):
        if message_key(mine) != message_key(theirs):
            given = place >= max(one.num_asked, other.num_asked)
            return place if given and mine.role == theirs.role == "assistant" else None
    return None


def _with_tools(example: dict[str, Any], conversation: Conversation) -> dict[str, Any]:
    return {**example, "tools": list(conversation.tools)} if conversation.tools else example


def _objects(messages: Iterable[ChatMessage]) -> list[dict[str, Any]] | None:
    """The messages with tool calls' arguments as objects; None if some are none, which nobody can read."""
    dictionaries = [message_to_dict(message) for message in messages]
    for message in dictionaries:
        for call in message.get("tool_calls", ()):
            arguments = _object(call["function"]["arguments"])
            if arguments is None:
                return None
            call["function"]["arguments"] = arguments
    return dictionaries


def _object(arguments: str) -> dict[str, Any] | None:
    """The JSON object that the text is, without NaN and infinities; none at all is an empty one."""
    try:
        read = json.loads(arguments or "{}", parse_constant=_refuse)
    except UNREADABLE:
        return None
    return read if isinstance(read, dict) else None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")

"""Other continuations of a recorded run: the same up to one of its calls, and live from there on."""

from __future__ import annotations

import asyncio
import inspect
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from raybolt.env.agent import Agent
from raybolt.env.errors import ReplayDiverged
from raybolt.env.policy import RunEnd
from raybolt.env.recorded import summary_of
from raybolt.env.recorder import SpanRecorder
from raybolt.env.recording import USUAL_CAUSES, Recording
from raybolt.env.replay import Replay, read_recording
from raybolt.env.report import report
from raybolt.env.roles import Codecs
from raybolt.env.stepper import Action, Prompt, RunStepper
from raybolt.env.task import Task
from raybolt.store.base import Latest, LightningStore
from raybolt.store.errors import InvalidValue
from raybolt.store.patience import ROOM_SECONDS
from raybolt.store.types import AttemptedRollout
from raybolt.store.values import checked_count

Answerer: TypeAlias = "Callable[[Prompt], Action | Awaitable[Action]]"
"""The live policy: what it answers to a prompt, plain or async. An engine's tokens, or a `Completion`."""


@dataclass(frozen=True, slots=True)
class Forks:
    """What was recorded."""

    group_id: str
    rollout_ids: tuple[str, ...]
    errors: dict[str, str] = field(default_factory=dict)
    """Of those that failed, by rollout id."""


async def fork(
    agent: Agent,
    store: LightningStore,
    rollout_id: str,
    k: int,
    n: int,
    *,
    answer: Answerer,
    codec: Codecs,
    attempt_id: str | Latest = "latest",
    group_id: str | None = None,
    task: Task | None = None,
    live_tools: Sequence[str] = (),
) -> Forks:
    """Runs the agent `n` times as recorded up to call `k` (from 0), and on from there with `answer`.

    Each becomes a rollout of one group, of its parent's task and mode, with `forked_from` (the parent's id)
    and `forked_at` (k) in its metadata; the calls before k have the recorded tokens, log-probabilities and
    weights version, and the prompt of call k has the recorded tokens. All n go on at the same time. A
    continuation that fails is recorded as failed. Of a run that failed, k may be the call that was not
    answered any more: one behind the last. For the other arguments see `replay`.

    Raises:
        ReplayDiverged: in every one of them the agent did something else than then.
        InvalidValue: n is below 1, or call k is none of the policy's.
    """
    recording = await read_recording(store, rollout_id, attempt_id, task)
    _check_call(recording, k)
    n = checked_count(n, "n", least=1)
    parent = recording.rollout
    group_id = group_id or f"fork-{rollout_id}-{k}-{secrets.token_hex(3)}"
    await store.declare_group(group_id, n, task_id=parent.task_id)

    async def one() -> tuple[str, str | None, bool]:
        started = await store.start_rollout(
            parent.input,
            mode=parent.mode,
            resources_id=parent.resources_id,
            metadata={**parent.metadata, "forked_from": rollout_id, "forked_at": k},
            task_id=parent.task_id,
            group_id=group_id,
        )
        recorder = SpanRecorder(started.rollout_id, started.attempt.attempt_id)
        at = Replay(
            agent,
            recording,
            until=k,
            recorder=recorder,
            codec=codec,
            live_tools=live_tools,
            require_reward=True,
        )
        return await _continue(at, started, store, answer, k)

    ended = await asyncio.gather(*(one() for _ in range(n)))
    errors = {new_id: error for new_id, error, _ in ended if error is not None}
    if all(diverged for _, _, diverged in ended):
        raise ReplayDiverged(next(iter(errors.values())))
    return Forks(group_id, tuple(new_id for new_id, _, _ in ended), errors)


async def _continue(
    at: Replay, started: AttemptedRollout, store: LightningStore, answer: Answerer, k: int
) -> tuple[str, str | None, bool]:
    """One continuation: its rollout id, its error if it failed, and whether it diverged before call k."""
    diverged: str | None = None
    cancelled: asyncio.CancelledError | None = None
    try:
        await at.start()
        assert at.stepper is not None
        await _go_on(at, at.stepper, answer, k)
    except ReplayDiverged as error:
        diverged = str(error)
    except asyncio.CancelledError as error:  # its rollout has to end all the same, or its group never does
        cancelled = error
    finally:
        await at.close()
    trajectory = at.run.trajectory
    summary = summary_of(trajectory)
    if diverged is not None:
        summary |= {"error": diverged, "origin": "agent"}
    if cancelled is not None:
        summary |= {"error": "the fork was cancelled", "origin": "raybolt"}
    outcome = await report(
        store,
        started.rollout_id,
        started.attempt.attempt_id,
        at.run.recorder.drain(),
        summary,
        limit_seconds=ROOM_SECONDS if cancelled is None else 0,
    )
    if cancelled is not None:
        raise cancelled
    return started.rollout_id, outcome.get("error"), diverged is not None


async def _go_on(at: Replay, stepper: RunStepper, answer: Answerer, k: int) -> None:
    """Answers all calls from k on. Raises ReplayDiverged if call k's prompt has other tokens than then."""
    prompts = await stepper.next()
    if not isinstance(prompts, RunEnd):
        assert at.call is not None
        _check_tokens(at, next(prompt for prompt in prompts if prompt.call is at.call), k)
    while not isinstance(prompts, RunEnd):
        answers = await asyncio.gather(*(_answer(answer, prompt) for prompt in prompts))
        for prompt, given in zip(prompts, answers, strict=True):
            if isinstance(given, Exception):
                at.run.fail(prompt.call.call_id, given)
            else:
                stepper.act({prompt.call.call_id: given})
        prompts = await stepper.next()


async def _answer(answer: Answerer, prompt: Prompt) -> Action | Exception:
    try:
        given = answer(prompt)
        return await given if inspect.isawaitable(given) else given
    except Exception as error:  # the answerer is the user's; its failure is this rollout's alone
        return error


def _check_call(recording: Recording, k: int) -> None:
    num_calls = len(recording.calls)
    mine = [call.index for call in recording.calls if call.by_policy]
    if recording.stopped_at_the_policy:
        mine.append(num_calls)
    if type(k) is int and k in mine:
        return
    known = ", ".join(map(str, mine)) or "none"
    others = type(k) is int and 0 <= k < num_calls
    what = "was answered by the agent's own model" if others else "is none of its calls"
    raise InvalidValue(
        f"k is {k!r}, which in rollout {recording.rollout.rollout_id!r} {what}; it has {num_calls} answered "
        f"calls, from 0 on, and those to fork at are: {known}"
    )


def _check_tokens(at: Replay, prompt: Prompt, k: int) -> None:
    calls = at.recording.calls
    then = calls[k].completion.prompt_ids if k < len(calls) else None  # nobody had answered that one
    if then is not None and not np.array_equal(then, prompt.prompt_ids):
        raise ReplayDiverged(
            f"call {k} of rollout {at.recording.rollout.rollout_id!r} says the same, but its prompt has "
            f"{len(prompt.prompt_ids)} tokens, then {len(then)}, or others: give the codec of the model that "
            f"ran then; {USUAL_CAUSES}"
        )

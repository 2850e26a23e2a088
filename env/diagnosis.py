"""Why nothing was learned from some runs: which link broke, in which run, and what to do.

From a task to a changed weight there is a chain: a run, an LLM call in it, tokens behind the call, a reward,
other runs of the task to compare it with. `diagnose` says which of these is missing, from what was recorded.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from raybolt.env.errors import NoCall, NoReward
from raybolt.env.run_facts import CallFacts, RunFacts, SpanPlace, facts_of
from raybolt.env.trajectory import comparable
from raybolt.store.types import Mode, RolloutData

Link = Literal["run", "call", "trainable", "tokens", "reward", "group", "signal", "reply"]
"""What broke: the run itself, the capture of its calls, their selection, their tokens, its reward, the
number of runs to compare, the difference between their rewards, the form of the replies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong with some runs."""

    link: Link
    fatal: bool
    """Whether nothing at all can be learned for it; otherwise less, or worse, than could be."""
    summary: str
    remedy: str
    rollout_ids: tuple[str, ...]
    """All runs it holds for, oldest first."""
    span: SpanPlace | None
    """One example of it; None where no span was recorded."""

    def __str__(self) -> str:
        where = f" For example {self.span.name!r} ({self.span.span_id})" if self.span is not None else ""
        in_run = f"{where} in rollout {self.rollout_ids[0]}." if self.rollout_ids else ""
        return f"{self.link}: {self.summary}.{in_run} {self.remedy}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """What there is to learn from."""

    rollouts: Mapping[str, int]
    """By status."""
    calls: int
    trainable_calls: int
    tokens: int
    """Sampled for trainable calls."""
    groups: int
    """With runs to compare."""
    groups_with_signal: int
    """In which rewards differ."""
    reward_mean: float | None
    reward_min: float | None
    reward_max: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Findings, worst first, and numbers. No findings: nothing is wrong."""

    findings: tuple[Finding, ...]
    numbers: Numbers

    @property
    def fatal(self) -> bool:
        """Whether nothing can be learned."""
        return any(finding.fatal for finding in self.findings)


def diagnose(runs: Iterable[RolloutData]) -> Diagnosis:
    """What is wrong with the runs, if anything; those of each mode are looked at by themselves.

    A pure function of rollouts, their last attempts and spans. `runs` is gone through once, and nothing of
    a run is held but a few numbers.
    """
    facts = [facts_of(run) for run in runs]
    by_mode: dict[Mode | None, list[RunFacts]] = defaultdict(list)
    for run in facts:
        by_mode[run.mode].append(run)
    found = [finding for of_mode in by_mode.values() for check in _CHECKS for finding in check(of_mode)]
    if not facts:
        remedy = "Train, demonstrate or trace into this store first, or name another one."
        found = [_finding("run", "the store holds no rollout", remedy, [], fatal=True)]
    return Diagnosis(
        findings=tuple(sorted(found, key=lambda finding: not finding.fatal)), numbers=_numbers(facts)
    )


# One function per link. Each is given all runs of one mode, and says nothing if all is well.


def _runs_that_never_ran(runs: Sequence[RunFacts]) -> Iterator[Finding]:
    waiting = [run for run in runs if not run.attempted and not run.ended and run.status != "cancelled"]
    if waiting:
        yield _finding(
            "run",
            f"{_share(waiting, runs)} never ran: nobody took them",
            "Start a runner on this store (a Trainer's fit, or a worker that dequeues rollouts).",
            waiting,
            fatal=len(waiting) == len(runs),
        )


def _runs_that_failed(runs: Sequence[RunFacts]) -> Iterator[Finding]:
    """The same error many times is one finding."""
    ended = [run for run in runs if run.ended]
    by_error: dict[tuple[str | None, str], list[RunFacts]] = defaultdict(list)
    for run in ended:
        if run.failed and run.error_type not in (_NO_CALL, _NO_REWARD):
            by_error[run.origin, _DIGITS.sub("#", run.error or "")].append(run)
    for (origin, _), failed in sorted(by_error.items(), key=lambda item: -len(item[1])):
        error = " ".join((failed[0].error or "").split())
        same = "with the same error, " if len(failed) > 1 else ""
        yield _finding(
            "run",
            f"{_share(failed, ended)} failed {same}because of the {origin}: {error[:300]}",
            _BLAME.get(origin or "", _BLAME["raybolt"]),
            failed,
            fatal=not any(run.succeeded for run in ended),
        )


def _runs_without_a_call(runs: Sequence[RunFacts]) -> Iterator[Finding]:
    ended = [run for run in runs if run.ended]
    silent = [run for run in ended if run.error_type == _NO_CALL or (run.succeeded and not run.calls)]
    if silent:
        yield _finding(
            "call",
            f"{_share(silent, ended)} made no LLM call that raybolt saw",
            "The agent's calls go elsewhere: have build(llm) use the model it is given; make clients inside "
            "the run or by a library that docs/adapters.md lists; start other processes with the run's "
            "OPENAI_BASE_URL.",
            silent,
            fatal=not any(run.calls for run in ended),
        )


def _runs_with_foreign_calls_only(runs: Sequence[RunFacts]) -> Iterator[Finding]:
    called = [run for run in runs if run.succeeded and run.calls]
    foreign = [run for run in called if not run.trainable_calls]
    if foreign:
        roles = Counter(call.role for run in foreign for call in run.calls)
        yield _finding(
            "trainable",
            f"{_share(foreign, called)} made only calls that are not trainable, answered by the agent's own "
            f"model or kept out of learning: {_counted(roles)}",
            "Name these roles in wrap(…, trainable=[…]); patterns are allowed. If these are traces, make "
            "demonstrations of them (raybolt.demonstrations_from_traces) and train on those.",
            foreign,
            fatal=len(foreign) == len(called),
            span=foreign[0].calls[0].place,
        )


def _calls_without_tokens(runs: Sequence[RunFacts]) -> Iterator[Finding]:
    asked = [run for run in runs if run.succeeded and run.trainable_calls]
    calls = [call for run in asked for call in run.trainable_calls]
    lacking = [call for call in calls if not call.num_tokens]
    if lacking:
        yield _about_calls(
            "tokens",
            f"{len(lacking)} of {len(calls)} trainable calls have no token ids: an LLM answered that says "
            "nothing of its tokens",
            "Answer with token ids or Sampled(…) instead of a Completion of text alone; or leave these calls "
            "out: wrap(…, trainable=[…]).",
            lacking,
            fatal=len(lacking) == len(calls),
        )
    sampled = [
        call for run in asked if run.mode == "train" for call in run.trainable_calls if call.num_tokens
    ]
    unsure = [call for call in sampled if not call.has_logprobs]
    if unsure:
        yield _about_calls(
            "tokens",
            f"{len(unsure)} of {len(sampled)} sampled calls have no log-probabilities, which reinforcement "
            "learning compares with its own",
            "Answer with Sampled(response_ids, logprobs), one for each token.",
            unsure,
            fatal=len(unsure) == len(sampled),
        )


def _runs_without_a_reward(runs: Sequence[RunFacts]) -> Iterator[Finding]:
    due = [
        run
        for run in runs
        if run.error_type == _NO_REWARD or (run.succeeded and run.trainable_calls and run.mode != "demo")
    ]
    missing = [run for run in due if run.reward is None]
    if missing:
        yield _finding(
            "reward",
            f"{_share(missing, due)} have no reward",
            "Give wrap(agent, reward=…), return a number from the agent, or call raybolt.emit_reward inside "
            "the run; what is emitted outside of it (in a thread or process started without its context) is "
            "not seen.",
            missing,
            fatal=len(missing) == len(due),
        )


def _groups_without_comparison(runs: Sequence[RunFacts]) -> Iterator[Finding]:
    groups = _groups(runs)
    alone = [group for group in groups if len(_rewarded(group)) == 1]
    if alone:
        yield _finding(
            "group",
            f"in {len(alone)} of {len(groups)} groups only one run has a reward, and there is nothing to "
            "compare it with",
            "Raise rollouts_per_task, and see why the others failed.",
            [run for group in alone for run in group],
            fatal=not any(len(_rewarded(group)) > 1 for group in groups),
        )


def _groups_without_signal(runs: Sequence[RunFacts]) -> Iterator[Finding]:
    groups = [group for group in map(_rewarded, _groups(runs)) if len(group) > 1]
    equal = [group for group in groups if not _differ(group)]
    if len(equal) * 2 <= len(groups):
        return  # some tasks are always solved, or never: no fault
    silent = [run for group in equal for run in group]
    num_alike = sum(len({run.words for run in group}) == 1 for group in equal)
    if num_alike * 2 > len(equal):
        why, remedy = f"in {num_alike} of them every run said exactly the same", _SAME_WORDS
    else:
        values = Counter(f"{run.reward:g}" for run in silent)
        why, remedy = f"though the runs said different things; rewards: {_counted(values)}", _SAME_REWARDS
    yield _finding(
        "signal",
        f"in {len(equal)} of {len(groups)} groups all rewards are equal, {why}",
        remedy,
        silent,
        fatal=len(equal) == len(groups),
    )


def _replies_in_bad_form(runs: Sequence[RunFacts]) -> Iterator[Finding]:
    calls = [call for run in runs for call in run.trainable_calls]
    unread = [call for call in calls if call.parse_error]
    if unread:
        yield _about_calls(
            "reply",
            f"{len(unread)} of {len(calls)} replies hold a tool call that cannot be read: "
            f"{_most_common(call.parse_error for call in unread)}",
            "The agent got the text as it was. A model that writes tool calls otherwise than "
            '<tool_call>{"name": …, "arguments": …}</tool_call> needs a warm-up on demonstrations.',
            unread,
        )
    drifted = [call for call in calls if call.drift]
    if drifted:
        yield _about_calls(
            "reply",
            f"in {len(drifted)} of {len(calls)} calls the prompt does not go on from the tokens sampled "
            f"before: {_most_common(call.drift for call in drifted)}",
            "It is learned from all the same, at the price of longer sequences. Keep the agent from changing "
            "earlier messages, or take a template that renders them alike.",
            drifted,
        )
    sampled = [call for call in calls if call.num_tokens]
    cut = [call for call in sampled if call.cut]
    if len(cut) * 2 > len(sampled):
        yield _about_calls(
            "reply",
            f"{len(cut)} of {len(sampled)} replies were cut off by the length limit",
            "Raise max_new_tokens, or the max_tokens that the agent asks for.",
            cut,
        )


_CHECKS: Final[tuple[Callable[[Sequence[RunFacts]], Iterator[Finding]], ...]] = (
    _runs_that_never_ran,
    _runs_that_failed,
    _runs_without_a_call,
    _runs_with_foreign_calls_only,
    _calls_without_tokens,
    _runs_without_a_reward,
    _groups_without_comparison,
    _groups_without_signal,
    _replies_in_bad_form,
)
"""In the order of the chain."""

_NO_CALL: Final = NoCall.__name__
_NO_REWARD: Final = NoReward.__name__
_DIGITS: Final = re.compile(r"\d+(\.\d+)?")
_BLAME: Final = {
    "agent": "The agent's own code raised: read the traceback in the span's event, and try agent.run(task).",
    "reward": "The reward function raised, or gave no finite number: call it on this run's result.",
    "limit": "Raise RunLimits(max_calls=…, max_seconds=…), or shorten the prompts; see what the run spent "
    "them on.",
    "engine": "The LLM behind the call failed: see its own log; later runs may succeed.",
    "policy": "The model's chat template refuses the conversation, or the teacher failed: see the messages.",
    "store": "The store had no room for the run's spans: make room where the error says, then run it again.",
    "raybolt": "The run was ended from outside, or its process died: see the trainer's log of that time.",
}
_SAME_WORDS: Final = "Raise the temperature: greedy or nearly greedy sampling leaves nothing to compare."
_SAME_REWARDS: Final = (
    "Look at what the reward function sees. All zero: easier tasks, partial credit, or a warm-up on "
    "demonstrations. All one: harder tasks. More rollouts_per_task make a difference likelier."
)


def _finding(
    link: Link,
    summary: str,
    remedy: str,
    runs: Sequence[RunFacts],
    *,
    fatal: bool,
    span: SpanPlace | None = None,
) -> Finding:
    return Finding(
        link=link,
        fatal=fatal,
        summary=summary,
        remedy=remedy,
        rollout_ids=tuple(run.rollout_id for run in runs),
        span=span or next((run.place for run in runs if run.place is not None), None),
    )


def _about_calls(
    link: Link, summary: str, remedy: str, calls: Sequence[CallFacts], *, fatal: bool = False
) -> Finding:
    return Finding(
        link=link,
        fatal=fatal,
        summary=summary,
        remedy=remedy,
        rollout_ids=tuple(dict.fromkeys(call.place.rollout_id for call in calls)),
        span=calls[0].place,
    )


def _groups(runs: Sequence[RunFacts]) -> list[list[RunFacts]]:
    """The runs that are compared with one another, in lists."""
    groups: dict[str, list[RunFacts]] = defaultdict(list)
    for run in runs:
        if run.group_id is not None and run.mode == "train" and run.ended:
            groups[run.group_id].append(run)
    return list(groups.values())


def _rewarded(group: Sequence[RunFacts]) -> list[RunFacts]:
    compared = comparable(group, succeeded=lambda run: run.succeeded, version=lambda run: run.reward_version)
    return [run for run in compared if run.reward is not None]


def _differ(group: Sequence[RunFacts]) -> bool:
    return len({run.reward for run in group}) > 1


def _numbers(runs: Sequence[RunFacts]) -> Numbers:
    rewards = [run.reward for run in runs if run.reward is not None]
    compared = [group for group in map(_rewarded, _groups(runs)) if len(group) > 1]
    calls = [call for run in runs for call in run.calls]
    return Numbers(
        rollouts=dict(Counter(run.status for run in runs)),
        calls=len(calls),
        trainable_calls=sum(call.trainable for call in calls),
        tokens=sum(call.num_tokens for call in calls if call.trainable),
        groups=len(compared),
        groups_with_signal=sum(_differ(group) for group in compared),
        reward_mean=sum(rewards) / len(rewards) if rewards else None,
        reward_min=min(rewards, default=None),
        reward_max=max(rewards, default=None),
    )


def _share(some: Sequence[RunFacts], of: Sequence[RunFacts]) -> str:
    return f"{len(some)} of {len(of)} runs"


def _most_common(texts: Iterable[str | None]) -> str:
    ((text, _),) = Counter(map(str, texts)).most_common(1)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _counted(counter: Counter[str]) -> str:
    shown = ", ".join(f"{name!r} {count}x" for name, count in counter.most_common(5))
    return shown + (", …" if len(counter) > 5 else "")

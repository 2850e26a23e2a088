"""A conformance check for agents and their environments, stricter than RLlib's and Gymnasium's own.

    from raybolt.env.check import check_env

    check_env(raybolt.wrap(my_agent, reward=score), tasks)

Each broken rule is an error: which rule, what was expected, what was seen, what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from raybolt.env.agent import Agent
from raybolt.env.agent_env import AgentEnv
from raybolt.env.chat import ChatMessage, Completion
from raybolt.env.check_episode import EnvCheckFailed, Episode, Reply
from raybolt.env.errors import RunOver
from raybolt.env.policy import Sampled
from raybolt.env.recorder import CUT_OFF
from raybolt.env.task import Task
from raybolt.store import names
from raybolt.store.errors import InvalidValue
from raybolt.store.types import Span

__all__ = ["RULES", "EnvCheckFailed", "check_env"]

_SEED = 20
_NUM_AT_ONCE = 4
_NOBODY = "nobody of this name"


def check_env(
    subject: Agent | AgentEnv,
    tasks: Sequence[Task] = (),
    *,
    reply: Reply | None = None,
    model: str = "tiny",
) -> tuple[str, ...]:
    """Steps the agent through many episodes and returns the names of the rules that were checked, and kept.

    Args:
        subject: what `raybolt.wrap` returned, or an environment. Of an agent, runs at the same time are
            compared with runs alone, too ("isolation").
        tasks: at least one; by default those of the environment. More tasks show more of the agent.
        reply: answers the agent's calls, always the same call in the same way; by default random tokens.
            Give one if the agent succeeds only on sensible replies.
        model: whose tokens an agent's environment speaks.

    Raises:
        EnvCheckFailed: a rule is broken; the first that is.
        InvalidValue: there is no task, or `subject` is neither agent nor environment.
    """
    make_env = _maker(subject, tasks, model)
    env = make_env()
    tasks = list(tasks) or list(env.tasks)
    if not tasks:
        raise InvalidValue("there is no task to check with; give check_env(subject, tasks=[Task(…)])")
    check = _Check(env, make_env, tasks, reply)
    rules = {name: rule for name, rule in RULES.items() if name != "isolation" or env is not subject}
    try:
        for rule in rules.values():
            rule(check)
    finally:
        env.close()
    return tuple(rules)


@dataclass(frozen=True)
class _Check:
    env: AgentEnv
    make_env: Callable[[], AgentEnv]
    tasks: list[Task]
    reply: Reply | None

    def begin(self, task: Task | None = None, env: AgentEnv | None = None) -> Episode:
        episode = Episode(env or self.env, self.reply)
        episode.begin(task, _SEED)
        return episode

    def play(self, task: Task | None = None) -> Episode:
        episode = self.begin(task)
        episode.finish()
        return episode

    def first(self) -> Episode:
        """The beginning of an episode with as many agents shown at once as there are with any task."""
        most = max(self.tasks, key=lambda task: len(self.begin(task).observations))
        return self.begin(most)


def _whole_episodes(check: _Check) -> None:
    """Every task, step by step: see `Episode`."""
    errors = []
    for task in check.tasks:
        episode = check.begin(task)
        if episode.done:
            assert check.env.end is not None
            raise EnvCheckFailed(
                "episodes",
                "a call of the policy in every run",
                f"the run on {task.task_id!r} ended before its first: {check.env.end.error or 'success'}",
                "See that the agent uses the model it is given, and that its calls are trainable.",
            )
        episode.finish()
        assert check.env.end is not None
        errors += [check.env.end.error] if check.env.end.failed else []
        _check_spans(check.env.spans, episode, failed=check.env.end.failed)
    if len(errors) == len(check.tasks):
        raise EnvCheckFailed(
            "episodes",
            "a success on at least one task",
            f"all failed, the first with {errors[0]}",
            "Correct the agent, or give reply=(a function of ChatRequest) with replies it can work with.",
        )


def _check_spans(spans: Sequence[Span], episode: Episode, *, failed: bool) -> None:
    by_id = {span.span_id: span for span in spans}
    roots = [span.name for span in spans if span.parent_id is None]
    orphans = [span.name for span in spans if span.parent_id is not None and span.parent_id not in by_id]
    if len(roots) != 1 or orphans or len(by_id) < len(spans):
        raise EnvCheckFailed(
            "spans",
            "one root, an id of its own for every span, and a recorded parent for all but the root",
            f"roots {roots}, without parent {orphans}, {len(by_id)} ids of {len(spans)} spans",
            "Begin spans below `current_run`'s span, and end the outer one after the inner ones.",
        )
    left_open = [span.name for span in spans if span.status_message == CUT_OFF]
    if left_open and not failed:
        raise EnvCheckFailed(
            "spans",
            "every span to be ended by the code that began it",
            f"still open at the run's end: {left_open}",
            "End spans in a `finally`, and await what the agent started in the background.",
        )
    for span in spans:
        parent = by_id.get(span.parent_id or "")
        if span.end_time < span.start_time or (parent is not None and span.start_time < parent.start_time):
            seen = f"{span.name} from {span.start_time} to {span.end_time}"
            remedy = "Take all times from the recorder."
            raise EnvCheckFailed("spans", "spans that begin within their parent, and end later", seen, remedy)
    recorded = {span.attributes.get(names.CALL_ID) for span in spans}
    if missing := sorted(episode.calls_seen - recorded):
        remedy = "Record a chat span with names.CALL_ID for every call."
        raise EnvCheckFailed("spans", "a span for every call that was shown", f"none of {missing}", remedy)


def _seeds(check: _Check) -> None:
    """The same seed and replies give the same episode, on given and on drawn tasks."""
    drawn: list[Task | None] = [None] if check.env.tasks else []
    for task in [*check.tasks, *drawn]:
        _compare("seeds", check.play(task), check.play(task), "the same seed gave two episodes")


def _isolation(check: _Check) -> None:
    """Runs at the same time, in turns, are what each is alone."""
    tasks = [check.tasks[number % len(check.tasks)] for number in range(_NUM_AT_ONCE)]
    envs = [check.make_env() for _ in tasks]
    try:
        episodes = [check.begin(task, env) for task, env in zip(tasks, envs, strict=True)]
        while pending := [episode for episode in episodes if not episode.done]:
            for episode in pending:
                episode.step()
        for episode in episodes:
            episode.finish()
    finally:
        for env in envs:
            env.close()
    for task, episode in zip(tasks, episodes, strict=True):
        _compare("isolation", check.play(task), episode, f"{_NUM_AT_ONCE} runs at once differ from one alone")


def _compare(rule: str, one: Episode, other: Episode, what: str) -> None:
    for number, (a, b) in enumerate(zip_longest(one.log, other.log)):
        if not _same(a, b):
            raise EnvCheckFailed(
                rule,
                "the same observations, ids, requests, rewards and ends",
                f"{what}: at entry {number}, {_shown(a)} and {_shown(b)}",
                "Keep nothing between runs, and draw nothing at random but from a generator made for the run "
                "(random.Random(task.task_id)); calls made at the same time from threads come in any order.",
            )


def _same(a: Any, b: Any) -> bool:
    if a is None or b is None or a[0] != b[0]:
        return False
    if isinstance(a[1], np.ndarray):
        return np.array_equal(a[1], b[1])
    return bool(a[1] == b[1])


def _shown(entry: tuple[str, Any] | None) -> str:
    if entry is None:
        return "nothing"
    text = repr(entry[1].tolist() if isinstance(entry[1], np.ndarray) else entry[1])
    return f"{entry[0]} is {text if len(text) <= 300 else text[:300] + '…'}"


def _missing_actions(check: _Check) -> None:
    """An agent without an action stays pending and is shown again, beside whatever else happens."""
    episode = check.first()
    before, observed = _call_ids(episode), dict(episode.observations)
    episode.act({})
    _still_pending("missing actions", episode, before)
    for agent_id, observation in observed.items():
        if not np.array_equal(observation, episode.observations[agent_id]):
            seen = f"another one for {agent_id!r}"
            remedy = "Encode a call once, when it is first shown."
            raise EnvCheckFailed("missing actions", "the observation shown before", seen, remedy)
    if len(before) > 1:
        answered = next(iter(before))
        episode.act({answered: episode.action(answered)})
        del before[answered]
        _still_pending("missing actions", episode, before)


def _unknown_agents(check: _Check) -> None:
    """An action for nobody is refused, and nothing beside it is answered."""
    episode = check.first()
    before = _call_ids(episode)
    good = {agent_id: episode.action(agent_id) for agent_id in before}
    for actions in ({_NOBODY: next(iter(good.values()))}, {**good, _NOBODY: next(iter(good.values()))}):
        _refused("unknown agents", episode, actions, f"agents {list(actions)}", before)


def _wrong_actions(check: _Check) -> None:
    """What is neither tokens nor a completion is refused, and nothing beside it is answered."""
    episode = check.first()
    before = _call_ids(episode)
    *others, last = before
    good = {agent_id: episode.action(agent_id) for agent_id in others}
    vocab_size = episode.env.get_action_space(last).vocab_size
    wrong: list[Any] = [
        "text", None, 3, [], [0.5], [True], [[1, 2], [3, 4]], [[1], [2, 3]], [-1], [vocab_size], {"a": [1]},
        Sampled(np.array([1, 2], np.int32), np.zeros(1, np.float32)),
        Sampled(np.zeros(0, np.int32)),
        Completion(ChatMessage("user", "not from an assistant")),
    ]  # fmt: skip
    for action in wrong:
        _refused("wrong actions", episode, {**good, last: action}, f"action {action!r}", before)


def _refused(rule: str, episode: Episode, actions: dict[str, Any], what: str, before: dict[str, str]) -> None:
    try:
        episode.env.step(actions)
    except InvalidValue:
        pass
    except Exception as error:
        seen = f"{type(error).__name__} for {what}"
        raise EnvCheckFailed(rule, "InvalidValue", seen, "Check actions before anything is done.") from error
    else:
        raise EnvCheckFailed(
            rule, "InvalidValue", f"{what} was taken", "Check actions before anything is done."
        )
    episode.act({})
    _still_pending(rule, episode, before)


def _still_pending(rule: str, episode: Episode, before: dict[str, str]) -> None:
    now = _call_ids(episode)
    missing = {agent_id: call_id for agent_id, call_id in before.items() if now.get(agent_id) != call_id}
    if missing:
        raise EnvCheckFailed(
            rule,
            f"{before} to be pending still",
            f"{now or 'nothing'} pending",
            "Answer all agents that were given an action, or none if one action is wrong; keep the others.",
        )


def _after_the_end(check: _Check) -> None:
    """A step after the end is refused; a reset begins anew."""
    episode = check.play(check.tasks[0])
    agent_id = next(iter(episode.acted))
    _over("after the end", check.env, {})
    _over("after the end", check.env, {agent_id: [1]})
    _compare("after the end", episode, check.play(check.tasks[0]), "the next episode is another")


def _closing(check: _Check) -> None:
    """Closing ends the run, twice is as once, and a reset begins anew."""
    alone = check.play(check.tasks[0])
    check.begin(check.tasks[0])
    for times in ("once", "twice"):
        try:
            check.env.close()
        except Exception as error:
            seen = f"{type(error).__name__}: {error} when closed {times}"
            raise EnvCheckFailed("closing", "no exception", seen, "Let close do nothing twice.") from error
    if check.env.end is None:
        seen = "the run goes on"
        raise EnvCheckFailed("closing", "the run to end", seen, "Abort the run in close.")
    _over("closing", check.env, {})
    _compare("closing", alone, check.play(check.tasks[0]), "the next episode is another")


def _over(rule: str, env: AgentEnv, actions: dict[str, Any]) -> None:
    remedy = "Raise RunOver from step when there is no episode to go on with."
    try:
        result = env.step(actions)
    except RunOver:
        return
    except Exception as error:
        seen = f"{type(error).__name__}: {error}"
        raise EnvCheckFailed(rule, f"RunOver from step({actions})", seen, remedy) from error
    raise EnvCheckFailed(rule, f"RunOver from step({actions})", f"it returned {result!r:.200}", remedy)


def _call_ids(episode: Episode) -> dict[str, str]:
    return {agent_id: episode.infos[agent_id]["call_id"] for agent_id in episode.observations}


def _maker(subject: Agent | AgentEnv, tasks: Sequence[Task], model: str) -> Callable[[], AgentEnv]:
    if isinstance(subject, AgentEnv):
        return lambda: subject
    if not callable(getattr(subject, "program", None)) or not callable(getattr(subject, "env", None)):
        raise InvalidValue(
            f"check_env is given {subject!r:.100}; expected what raybolt.wrap returned, or an AgentEnv (of a "
            "view: its .env)"
        )
    return lambda: subject.env(model, tasks=tuple(tasks))


RULES: dict[str, Callable[[_Check], None]] = {
    "episodes": _whole_episodes,
    "seeds": _seeds,
    "isolation": _isolation,
    "missing actions": _missing_actions,
    "unknown agents": _unknown_agents,
    "wrong actions": _wrong_actions,
    "after the end": _after_the_end,
    "closing": _closing,
}
"""By name, in the order in which they are checked. Every episode is checked step by step as well, for the
rules "reset", "step", "spaces", "infos", "rewards", "ends" and "spans"."""

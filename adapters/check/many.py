"""Checks of many runs: nothing of one is ever seen in another."""

from __future__ import annotations

import asyncio

import cloudpickle

from raybolt.adapters.check.drive import Policy, Ran, Stage, play, texts_of
from raybolt.adapters.check.kit import AgentKit, Way
from raybolt.adapters.check.replies import REPLY, expect_roles, expect_text
from raybolt.adapters.check.rules import check, expect
from raybolt.adapters.check.scripted import ScriptedPolicy, call, say
from raybolt.adapters.check.spans import expect_sound_tree, tool_spans
from raybolt.adapters.wrapped import WrappedAgent
from raybolt.env.chat import ChatRequest, Completion
from raybolt.env.emit import emit
from raybolt.store import names

NUM_RUNS = 32
TOGETHER_SECONDS = 60.0


def keep(word: str) -> str:
    """Keeps a word."""
    emit("kept", word=word)
    return f"kept {word}"


def _words() -> list[str]:
    return [f"secret{index:02d}x" for index in range(NUM_RUNS)]


def _asking_back(word: str) -> Policy:
    """Calls the tool with the run's word, then says it."""
    replies = ScriptedPolicy(call(("keep", {"word": word})), f"It was {word}.")

    async def policy(request: ChatRequest) -> Completion:
        await asyncio.sleep(0.01)  # the other runs come in between
        return replies(request)

    return policy


@check(f"{NUM_RUNS} runs at once: each has its own messages, tool calls, spans and result")
async def runs_at_once(kit: AgentKit, way: Way) -> None:
    agent = kit.wrap(kit.with_tools(way, [keep]))
    words = _words()
    runs = await asyncio.gather(*(play(agent, _asking_back(word), f"Keep {word}.") for word in words))
    for word, ran in zip(words, runs, strict=True):
        expect_text(kit, ran, f"It was {word}.")
        expect_roles(ran, "writer", "writer")
        _expect_own(ran, word, words)


@check(f"{NUM_RUNS} runs of two agents at once: each critic judges its own run's text")
async def teams_at_once(kit: AgentKit, way: Way) -> None:
    agent = kit.wrap(kit.two_roles(way))
    words = _words()

    async def policy(request: ChatRequest) -> Completion:
        await asyncio.sleep(0.01)
        found = sorted({word for word in words if word in texts_of(request)})
        return say(f"{request.role} of {' '.join(found)}.")

    runs = await asyncio.gather(*(play(agent, policy, f"Tell me of {word}.") for word in words))
    for word, ran in zip(words, runs, strict=True):
        expect_text(kit, ran, f"critic of {word}.")
        expect_roles(ran, "writer", "critic")
        _expect_only(ran, word, words)


def _expect_own(ran: Ran, word: str, words: list[str]) -> None:
    """Only this run's word is anywhere in the run, and its one tool and one event carry it."""
    _expect_only(ran, word, words)
    tools = [span.attributes.get(names.TOOL_ARGUMENTS) for span in tool_spans(ran)]
    kept = [span.attributes.get("word") for span in ran.spans if span.name == "kept"]
    expect(
        tools == [{"word": word}] and kept == [word],
        expected=f"one tool span and one emitted span with {word!r}",
        seen=(tools, kept),
        remedy="find the run through env.context.current_run, at the moment of the call",
    )


def _expect_only(ran: Ran, word: str, words: list[str]) -> None:
    for where, text in {
        "a request": "\n".join(texts_of(request) for request in ran.requests),
        "a span": repr([(span.name, span.attributes) for span in ran.spans]),
    }.items():
        strange = [other for other in words if other != word and other in text]
        expect(
            not strange,
            expected=f"nothing of other runs in {where} of the run on {word!r}",
            seen=strange,
            remedy="give each run its own objects (a copy), or let runs on one object wait for one another",
        )
    expect_sound_tree(ran)


@check(f"the calls of {NUM_RUNS} runs of a factory wait for the policy together", "factory")
async def all_wait_together(kit: AgentKit, way: Way) -> None:
    agent = kit.wrap(kit.two_roles(way))
    waiting = 0
    together = asyncio.Event()

    async def policy(request: ChatRequest) -> Completion:
        nonlocal waiting
        waiting += 1
        if waiting == NUM_RUNS:
            together.set()
        await asyncio.wait_for(together.wait(), TOGETHER_SECONDS)
        return say(REPLY)

    try:
        runs = await asyncio.gather(*(play(agent, policy) for _ in range(NUM_RUNS)))
    except TimeoutError:
        expect(
            False,
            expected=f"{NUM_RUNS} calls pending together",
            seen=waiting,
            remedy="run blocking agents with env.executor.run_in_thread; hold no lock meanwhile",
        )
    for ran in runs:
        expect_roles(ran, "writer", "critic")


@check("a second run remembers nothing of the first")
async def no_memory(kit: AgentKit, way: Way) -> None:
    agent = kit.wrap(kit.with_tools(way, [keep]))
    for _ in range(2):
        first = await play(agent, _asking_back("umbrella"), "Keep umbrella.")
        second = await play(agent, _asking_back("galoshes"), "Keep galoshes.")
        for ran, word in ((first, "umbrella"), (second, "galoshes")):
            _expect_own(ran, word, ["umbrella", "galoshes"])
        lengths = [len(ran.requests[0].messages) for ran in (first, second)]
        expect(
            lengths[0] == lengths[1],
            expected="the second run's first call as long as the first's",
            seen=lengths,
            remedy="reset what the agent remembers between runs, or copy it before its first one",
        )


@check("a run that was given up leaves nothing in the next one")
async def no_memory_of_aborted(kit: AgentKit, way: Way) -> None:
    agent = kit.wrap(kit.with_tools(way, [keep]))
    stage = Stage(agent, "Keep umbrella.")
    (waiting,) = await stage.waiting()
    stage.run.answer(waiting.call_id, call(("keep", {"word": "umbrella"})))
    await stage.waiting()
    await stage.run.abort("enough")
    ran = await play(agent, _asking_back("galoshes"), "Keep galoshes.")
    expect_text(kit, ran, "It was galoshes.")
    _expect_own(ran, "galoshes", ["umbrella", "galoshes"])


@check("a wrapped factory can be sent to another process", "factory")
async def pickles(kit: AgentKit, way: Way) -> None:
    sent: WrappedAgent = cloudpickle.loads(cloudpickle.dumps(kit.wrap(kit.two_roles(way))))
    ran = await play(sent, ScriptedPolicy(REPLY, "Too wet."))
    expect_text(kit, ran, "Too wet.")
    expect_roles(ran, "writer", "critic")


MANY = (runs_at_once, teams_at_once, all_wait_together, no_memory, no_memory_of_aborted, pickles)

"""Checks of replies and roles: the policy's answer is the agent's, whichever way it is called."""

from __future__ import annotations

from pydantic import BaseModel

from raybolt.adapters.check.drive import TEXT, Ran, play, texts_of
from raybolt.adapters.check.kit import AgentKit, Way
from raybolt.adapters.check.rules import check, expect
from raybolt.adapters.check.scripted import ScriptedPolicy, call, say
from raybolt.adapters.check.spans import chats, expect_chats_at_home, expect_sound_tree, hand_offs
from raybolt.env.chat import ChatRequest, Completion

REPLY = "It rained all day, and then it stopped."


class Verdict(BaseModel):
    """A verdict on a text."""

    score: int
    why: str


def expect_text(kit: AgentKit, ran: Ran, text: str) -> None:
    seen = kit.text(ran.result)
    expect(
        text in seen,
        expected=f"a result that says {text!r}",
        seen=seen,
        remedy="turn the completion's content into the framework's message, whole and once",
    )


def expect_roles(ran: Ran, *roles: str) -> None:
    expect(
        ran.roles == list(roles),
        expected=f"calls of the roles {list(roles)}",
        seen=ran.roles,
        remedy="set ChatRequest.role to the framework's name for the agent that calls",
    )


@check("the framework is told from the agent itself")
async def detects(kit: AgentKit, way: Way) -> None:
    found = kit.wrap(kit.solo(way)).adapter.framework
    expect(
        found == kit.framework,
        expected=f"wrap() to choose {kit.framework!r}",
        seen=found,
        remedy="list the framework's packages in the adapter's `libraries`",
    )


@check("the policy gets the agent's question, and its reply becomes the result")
async def reply(kit: AgentKit, way: Way) -> None:
    ran = await play(kit.wrap(kit.solo(way)), ScriptedPolicy(REPLY))
    expect_text(kit, ran, REPLY)
    expect_roles(ran, "writer")
    expect(
        TEXT in texts_of(ran.requests[0]),
        expected=f"the task's input {TEXT!r} in the request",
        seen=texts_of(ran.requests[0]),
        remedy="give the agent the task's input in `run`, and convert every message",
    )


@check("each agent's call has its own role, and sees what the other said")
async def roles(kit: AgentKit, way: Way) -> None:
    ran = await play(kit.wrap(kit.two_roles(way)), ScriptedPolicy(REPLY, "Too wet."))
    expect_text(kit, ran, "Too wet.")
    expect_roles(ran, "writer", "critic")
    expect(
        REPLY in texts_of(ran.requests[1]),
        expected="the writer's reply in the critic's request",
        seen=texts_of(ran.requests[1]),
        remedy="convert messages of other agents, too",
    )
    expect_sound_tree(ran)
    expect_chats_at_home(ran)


@check("a hand-over is recorded with its source and target, and the next call is the target's")
async def hand_off(kit: AgentKit, way: Way) -> None:
    agent = kit.wrap(kit.hand_off(way))
    ran = await play(agent, ScriptedPolicy(kit.hand_off_reply, "Too wet.", "So be it."))
    last = ["Too wet.", "So be it."][len(ran.requests) - 2]
    expect_text(kit, ran, last)
    expect(
        ran.roles[:2] == ["writer", "critic"],
        expected="a call of the writer, then one of the critic",
        seen=ran.roles,
        remedy="set ChatRequest.role to the agent at work after the hand-over",
    )
    expect(
        hand_offs(ran) == [("writer", "critic")],
        expected="one span of kind 'handoff' with source 'writer' and target 'critic'",
        seen=hand_offs(ran),
        remedy="record it from the framework's own hook: names.HANDOFF_SOURCE, names.HANDOFF_TARGET",
    )
    expect_sound_tree(ran)
    expect_chats_at_home(ran)


def fill_in(request: ChatRequest) -> Completion:
    """The structured reply, by the way the framework asks for it: a tool, or JSON."""
    if any(message.role == "tool" for message in request.messages):
        return say("Done.")
    for tool in request.usable_tools:
        if "score" in str(tool.parameters):
            return call((tool.name, {"score": 7, "why": "wet"}))
    return say('{"score": 7, "why": "wet"}')


@check("a structured answer arrives as its type")
async def structured(kit: AgentKit, way: Way) -> None:
    result = (await play(kit.wrap(kit.structured(way, Verdict)), fill_in)).result
    fields = result.model_dump() if isinstance(result, BaseModel) else result
    expect(
        fields == {"score": 7, "why": "wet"},
        expected="Verdict(score=7, why='wet'), or its fields",
        seen=result,
        remedy="hand response_format or the output tool to the policy, and its reply to the parser",
    )


@check("an agent that consumes a stream gets the whole text")
async def streaming(kit: AgentKit, way: Way) -> None:
    ran = await play(kit.wrap(kit.streaming(way)), ScriptedPolicy(REPLY))
    expect_text(kit, ran, REPLY)
    expect_roles(ran, "writer")
    expect_sound_tree(ran)


@check("several calls of one role wait at once, and each gets its own answer")
async def parallel(kit: AgentKit, way: Way) -> None:
    policy = ScriptedPolicy("first answer", "second answer", "third answer")
    ran = await play(kit.wrap(kit.parallel(way)), policy, at_once=3)
    for text in ("first answer", "second answer", "third answer"):
        expect_text(kit, ran, text)
    expect_roles(ran, "writer", "writer", "writer")
    expect(
        ran.most_pending == 3,
        expected="three calls pending together",
        seen=ran.most_pending,
        remedy="await the policy in the agent's own task or thread; hold no lock meanwhile",
    )


@check("a model that is made while the agent runs is answered, too", "built")
async def late_model(kit: AgentKit, way: Way) -> None:
    ran = await play(kit.wrap(kit.late_model()), ScriptedPolicy(REPLY))
    expect_text(kit, ran, REPLY)
    expect_roles(ran, "writer")
    expect(
        len(ran.requests) == len(chats(ran)) == 1,
        expected="one call, recorded once",
        seen=[span.name for span in chats(ran)],
        remedy="let only one layer (framework or HTTP) answer a call",
    )
    expect_sound_tree(ran)


REPLIES = (detects, reply, roles, hand_off, structured, streaming, parallel, late_model)

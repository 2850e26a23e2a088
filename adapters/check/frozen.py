"""Checks of agents of which only some roles are trained: the others keep models of their own."""

from __future__ import annotations

import asyncio

from raybolt.adapters.check import drive
from raybolt.adapters.check.drive import Ran, Stage, play
from raybolt.adapters.check.kit import AgentKit, Way
from raybolt.adapters.check.replies import REPLY, expect_roles, expect_text
from raybolt.adapters.check.rules import check, expect
from raybolt.adapters.check.scripted import ScriptedPolicy
from raybolt.adapters.check.server import INPUT_TOKENS, OUTPUT_TOKENS, ModelServer
from raybolt.adapters.check.spans import chats, expect_chats_at_home, expect_sound_tree
from raybolt.env.task import Task
from raybolt.store import names

_WRITER = ["writer"]


def _expect_observed(kit: AgentKit, ran: Ran, server: ModelServer) -> None:
    """The critic's call went to its own model, and is recorded as such."""
    expect_text(kit, ran, "own reply 1")
    expect_roles(ran, "writer")
    expect(
        len(server.bodies) == 1 and REPLY in str(server.bodies[0]),
        expected="the critic's call, with the writer's reply, at its own model",
        seen=server.bodies,
        remedy="ask policy.takes(request), and call the original model inside own_call(policy, request)",
    )
    spans = chats(ran)
    expect(
        [span.attributes[names.AGENT_NAME] for span in spans] == ["writer", "critic"],
        expected="two chat spans: the writer's, the critic's",
        seen=[(span.name, span.attributes.get(names.AGENT_NAME)) for span in spans],
        remedy="observe a call once, in one layer: own_call keeps the HTTP client below from seeing it again",
    )
    known = spans[1].attributes
    expect(
        known.get(names.TRAINABLE) is False and names.RESPONSE_IDS not in known,
        expected="the critic's span marked as not trainable, without tokens",
        seen=known,
        remedy="let policy.observe make the span",
    )
    expect(
        "own reply 1" in str(known.get(names.OUTPUT_MESSAGES)) and spans[1].status == "ok",
        expected="the own model's reply in the critic's span",
        seen=(spans[1].status, spans[1].status_message, known.get(names.OUTPUT_MESSAGES)),
        remedy="tell ObservedCall.reply what the model said, in canonical form",
    )
    usage = (known.get(names.INPUT_TOKENS), known.get(names.OUTPUT_TOKENS))
    expect(
        usage == (INPUT_TOKENS, OUTPUT_TOKENS),
        expected=f"the usage that the model reported: {(INPUT_TOKENS, OUTPUT_TOKENS)}",
        seen=usage,
        remedy="hand the framework's usage numbers to ObservedCall.reply",
    )
    expect_sound_tree(ran)
    expect_chats_at_home(ran)


@check("with frozen=, roles that are not trainable are answered by that model", "factory")
async def frozen_model(kit: AgentKit, way: Way) -> None:
    with ModelServer().serving() as server:
        frozen = kit.own_model(server.url)
        agent = kit.wrap(kit.two_roles(way), trainable=_WRITER, frozen=frozen)
        _expect_observed(kit, await play(agent, ScriptedPolicy(REPLY)), server)


@check("with frozen=, a stream of that model reaches the agent whole, and is recorded", "factory")
async def frozen_stream(kit: AgentKit, way: Way) -> None:
    with ModelServer().serving() as server:
        frozen = kit.own_model(server.url)
        agent = kit.wrap(kit.streaming(way), trainable=["nobody"], frozen=frozen)
        ran = await play(agent, ScriptedPolicy("the policy is not asked"))
    expect_text(kit, ran, "own reply 1")
    expect_roles(ran)
    said = [(span.status, span.attributes.get(names.OUTPUT_MESSAGES)) for span in chats(ran)]
    expect(
        len(said) == 1 and said[0][0] == "ok" and "own reply 1" in str(said[0][1]),
        expected="one chat span with the whole reply",
        seen=said,
        remedy="pass chunks on as they come, and tell ObservedCall.reply what they add up to",
    )
    expect_sound_tree(ran)


@check("a built agent's own models answer the roles that are not trainable", "built")
async def own_models(kit: AgentKit, way: Way) -> None:
    with ModelServer().serving() as server:
        agent = kit.wrap(kit.own_agent(server.url), trainable=_WRITER)
        _expect_observed(kit, await play(agent, ScriptedPolicy(REPLY)), server)


@check("without frozen=, the policy answers what is not trainable, and it is marked", "factory")
async def policy_stands_in(kit: AgentKit, way: Way) -> None:
    agent = kit.wrap(kit.two_roles(way), trainable=_WRITER)
    ran = await play(agent, ScriptedPolicy(REPLY, "Too wet."))
    expect_text(kit, ran, "Too wet.")
    expect_roles(ran, "writer", "critic")
    marks = [span.attributes.get(names.TRAINABLE) for span in chats(ran)]
    expect(
        marks == [None, False],
        expected="the critic's span alone marked: names.TRAINABLE False",
        seen=marks,
        remedy="call policy.complete(request) where there is no own model: the run marks the call",
    )


@check("callers outside the run go on with their own models meanwhile", "built")
async def outsiders(kit: AgentKit, way: Way) -> None:
    with ModelServer().serving() as server:
        inside = Stage(kit.wrap(kit.own_agent(server.url)))
        await inside.waiting()
        outsider = kit.wrap(kit.own_agent(server.url)).arun(Task("outside", "And the snow?"))
        try:
            outside = kit.text(await asyncio.wait_for(outsider, drive.AT_ONCE_SECONDS))
        except TimeoutError:
            outside = "no answer"
        expect(
            outside == "own reply 2" and len(server.bodies) == 2,
            expected="two calls at the outsider's own model, the second its result",
            seen=(outside, len(server.bodies)),
            remedy="a replaced method asks captured_policy whether its caller belongs to a run",
        )
        ran = await asyncio.wait_for(inside.play(ScriptedPolicy(REPLY, "Too wet.")), 60)
        expect_text(kit, ran, "Too wet.")
        expect_roles(ran, "writer", "critic")


FROZEN = (frozen_model, frozen_stream, own_models, policy_stands_in, outsiders)
